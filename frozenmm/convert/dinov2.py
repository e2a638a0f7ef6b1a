"""DINOv2's official files -> weights for `DINOv2Tower`: the official names, whatever training wrapped around them."""
from __future__ import annotations

from torch import Tensor

from frozenmm.convert.identify import require_layout
from frozenmm.convert.rename import ConversionReport, Rename, rename_keys

LAYOUTS = ('DINOv2', 'DINOv2 training checkpoint')
RULES = (
    Rename(r'(?:backbone\.)?blocks\.\d+\.(\d+)\.(.+)', r'blocks.\1.\2'),  # blocks of sharded training
    Rename(r'(?:backbone\.)?((?:blocks|patch_embed|norm)\..+|cls_token|pos_embed|register_tokens|mask_token)', r'\1'),
    Rename(r'(dino_head|ibot_head)\..+', None, 'head of self-supervised training'),
)


def convert_dinov2(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], ConversionReport]:
    """The ViT of a DINOv2 state dict.

    Args:
        state: tensors by key, of a published file or of a training checkpoint's teacher.

    Raises:
        UserError: another layout, or unknown keys.
    """
    layout = require_layout(state, LAYOUTS, 'dinov2')
    result, report = rename_keys(state, RULES)
    report.require_all_matched(layout)
    return result, report
