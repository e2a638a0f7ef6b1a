"""Mask pooling: the mean feature under each mask."""
from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError

from .mask_library import _LIBRARY, define_op
from .ms_deform_attn import refuse_forward_mode

Rule = Literal['hard', 'soft', 'area']


def mask_pool(features: Tensor, mask_logits: Tensor, *, threshold: float = 0.0, eps: float = 1e-8,
              rule: Rule = 'hard') -> Tensor:
    """Area-normalised mean of the features under each mask.

    Mask logits of another size are first resized to that of the features (bilinear, `align_corners=False`, no
    antialiasing). Sums are taken in float32 (float64 for float64 features), whatever the features' type, so that `eps`
    does not vanish and an empty mask always pools to zeros.

    Args:
        features: (B, C, Hf, Wf), floating point, finite.
        mask_logits: (B, Q, h, w), floating point.
        threshold: not for `'soft'`; a cell belongs to the mask where the resized logit exceeds it. NaN does not.
        eps: added to the area.
        rule: `'hard'` weighs cells 0 or 1, with gradient to the features only; `'soft'` weighs them by the sigmoid of
            the resized logit, with gradient to both; `'area'` weighs them by the share of the cell that the mask
            covers at the logits' own size, with gradient to the features only, so that masks smaller than a cell of a
            coarse map do not vanish.

    Returns:
        (B, Q, C) in the features' type.

    Raises:
        TypeError, ValueError: an argument has a wrong kind, shape, device or value; the text names it.

    Source: FC-CLIP, mask pooling (hard rule, threshold 0, eps 1e-8).

    >>> mask_pool(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[5.0, -5.0]], [[5.0, 5.0]]]]))
    tensor([[[1.],
             [2.]]])
    """
    _check_pool(features, mask_logits, rule)
    wide = torch.float64 if features.dtype == torch.float64 else torch.float32
    if rule == 'hard':
        refuse_forward_mode(features)
        pooled = torch.ops.frozenmm.mask_pool(features.to(wide), mask_logits.detach().to(wide), threshold, eps)
    else:
        with torch.autocast(features.device.type, enabled=False):
            if rule == 'soft':
                weights = resize_masks(mask_logits.to(wide), features.shape[-2:]).sigmoid()
            else:
                weights = covered_area((mask_logits.detach() > threshold).to(wide), features.shape[-2:])
            pooled = _weighted_mean(features.to(wide), weights, eps)
    return pooled.to(features.dtype)


def _check_pool(features: Tensor, mask_logits: Tensor, rule: str) -> None:
    for name, value, shape in (('features', features, '(B, C, Hf, Wf)'), ('mask_logits', mask_logits, '(B, Q, h, w)')):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f'mask_pool: {name} must be a floating point Tensor {shape}, got {kind}.')
        if value.dim() != 4:
            raise ValueError(f'mask_pool: {name} must have shape {shape}, got {tuple(value.shape)}.')
        if 0 in value.shape[2:]:
            raise ValueError(f'mask_pool: {name} must have a height and width of at least 1, got {tuple(value.shape)}.')
    if features.shape[0] != mask_logits.shape[0]:
        raise ValueError(f'mask_pool: features and mask_logits must have the same number of images, got '
                         f'{features.shape[0]} and {mask_logits.shape[0]}.')
    if features.device != mask_logits.device:
        raise ValueError(f'mask_pool: features is on {features.device} but mask_logits on {mask_logits.device}; '
                         'move both to one device.')
    if rule not in get_args(Rule):
        raise UserError(f'mask_pool: rule must be one of {list(get_args(Rule))}, got {rule!r}.')


