"""open_clip's models: their configs and where their published weights come from."""
from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from typing import Any

import torch

from frozenmm.compat import require
from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.weights import WeightFile

_HUB = 'https://huggingface.co'


def open_clip_config(model: str) -> tuple[str, dict[str, Any]]:
    """open_clip's spelling of a model's name, and its own copy of the config (embed_dim, text_cfg, vision_cfg, ...).

    Raises:
        MissingDependency: open_clip is not installed.
        ValueError: unknown name; the nearest ones are given.
    """
    open_clip = require('open_clip', f'the open_clip model {model!r}')
    name = lookup(model, open_clip.list_models(), 'open_clip model')
    return name, deepcopy(open_clip.get_model_config(name))


def open_clip_file(model: str, pretrained: str | None) -> tuple[WeightFile | None, bool | None]:
    """The published file of a model and a tag, and whether it was trained with QuickGELU.

    Args:
        model: open_clip's spelling.
        pretrained: open_clip's tag, e.g. `'laion2b_s29b_b131k_ft_soup'`; None gives (None, None).

    Raises:
        ValueError: unknown tag; those of the model are listed.
    """
    if pretrained is None:
        return None, None
    open_clip = require('open_clip', f'the open_clip model {model!r}')
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags:
        raise ValueError(f'open_clip has no weights {pretrained!r} for {model}; it has {tags}')
    config = open_clip.get_pretrained_cfg(model, pretrained)
    url, hub = config.get('url', ''), config.get('hf_hub', '')
    if not url:
        repository, _, file = hub.rpartition('/')
        url = f'{_HUB}/{repository}/resolve/main/{file or "open_clip_model.safetensors"}'
    suffix = url.rpartition('.')[2]
    name = f'open_clip-{model}-{pretrained}.{suffix}'
    return WeightFile(url, _megabytes(model), 'see the address', name=name), bool(config.get('quick_gelu', False))


@lru_cache(maxsize=32)
def _megabytes(model: str) -> int:
    """Size of the model's weights in float32, counted without making them."""
    with torch.device('meta'):
        network = require('open_clip', 'its size').create_model(model, device='meta', load_weights=False)
    return round(sum(value.numel() * value.element_size() for value in network.state_dict().values()) / 1e6)


def pretrained_tags(model: str) -> list[str]:
    """open_clip's tags of published weights for a model."""
    return list(require('open_clip', f'the open_clip model {model!r}').list_pretrained_tags_by_model(model))
