"""A loss for depth that is known up to scale and shift."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.registry import MODELS


@MODELS.register_module()
class AffineDepthLoss(nn.Module):
    """Three terms: the depth's shape up to scale and shift, its logarithm up to scale, and the logarithm's steps.

    The first compares both depths after median and mean absolute deviation are taken out. It cannot tell a depth from
    the same plus a constant, so the second, which can, draws the shift to what the pictures show of it. The third
    compares differences between neighbours at four scales, which makes edges sharp and surfaces flat.

    Args:
        log_weight: of the second term.
        step_weight: of the third.
        loss_name: see mmseg.

    Source: MiDaS (Ranftl et al., TPAMI 2020) for the first and third, in depth in place of disparity.
    """

    SCALES = 4

    def __init__(self, *, log_weight: float = 0.5, step_weight: float = 1.0, loss_name: str = 'loss_depth') -> None:
        super().__init__()
        self.log_weight, self.step_weight, self.loss_name = log_weight, step_weight, loss_name

    def forward(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Mean, a scalar, over the images that have at least two measured pixels.

        Args:
            prediction: (B, 1, H, W), positive.
            truth: (B, 1, H, W), 0 where nothing is known.

        Raises:
            ValueError: shapes differ.
        """
        if prediction.shape != truth.shape or prediction.ndim != 4 or prediction.shape[1] != 1:
            raise ValueError(f'expected prediction and truth of one shape (B, 1, H, W), got {tuple(prediction.shape)} '
                             f'and {tuple(truth.shape)}')
        losses = [self._one(p[0], t[0], t[0] > 0) for p, t in zip(prediction.float(), truth.float())
                  if int((t > 0).sum()) > 1]
        return torch.stack(losses).mean() if losses else prediction.sum() * 0

    def _one(self, prediction: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        shape = (_normal(prediction[known]) - _normal(truth[known])).abs().mean()
        difference = torch.where(known, prediction.log() - truth.clamp(min=1e-6).log(), torch.zeros_like(prediction))
        offset = difference[known].detach().median()
        level = (difference[known] - offset).abs().mean()
        return shape + self.log_weight * level + self.step_weight * self._steps(difference, known)

    def _steps(self, difference: Tensor, known: Tensor) -> Tensor:
        """Mean absolute steps of the logarithmic error at every scale, both ways, summed over the scales."""
        total = difference.new_zeros(())
        difference, weight = difference[None, None], known[None, None].to(difference.dtype)
        for scale in range(self.SCALES):
            if scale:
                if min(difference.shape[2:]) < 4:
                    break
                area = F.avg_pool2d(weight, 2)
                difference = F.avg_pool2d(difference * weight, 2) / area.clamp(min=1e-6)
                weight = (area > 0).to(difference.dtype)
            for axis in (2, 3):
                both = weight.narrow(axis, 1, weight.shape[axis] - 1) * weight.narrow(axis, 0, weight.shape[axis] - 1)
                total = total + (difference.diff(dim=axis).abs() * both).sum() / both.sum().clamp(min=1)
        return total


def _normal(values: Tensor) -> Tensor:
    """Values without their median and their mean absolute deviation."""
    centred = values - values.median()
    return centred / centred.abs().mean().clamp(min=1e-6)
