"""Any timm model as a frozen tower. Weights: as timm publishes them, with the licence of its pretrained_cfg."""
from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.compat import require
from frozenmm.errors import UnknownName, UserError
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.doors import check_door
from frozenmm.foundation.image_towers.timm_reader import TimmReader
from frozenmm.foundation.lookup import nearest
from frozenmm.foundation.state_file import read_state
from frozenmm.foundation.state_match import load_strictly
from frozenmm.foundation.weights import WeightFile, locate, random_seed, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats


def check_timm_name(model: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: unknown architecture or pretrained tag; the text lists the nearest names.
    """
    timm = require('timm', 'TimmTower')
    architecture, _, tag = model.partition('.')
    if not timm.is_model(architecture):
        check_door(architecture, 'TimmTower')
        raise UnknownName(f'unknown timm model {architecture!r}; did you mean one of '
                         f'{nearest(architecture, timm.list_models())}?')
    known = timm.list_pretrained(architecture) if tag else []
    if tag and model not in known:
        raise UnknownName(f'timm has no weights {tag!r} of {architecture}; it has {known}')


def create(model: str, size: int | None) -> nn.Module:
    """A timm model without classifier, for any input size where the architecture can have it.

    Args:
        model: timm's name.
        size: side of the input, for architectures that are built for one size.
    """
    timm = require('timm', 'TimmTower')
    tries: list[dict[str, Any]] = [{'dynamic_img_size': True}, {'img_size': size} if size else {}, {}]
    for options in tries:
        try:
            return timm.create_model(model, pretrained=False, num_classes=0, **options)
        except TypeError as error:
            # timm passes options on to the architecture, which refuses those that it does not have
            if not any(key in str(error) for key in options):
                raise
    raise AssertionError('the last try has no options')


def build(model: str, weights: str | Path | None, size: int | None, name: str) -> TimmReader:
    """The network of a `TimmTower`; arguments as there.

    Raises:
        MissingFile: no file, and none can be fetched.
        UserError: no published weights, or the file of another architecture.
    """
    seed = random_seed(weights)
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return TimmReader(create(model, size))
    network = create(model, size)
    megabytes = sum(value.numel() for value in network.parameters()) * 4 // 10**6
    path = locate(weights, published_file(model, megabytes) if weights is None else None, name=name)
    whole = read_state(path)
    state = dict(whole)
    adapt = getattr(sys.modules[type(network).__module__], 'checkpoint_filter_fn', None)
    if adapt is not None:
        state = adapt(state, network)
    load_strictly(network, without_classifier(network, state), name=name, source=str(path), whole=whole)
    return TimmReader(network)


def published_file(model: str, megabytes: int) -> WeightFile | None:
    """Where timm publishes the weights of a model (its default ones for a name without tag); None where it does not."""
    config = require('timm', 'TimmTower').models.get_pretrained_cfg(model)
    if config is None or not (config.hf_hub_id or config.url):
        return None
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition('@')
        host = os.environ.get('HF_ENDPOINT', 'https://huggingface.co')
        file = config.hf_hub_filename or 'model.safetensors'
        url = f'{host}/{repository}/resolve/{revision or "main"}/{file}'
    else:
        url = config.url
    tag = f'.{config.tag}' if config.tag else ''
    return WeightFile(url, megabytes, config.license or 'see there',
                      name=model.partition('.')[0] + tag + Path(url).suffix)


def without_classifier(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state without the weights of the classifier, which a frozen tower does not have."""
    classifier = cast(Any, network).pretrained_cfg.get('classifier') or ()
    names = (classifier, ) if isinstance(classifier, str) else tuple(classifier)
    return {key: value for key, value in state.items() if not key.startswith(tuple(f'{name}.' for name in names))}


def timm_input(network: nn.Module, patch: int) -> TowerInput:
    """Normalisation, size and interpolation of a timm model, from its pretrained_cfg."""
    config = cast(Any, network).pretrained_cfg
    mean, std = (tuple(255.0 * value for value in config[key]) for key in ('mean', 'std'))
    interpolation = config.get('interpolation', 'bicubic')
    size = int(config['input_size'][-1])
    return TowerInput(ImageStats(cast(Any, mean), cast(Any, std)), max(patch, size // patch * patch), patch,
                      interpolation if interpolation in ('bicubic', 'bilinear') else 'bicubic')


@MODELS.register_module()
class TimmTower(ImageTower):
    """Any timm model.

    Convolutional and hierarchical networks give maps named by stride: res1..res6 for 2..64. Plain ViTs give `'patch'`
    (after the final norm by default) and a class token where they have one.

    Args:
        model: timm's name, with or without the tag of the weights (`'convnext_tiny.fb_in22k'`).
        weights: path of a checkpoint in timm's names (or one that timm converts, such as the official DINOv2 file);
            None for the published one; `'random'`.
        patch_output: `'normed'` or `'raw'` (before the final norm), for ViTs and for the last map of hierarchical
            networks with a norm behind their last stage (Swin, MViT, ...).
        size: side of the input; architectures with fixed windows are built for it.
        precision: see `FrozenModule`.
        **options: of `ImageTower`.
    """

    def __init__(self, model: str, weights: str | Path | None = None, *, patch_output: str = 'normed',
                 precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        check_timm_name(model)
        if patch_output not in ('normed', 'raw'):
            raise UserError(f"patch_output must be 'normed' or 'raw', got {patch_output!r}")
        size = options.get('size')
        name = f'timm {model}{weights_note(weights)}'
        network = shared_network(('timm', model, weights_key(weights), size),
                                 lambda: build(model, weights, size, name), name=name, precision=precision)
        reader = cast(TimmReader, network.module)
        if options.get('resize_mode') == 'none' and reader.fixed_size:
            raise UserError(f"{name} is built for inputs of one size; resize_mode='none' needs a network without")
        super().__init__(network, input=timm_input(reader.trunk, reader.patch), channels=reader.channels,
                         strides=reader.strides, token_channels=reader.token_channels,
                         blocks=reader.blocks, **options)
        self.normed = patch_output == 'normed'
        # the kinds of networks whose last norm was left out until 0.2: features cached then do not fit
        late = reader.last_norm == ('fc_norm' if reader.is_plain else 'norm')
        self.last_norm = reader.last_norm if self.normed and late else None

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`. Only one image token is a class token; more are means of patches."""
        maps, class_token = network(pixels, self.normed, self.taps or ())
        tokens = class_token[:, None] if class_token is not None and num_tokens == 1 else None
        return RawFeatures(maps=maps, tokens=tokens, class_token=class_token)

