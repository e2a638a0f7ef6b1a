"""Depth errors after an alignment of the prediction (spec section 7)."""
from __future__ import annotations

import torch
from torch import Tensor

from frozenmm.errors import UserError

ALIGNMENTS = ('none', 'median_scale', 'lsq_scale', 'lsq_scale_shift')
VALID_FROM = 1e-8


def align_depth(prediction: Tensor, truth: Tensor, *, method: str = 'median_scale',
                valid: Tensor | None = None) -> Tensor:
    """Prediction brought to the scale of the truth, float64, over all pixels given.

    Args:
        prediction: any shape, one scene or one frame, as the alignment is meant.
        truth: the same shape; values up to 1e-8 mean no measurement.
        method: `'median_scale'`: the median of truth / prediction; `'lsq_scale'` and `'lsq_scale_shift'`: least
            squares of the truth on the prediction; `'none'`.
        valid: bool mask; default: where the truth is measured.

    Raises:
        ValueError: unknown method, shapes that differ, or no valid pixel.
    """
    if method not in ALIGNMENTS:
        raise UserError(f'method must be one of {list(ALIGNMENTS)}, got {method!r}')
    valid = _valid(prediction, truth, valid)
    prediction, x, y = prediction.double(), prediction[valid].double(), truth[valid].double()
    if method == 'none':
        return prediction
    if method == 'median_scale':
        return prediction * _median(y / x.clamp(min=VALID_FROM))
    design = x[:, None] if method == 'lsq_scale' else torch.stack((x, torch.ones_like(x)), 1)
    solution = torch.linalg.lstsq(design, y[:, None], driver='gelsd' if x.device.type == 'cpu' else None).solution[:, 0]
    return prediction * solution[0] + (solution[1] if len(solution) > 1 else 0.0)


def depth_errors(prediction: Tensor, truth: Tensor, *, valid: Tensor | None = None) -> dict[str, float]:
    """Error measures of an aligned prediction.

    Args:
        prediction: any shape, in the unit of the truth.
        truth: the same shape; values up to 1e-8 mean no measurement.
        valid: bool mask; default: where the truth is measured.

    Returns:
        `abs_rel`, `sq_rel` (mean of ((gt - p) / gt)^2, as AdelaiDepth defines it), `rmse`, `log_rmse`, `log10`,
        `delta1` to `delta3` (share of ratios below 1.25^k) and `silog`.
    """
    valid = _valid(prediction, truth, valid)
    p, g = prediction[valid].double(), truth[valid].double()
    positive = p.clamp(min=VALID_FROM)
    log = positive.log() - g.log()
    ratio = torch.maximum(g / positive, positive / g)
    relative = (g - p) / g
    values = {'abs_rel': relative.abs().mean(), 'sq_rel': relative.square().mean(),
              'rmse': (g - p).square().mean().sqrt(), 'log_rmse': log.square().mean().sqrt(),
              'log10': (positive.log10() - g.log10()).abs().mean(),
              **{f'delta{k}': (ratio < 1.25**k).double().mean() for k in (1, 2, 3)},
              'silog': (log.square().mean() - log.mean().square()).clamp(min=0).sqrt()}
    return {name: float(value) for name, value in values.items()}


def _median(values: Tensor) -> Tensor:
    """Mean of the two middle values for an even count, unlike `Tensor.median`."""
    ordered = values.sort().values
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _valid(prediction: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    if prediction.shape != truth.shape:
        raise ValueError(f'prediction and truth must have one shape, got {tuple(prediction.shape)} and '
                         f'{tuple(truth.shape)}; resize the prediction first')
    valid = truth > VALID_FROM if valid is None else valid & (truth > VALID_FROM)
    if not bool(valid.any()):
        raise UserError('no pixel has a measured depth; the truth must be positive where it is known')
    return valid
