"""OpenAI's CLIP text encoders as frozen towers."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from frozenmm.compat import require
from frozenmm.errors import UserError
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_towers.clip import clip_model
from frozenmm.foundation.text_tower import TextTower, Tokenizer
from frozenmm.foundation.text_towers.clip_text_network import CLIPTextTransformer
from frozenmm.foundation.weights import WeightFile, build_network, weights_key, weights_note
from frozenmm.registry import MODELS

WIDTHS = {'ViT-B/32': 512, 'ViT-B/16': 512, 'ViT-L/14': 768, 'ViT-L/14@336px': 768, 'RN50': 512, 'RN101': 512,
          'RN50x4': 640, 'RN50x16': 768, 'RN50x64': 1024}
"""Width of the text transformer; it has 12 blocks and heads of 64 channels in every published model."""
_TEXT_KEYS = ('token_embedding.', 'positional_embedding', 'transformer.', 'ln_final.', 'text_projection', 'logit_scale')
_CUSTOM = {'width': int, 'layers': int, 'heads': int, 'output_dim': int, 'context': int, 'vocabulary_size': int}
_REQUIRED = ('width', 'layers', 'heads', 'output_dim')


@lru_cache(maxsize=1)
def clip_tokenizer() -> Tokenizer:
    """CLIP's byte-pair tokenizer: lower case, begin mark 49406, end mark 49407.

    Raises:
        MissingPackage: open_clip is not installed.
    """
    bpe = require('open_clip', 'the CLIP tokenizer').SimpleTokenizer()

    def rows(texts: Sequence[str]) -> list[list[int]]:
        return [[bpe.sot_token_id, *bpe.encode(text), bpe.eot_token_id] for text in texts]

    return Tokenizer(rows, identity='CLIP byte pairs, lower case')


def text_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's weights and the logit scale of a whole CLIP file; a text encoder alone passes through."""
    if 'text_projection' not in state:
        return state
    return {key: value for key, value in state.items() if key.startswith(_TEXT_KEYS)}


def _sizes(model: str | Mapping[str, int]) -> tuple[str, dict[str, int], WeightFile | None]:
    """Name, sizes and published file of a model."""
    if isinstance(model, str):
        name, sizes = clip_model(model)
        width = WIDTHS[name]
        return name, {'width': width, 'layers': 12, 'heads': width // 64, 'output_dim': sizes.output_dim}, sizes.weights
    wrong = [key for key in model if key not in _CUSTOM] + [key for key in _REQUIRED if key not in model]
    if wrong:
        raise UserError(f'sizes of a CLIP text encoder are {list(_CUSTOM)} (the last two may be left out), '
                         f'got {sorted(model)}')
    return 'custom', dict(model), None


@MODELS.register_module()
class CLIPTextTower(TextTower):
    """The text encoder of an OpenAI CLIP: vectors in the joint space, not normalised.

    Args:
        model: a published name (`'ViT-L/14@336px'`, `'RN50'`, ...), or a dict of the sizes width, layers, heads,
            output_dim and, where they differ from 77 and 49408, context and vocabulary_size.
        weights: path of an official file (TorchScript) or a state dict of the whole model or its text encoder; None for
            the published file; `'random'`.
        activation: `'quick_gelu'`, as OpenAI's weights want it, or `'gelu'`.
        precision: see `FrozenModule`; likewise compile.
        truncate: see `TextTower`; likewise batch_size.

    Attributes:
        logit_scale: logarithm of the scale that CLIP multiplies cosines with, in full precision.
    """

    def __init__(self, model: str | Mapping[str, int] = 'ViT-L/14@336px', weights: str | Path | None = None, *,
                 activation: str = 'quick_gelu', precision: str = 'fp32', compile: bool = False, truncate: bool = False,
                 batch_size: int = 256) -> None:
        key, sizes, file = _sizes(model)
        name = f'CLIP text {key}{weights_note(weights)}'
        tokenizer = clip_tokenizer()  # first, so that a missing package shows before the weights are read

        def build() -> CLIPTextTransformer:
            network = build_network(lambda: CLIPTextTransformer(**sizes, activation=activation), weights, file,
                                    name=name, select=text_part)
            network.full_logit_scale = float(network.logit_scale.detach())
            return network

        network = shared_network(('CLIPText', key, *sorted(sizes.items()), activation, weights_key(weights)), build,
                                 name=name, precision=precision)
        scale: Any = network.module.full_logit_scale
        super().__init__(network, tokenizer, channels=sizes['output_dim'], context=sizes.get('context', 77),
                         truncate=truncate, batch_size=batch_size, compile=compile)
        self.activation = activation
        self.heads = sizes['heads']
        self.logit_scale: float = scale

    def embed(self, network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """See `TextTower.embed`."""
        return network(ids)

    def options(self) -> dict[str, object]:
        """See `TextTower.options`."""
        return {**super().options(), 'activation': self.activation, 'heads': self.heads}


