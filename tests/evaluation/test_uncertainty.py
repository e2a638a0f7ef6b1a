"""Scores of deviations against their definitions and on noise whose scale is known."""
from __future__ import annotations

import pytest
import torch

from frozenmm.evaluation.uncertainty import (
    UncertaintyMetric,
    auroc,
    ause,
    calibration_error,
    sparsification_curve,
    spearman,
)

stats = pytest.importorskip('scipy.stats')


def test_sparsification_by_hand():
    error, sigma = torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    curve = sparsification_curve(error, sigma)
    assert curve[0] == 1 and curve[5].item() == pytest.approx((4 + 1 + 3) / 3 / 2.5)
    assert curve[10].item() == pytest.approx(2.5 / 2.5) and curve[15].item() == pytest.approx(4 / 2.5)
    assert ause(error, error) == 0 < ause(error, sigma) < ause(error, -error)


def test_rank_correlation_and_auroc_are_scipys(generator):
    first = torch.randint(0, 6, (200, ), generator=generator).float()
    second = first + torch.randn(200, generator=generator)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    u = stats.mannwhitneyu(second, first).statistic
    assert auroc(first, second) == pytest.approx(u / 200**2)


@pytest.mark.parametrize('shape', [0.7, 1.0, 2.0, 5.0])
def test_errors_of_the_distribution_itself_are_calibrated(shape):
    error = torch.from_numpy(stats.gennorm.rvs(shape, scale=3.0, size=20000, random_state=0)).abs()
    full = torch.full_like(error, 3.0)
    assert calibration_error(error, full, torch.full_like(error, shape)) < 0.01
    assert calibration_error(error, full / 2, torch.full_like(error, shape)) > 0.08


def test_the_metric_ranks_a_deviation_that_knows_the_noise(generator):
    metric, blind = UncertaintyMetric(), UncertaintyMetric()
    truth = torch.rand(1, 80, 80, generator=generator) + 1
    sigma = torch.rand(1, 80, 80, generator=generator) * 0.2 + 0.01
    predicted = 3 * (truth + sigma * torch.randn(truth.shape, generator=generator)) + 2
    truth[:, :4] = 0  # unknown
    for one, given in (metric, sigma), (blind, torch.rand(sigma.shape, generator=generator)):
        parts = dict(gt_depth_map=truth, pred_depth_map=predicted, pred_depth_sigma=3 * given,
                     pred_depth_shape=torch.full_like(sigma, 2.0))
        one.process({}, [{key: dict(data=value) for key, value in parts.items()}])
    knowing, random = metric.compute_metrics(metric.results), blind.compute_metrics(blind.results)
    assert knowing['spearman'] > 0.4 > 0.1 > abs(random['spearman'])
    assert knowing['ause'] < 0.6 * random['ause'] and random['ause'] == pytest.approx(random['ause_random'], rel=0.2)
    assert knowing['calibration'] < 0.03 and knowing['sigma_over_error'] == pytest.approx(1, abs=0.1)


def test_a_model_without_a_cap_is_told_so():
    with pytest.raises(ValueError, match='no `pred_depth_sigma`.*must be a frozenmm.CappedEstimator'):
        UncertaintyMetric().process({}, [dict(pred_depth_map=dict(data=torch.ones(1, 2, 2)))])
    metric = UncertaintyMetric()
    with pytest.raises(ValueError, match='no image had 100 pixels'):
        metric.compute_metrics([])