def resize_masks(mask_logits: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Mask logits (B, Q, h, w) resized bilinearly (`align_corners=False`) to (B, Q, *size).

    The queries are folded into the batch: torch's CPU kernel is many times slower on one image with many channels,
    because it copies them to a channels-last layout first when the result is small.
    """
    if mask_logits.shape[-2:] == tuple(size):
        return mask_logits
    if mask_logits.numel() == 0:
        return mask_logits.new_zeros((*mask_logits.shape[:2], *size))
    folded = mask_logits.reshape(-1, 1, *mask_logits.shape[-2:])
    resized = F.interpolate(folded, size=tuple(size), mode='bilinear', align_corners=False)
    return resized.view(*mask_logits.shape[:2], *size)


def covered_area(masks: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Share (B, Q, *size) of every cell that masks (B, Q, h, w) of 0 and 1 cover."""
    if masks.numel() == 0:
        return masks.new_zeros((*masks.shape[:2], *size))
    return F.adaptive_avg_pool2d(masks.flatten(0, 1)[:, None], (size[0], size[1])).view(*masks.shape[:2], *size)


def _weighted_mean(features: Tensor, weights: Tensor, eps: float) -> Tensor:
    """(B, Q, C) from features (B, C, H, W) and weights (B, Q, H, W)."""
    weights = weights.flatten(2)
    total = torch.bmm(weights, features.flatten(2).transpose(1, 2))
    return total / (weights.sum(dim=2, keepdim=True) + eps)


def _cells(mask_logits: Tensor, size: tuple[int, int] | torch.Size, threshold: float) -> Tensor:
    return (resize_masks(mask_logits, size) > threshold).to(mask_logits.dtype)


def pool_definition(features: Tensor, mask_logits: Tensor, threshold: float, eps: float) -> Tensor:
    """Plain torch path of `frozenmm::mask_pool`: (B, Q, C) from features (B, C, Hf, Wf) and logits (B, Q, h, w)."""
    return _weighted_mean(features, _cells(mask_logits, features.shape[-2:], threshold), eps)


def pool_backward_definition(grad: Tensor, mask_logits: Tensor, height: int, width: int, threshold: float, eps: float
                             ) -> Tensor:
    """Plain torch path of `frozenmm::mask_pool_backward`: gradient (B, C, height, width) of the features.

    Args:
        grad: (B, Q, C) of the pooled features.
        mask_logits: (B, Q, h, w).
        height: of the features.
        width: of the features.
        threshold: as in `mask_pool`.
        eps: as in `mask_pool`.
    """
    cells = _cells(mask_logits, (height, width), threshold).flatten(2)
    scaled = grad / (cells.sum(dim=2, keepdim=True) + eps)
    return torch.bmm(scaled.transpose(1, 2), cells).view(grad.shape[0], grad.shape[2], height, width)


def _pool_fake(features: Tensor, mask_logits: Tensor, threshold: float, eps: float) -> Tensor:
    return features.new_empty((features.shape[0], mask_logits.shape[1], features.shape[1]))


def _pool_backward_fake(grad: Tensor, mask_logits: Tensor, height: int, width: int, threshold: float, eps: float
                        ) -> Tensor:
    return grad.new_empty((grad.shape[0], grad.shape[2], height, width))


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float, float], output: Tensor) -> None:
    features, mask_logits, ctx.threshold, ctx.eps = inputs
    ctx.size = features.shape[-2:]
    ctx.save_for_backward(mask_logits)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (mask_logits,) = ctx.saved_tensors
    height, width = ctx.size
    gradient = torch.ops.frozenmm.mask_pool_backward(grad.contiguous(), mask_logits, height, width, ctx.threshold,
                                                     ctx.eps)
    return gradient, None, None, None


define_op('mask_pool(Tensor features, Tensor mask_logits, float threshold, float eps) -> Tensor',
          pool_definition, _pool_fake)
define_op('mask_pool_backward(Tensor grad, Tensor mask_logits, SymInt height, SymInt width, float threshold, float eps)'
          ' -> Tensor', pool_backward_definition, _pool_backward_fake)
torch.library.register_autograd('frozenmm::mask_pool', _backward, setup_context=_setup_context, lib=_LIBRARY)
for _device in ('cpu', 'cuda'):
    torch.library.register_autocast('frozenmm::mask_pool', _device, torch.float32, lib=_LIBRARY)
