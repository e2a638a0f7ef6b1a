"""open_clip's text encoders as frozen towers."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenmm.compat import require
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_towers.open_clip import open_clip_model, published_file
from frozenmm.foundation.text_tower import TextTower, Tokenizer
from frozenmm.foundation.text_towers.clip import clip_tokenizer
from frozenmm.foundation.weights import build_network, weights_key, weights_note
from frozenmm.registry import MODELS

_FLAT_KEYS = ('token_embedding.', 'positional_embedding', 'transformer.', 'ln_final.', 'text_projection', 'cls_emb')


class OpenCLIPText(nn.Module):
    """open_clip's `TextTransformer` and the model's logit scale.

    Args:
        text: the transformer.
    """

    def __init__(self, text: Any) -> None:
        super().__init__()
        text.output_tokens = False
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.full_logit_scale = 0.0

    @property
    def ends_early(self) -> bool:
        """Whether what follows a text's end mark does not matter: causal attention, read at the highest id."""
        return self.text.attn_mask is not None and self.text.cls_emb is None and self.text.pool_type == 'argmax'

    def settle(self) -> None:
        """After loading: make the mask that is in no checkpoint, keep the logit scale in full precision."""
        if self.text.attn_mask is not None:
            self.text.attn_mask = self.text.build_causal_mask()
        self.full_logit_scale = float(self.logit_scale.detach())

    def forward(self, ids: Tensor) -> Tensor:
        """Text vectors (N, C), not normalised, of token ids (N, T)."""
        if not self.ends_early:
            return self.text(ids)
        text, length = self.text, ids.shape[1]
        x = text.token_embedding(ids) + text.positional_embedding[:length]
        x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
        x = x[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
        if isinstance(text.text_projection, nn.Linear):
            return text.text_projection(x)
        return x if text.text_projection is None else x @ text.text_projection


def text_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder of an open_clip file, whether it stands under `text.` or beside the image encoder."""
    part = {key: value for key, value in state.items() if key.startswith('text.')}
    if not part:
        part = {f'text.{key}': value for key, value in state.items() if key.startswith(_FLAT_KEYS)}
    return {**part, **({'logit_scale': state['logit_scale']} if 'logit_scale' in state else {})} if part else state


def _tokenizer(name: str, config: dict[str, Any], folder: str | Path | None) -> Tokenizer:
    """The tokenizer that a configuration asks for."""
    if 'text_cfg' not in config:
        raise UserError(f'the configuration of {name} has no text_cfg; it has {sorted(config)}')
    text = config['text_cfg']
    if text.get('hf_model_name'):
        raise UserError(f'{name} is built on the Hugging Face model {text["hf_model_name"]!r}, which '
                         'OpenCLIPTextTower does not load; choose a model with open_clip\'s own text transformer')
    if not text.get('hf_tokenizer_name'):
        return clip_tokenizer()
    if folder is None:
        raise UserError(f'{name} uses the Hugging Face tokenizer {text["hf_tokenizer_name"]!r}, which does not come '
                         'with open_clip; save it into a folder and give that as `tokenizer`')
    if not Path(folder).is_dir():
        raise MissingFile(f'tokenizer folder {Path(folder).absolute()} of {name} does not exist')
    tokenizers = require('open_clip.tokenizer', name)
    with reading(folder, 'a tokenizer', 'save it again'):
        wrapper = tokenizers.HFTokenizer(str(folder), local_files_only=True, **(text.get('tokenizer_kwargs') or {}))
    tokenizer = wrapper.tokenizer
    drop = tokenizer.sep_token_id if wrapper.strip_sep_token else None

    def rows(texts: Sequence[str]) -> list[list[int]]:
        found = tokenizer([wrapper.clean_fn(text) for text in texts], verbose=False)['input_ids']
        return [[0 if token == drop else token for token in row] for row in found]

    return Tokenizer(rows, tokenizer.backend_tokenizer.to_str() + repr(text.get('tokenizer_kwargs')),
                     tokenizer.num_special_tokens_to_add(), tokenizer.pad_token_id or 0)


def _text_network(config: dict[str, Any], quick_gelu: bool) -> OpenCLIPText:
    library = require('open_clip.model', 'OpenCLIPTextTower')
    text_config = library.CLIPTextCfg(**config['text_cfg'])
    return OpenCLIPText(library._build_text_tower(config['embed_dim'], text_config, quick_gelu))


@MODELS.register_module()
class OpenCLIPTextTower(TextTower):
    """The text encoder of an open_clip model: vectors in the joint space, not normalised.

    Args:
        model: open_clip's name, or a configuration (`embed_dim`, `vision_cfg`, `text_cfg`), as for `OpenCLIPTower`.
        weights: path of a checkpoint of the whole model; None for the published ones; `'random'`.
        pretrained: tag of the published weights; also decides the activation when `weights` is a path.
        tokenizer: folder of the tokenizer, for models that use one of Hugging Face's.
        precision: see `FrozenModule`; likewise compile.
        truncate: see `TextTower`; likewise batch_size.

    Attributes:
        logit_scale: logarithm of the scale that the model multiplies cosines with, in full precision.
    """

    def __init__(self, model: str | Mapping[str, Any] = 'convnext_large_d_320', weights: str | Path | None = None, *,
                 pretrained: str | None = None, tokenizer: str | Path | None = None, precision: str = 'fp32',
                 compile: bool = False, truncate: bool = False, batch_size: int = 256) -> None:
        key, config, description = open_clip_model(model, pretrained)
        quick_gelu = bool(config.get('quick_gelu', description.get('quick_gelu', False)))
        name = f'open_clip text {key}{weights_note(weights)}'
        reader = _tokenizer(name, config, tokenizer)

        def build() -> OpenCLIPText:
            network = build_network(lambda: _text_network(config, quick_gelu), weights,
                                    published_file(key, config, description), name=name, select=text_part)
            network.settle()
            return network

        network = shared_network(('OpenCLIPText', key, repr(config), quick_gelu, weights_key(weights)), build,
                                 name=name, precision=precision)
        text: Any = network.module
        super().__init__(network, reader, channels=config['embed_dim'], context=text.text.context_length,
                         pad_to_context=not text.ends_early, truncate=truncate, batch_size=batch_size, compile=compile)
        self.recipe = repr((config['text_cfg'], quick_gelu))
        self.logit_scale: float = text.full_logit_scale

    def embed(self, network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """See `TextTower.embed`."""
        return network(ids)

    def options(self) -> dict[str, object]:
        """See `TextTower.options`."""
        return {**super().options(), 'recipe': self.recipe}
