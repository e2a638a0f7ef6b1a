"""How well a predicted deviation says where a prediction is wrong."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.uncertainty_cap import deviation, fitted_to
from frozenmm.registry import METRICS

STEPS = 20
"""Points of a sparsification curve: 0, 5, ..., 95 % of the pixels removed."""


def sparsification_curve(error: Tensor, order: Tensor) -> Tensor:
    """Mean error of what is left when the pixels with the largest `order` are removed, over the mean error of all.

    Args:
        error: (N,) not negative, not all zero.
        order: (N,).

    Returns:
        (20,) float64, 1 first.
    """
    left = error.double()[order.argsort()].cumsum(0)
    kept = [max(1, round(len(error) * (1 - step / STEPS))) for step in range(STEPS)]
    means = torch.stack([left[count - 1] / count for count in kept])
    return means / means[0].clamp(min=1e-12)


def ause(error: Tensor, sigma: Tensor) -> float:
    """Area between the sparsification curves by the deviation and by the error itself; 0 is perfect.

    Source: Ilg et al., ECCV 2018.
    """
    return float((sparsification_curve(error, sigma) - sparsification_curve(error, error)).mean())


def spearman(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two (N,) tensors, equal values sharing the mean of their ranks; NaN for a constant one."""
    ranks = []
    for values in (first, second):
        _, place, count = values.unique(return_inverse=True, return_counts=True)
        last = count.cumsum(0).double()
        ranks.append((last - (count.double() - 1) / 2)[place])
    a, b = (rank - rank.mean() for rank in ranks)
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def calibration_error(error: Tensor, scale: Tensor, shape: Tensor, levels: int = 20) -> float:
    """Mean over levels p of |share of the errors inside the central interval of probability p - p|.

    The error's place in its distribution is P(1/beta, (|error| / alpha)^beta), the regularised lower incomplete gamma
    function; calibrated errors spread it evenly over 0..1.

    Args:
        error: (N,) not negative.
        scale: (N,) alpha of a generalised Gaussian; likewise shape beta.
        shape: see above.
        levels: number of probabilities between 0 and 1.
    """
    shape = shape.double()
    place = torch.special.gammainc(1 / shape, (error.double() / scale.double()) ** shape)
    wanted = torch.arange(1, levels, device=place.device, dtype=torch.float64) / levels
    found = torch.stack([(place <= level).double().mean() for level in wanted])
    return float((found - wanted).abs().mean())


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Probability that a score of `outside` (M,) is above one of `inside` (N,), ties counting half."""
    difference = outside.double()[:, None] - inside.double()[None]
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


@METRICS.register_module()
class UncertaintyMetric(BaseMetric):
    """AUSE, Spearman's rank correlation and quantile calibration of `pred_depth_sigma` beside `pred_depth_map`.

    Args:
        align: fit the truth to the prediction by scale and shift first, as `frozenmm.CappedEstimator` does.
        stride: every stride-th pixel both ways counts.
        collect_device: see mmengine.
        prefix: see mmengine.

    Results, means over the images: `ause` (0 is perfect), `ause_random` (of a random order on a fixed seed), `spearman`
    (1 is perfect), `calibration` (0 is perfect), `sigma_over_error` (1 is right on the whole), and `abs_error` of the
    prediction over its median.
    """

    default_prefix = 'uncertainty'

    def __init__(self, *, align: bool = True, stride: int = 2, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if stride < 1:
            raise UserError(f'stride must be at least 1, got {stride}')
        self.align, self.stride = align, stride

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Score a batch; an image with less than 100 known pixels does not count."""
        for sample in data_samples:
            if 'pred_depth_sigma' not in sample:
                raise UserError('UncertaintyMetric found no `pred_depth_sigma` in a data sample; the model must be a '
                                'frozenmm.CappedEstimator with task=\'depth\'')
            every = slice(None, None, self.stride)
            truth, values, sigma, shape = (
                sample[key]['data'][:, every, every].float().cpu()[None]
                for key in ('gt_depth_map', 'pred_depth_map', 'pred_depth_sigma', 'pred_depth_shape'))
            known = truth > 0
            if int(known.sum()) >= 100:
                truth = fitted_to(truth, values, known) if self.align else truth
                unit = values.median()
                error, sigma, shape = ((values - truth).abs()[known] / unit, sigma[known] / unit, shape[known])
                self.results.append(_scores(error, sigma, shape))

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Means over the images.

        Raises:
            UserError: no image had enough measured depth.
        """
        if not results:
            raise UserError('no image had 100 pixels of measured depth; look at the data set\'s depth_rescale_factor')
        return {key: float(np.mean([result[key] for result in results])) for key in results[0]}


def _scores(error: Tensor, sigma: Tensor, shape: Tensor) -> dict[str, float]:
    scale = sigma / deviation(torch.ones_like(sigma), shape)
    chance = torch.rand(len(error), generator=torch.Generator().manual_seed(0))
    return dict(ause=ause(error, sigma), ause_random=ause(error, chance), spearman=spearman(error, sigma),
                calibration=calibration_error(error, scale, shape), abs_error=float(error.mean()),
                sigma_over_error=float((sigma.square().mean() / error.square().mean().clamp(min=1e-12)).sqrt()))
