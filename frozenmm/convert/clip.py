"""OpenAI's CLIP files -> the weights of one encoder, small and without TorchScript.

`CLIPTower` reads the official files as they are; a converted file opens faster and holds a third of the bytes.
"""
from __future__ import annotations

from torch import Tensor

from frozenmm.convert.identify import require_layout
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys

LAYOUTS = ('OpenAI CLIP', 'image tower of OpenAI CLIP')
RULES = (
    Rename(r'visual\.(.+)', r'\1'),
    Rename(r'(transformer|ln_final)\..+|token_embedding\.weight|positional_embedding|text_projection', None,
           'text encoder'),
    Rename(r'logit_scale|input_resolution|context_length|vocab_size', None, 'no part of an encoder'),
)


def convert_clip(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], ConversionReport]:
    """The image encoder of an official CLIP state dict, in float32.

    Args:
        state: tensors by official key, whole model or image encoder alone.

    Raises:
        UserError: another layout, or unknown keys.
    """
    layout = require_layout(state, LAYOUTS, 'clip')
    rules = RULES if layout == LAYOUTS[0] else (Rename(r'(.+)', r'\1'),)
    result, report = rename_keys(state, rules)
    report.require_all_matched(layout)
    return {key: value.float() for key, value in result.items()}, report
