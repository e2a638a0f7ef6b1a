from __future__ import annotations

import pytest
import torch

from frozenmm.evaluation.aligned_depth import AlignedDepthMetric
from frozenmm.foundation.local_lines import fit_local_lines
from frozenmm.registry import METRICS


def scene(seed=0, size=(48, 64)):
    """True depth with two surfaces, some of it not measured."""
    v, u = torch.meshgrid(torch.linspace(0, 1, size[0]), torch.linspace(0, 1, size[1]), indexing='ij')
    truth = 2 + u + 0.5 * v + (u > 0.6) * 1.5
    truth[:4, :4] = 0
    return truth, u, v


def score(prediction, truth, **options):
    metric = AlignedDepthMetric(**options)
    metric.process({}, [{'gt_depth_map': {'data': truth[None]}, 'pred_depth_map': {'data': prediction[None]}}])
    return metric.evaluate(size=1)


def test_each_alignment_takes_out_what_it_should():
    truth, _, _ = scene()
    alignments = ('none', 'median_scale', 'lsq_scale', 'lsq_scale_shift', 'lwlr')
    scaled = score(truth * 0.3, truth, alignments=alignments)
    assert scaled['depth/none/abs_rel'] == pytest.approx(0.7, abs=1e-5)
    for name in alignments[1:]:
        assert scaled[f'depth/{name}/abs_rel'] < 1e-5 and scaled[f'depth/{name}/delta1'] == 1
    shifted = score(truth * 0.3 + 1, truth, alignments=alignments)
    assert shifted['depth/median_scale/abs_rel'] > 0.05
    assert shifted['depth/lsq_scale_shift/abs_rel'] < 1e-5 and shifted['depth/lwlr/abs_rel'] < 1e-5


def test_local_lines_follow_smooth_factors_that_one_line_cannot():
    truth, u, v = scene()
    bent = truth * (1 + 0.3 * torch.sin(4 * u) * v) * 0.5 + 0.2
    found = score(bent, truth, lwlr_points=200)
    assert found['depth/lwlr/abs_rel'] < 0.5 * found['depth/lsq_scale_shift/abs_rel']


def test_pixels_out_of_range_and_images_without_truth_do_not_count():
    truth, _, _ = scene()
    wrong = torch.where(truth > 3.5, 100.0, truth)
    assert score(wrong, truth, max_depth=3.5)['depth/median_scale/abs_rel'] < 1e-6
    metric = AlignedDepthMetric()
    metric.process({}, [{'gt_depth_map': {'data': truth[None] * 0}, 'pred_depth_map': {'data': truth[None]}}])
    with pytest.raises(ValueError, match='no image had more than 100 pixels of measured depth'):
        metric.compute_metrics(metric.results)


def test_the_metric_is_registered_and_checks_its_arguments():
    assert isinstance(METRICS.build(dict(type='frozenmm.AlignedDepthMetric')), AlignedDepthMetric)
    with pytest.raises(ValueError, match=r"unknown alignment \['scale'\]"):
        AlignedDepthMetric(('scale', ))
    with pytest.raises(ValueError, match=r"unknown measure \['absrel'\]"):
        AlignedDepthMetric(measures=['absrel'])
    with pytest.raises(ValueError, match='lwlr_points must be at least 2'):
        AlignedDepthMetric(lwlr_points=1)
    truth, _, _ = scene()
    with pytest.raises(ValueError, match='the prediction has'):
        score(truth[:10], truth)


def brute_force(depth, pixels, targets, bandwidth, ridge, nodes):
    """The definition, one node at a time, at the pixels that are nodes."""
    depth, x, y = depth.double(), depth.double()[pixels[:, 0], pixels[:, 1]], targets.double()
    slope, intercept = torch.linalg.lstsq(torch.stack((x, torch.ones_like(x)), 1), y[:, None]).solution[:, 0]
    depth, x = depth * slope + intercept, x * slope + intercept
    side, spread = min(depth.shape), x.std()
    stride = side // nodes
    values = {}
    for row in range(stride // 2, depth.shape[0], stride):
        for column in range(stride // 2, depth.shape[1], stride):
            distance = (pixels[:, 0] - row).double()**2 + (pixels[:, 1] - column).double()**2
            weight = (-distance / (2 * (bandwidth * side)**2)).exp()
            design = torch.stack((torch.ones_like(x), (x - x.mean()) / spread), 1)
            matrix = design.T @ (weight[:, None] * design) + ridge * torch.eye(2, dtype=torch.float64)
            b, a = torch.linalg.solve(matrix, design.T @ (weight * (y - x) / spread))
            value = depth[row, column]
            values[row, column] = value + spread * (b + a * (value - x.mean()) / spread)
    return values


def test_local_lines_are_the_weighted_ridge_regression_at_every_node():
    truth, u, v = scene()
    draw = torch.Generator().manual_seed(1)
    pixels = torch.stack([torch.randint(0, side, (80, ), generator=draw) for side in (48, 64)], 1)
    targets = truth[pixels[:, 0], pixels[:, 1]] * (1 + 0.2 * torch.rand(80, generator=draw))
    found = fit_local_lines(truth, pixels, targets, bandwidth=0.3, ridge=0.7, nodes=8)
    for (row, column), value in brute_force(truth, pixels, targets, 0.3, 0.7, 8).items():
        assert float(found[row, column]) == pytest.approx(float(value), rel=1e-9)


def test_the_unit_of_depth_does_not_matter():
    truth, u, _ = scene()
    pixels = torch.nonzero(truth)[::37]
    targets = truth[pixels[:, 0], pixels[:, 1]] * (1 + 0.1 * u[pixels[:, 0], pixels[:, 1]])
    metres = fit_local_lines(truth, pixels, targets)
    torch.testing.assert_close(fit_local_lines(truth * 7 + 3, pixels, targets * 1000), metres * 1000, rtol=1e-5, atol=0)


def test_far_from_all_samples_the_global_line_holds():
    truth, _, _ = scene()
    pixels = torch.nonzero(truth[:20, :20] > 0)[::11]
    targets = truth[pixels[:, 0], pixels[:, 1]] * 2 + torch.sin(pixels[:, 0].float()) * 0.05
    found = fit_local_lines(truth, pixels, targets, bandwidth=0.05)
    wide = fit_local_lines(truth, pixels, targets, bandwidth=0.05, ridge=1e9)
    torch.testing.assert_close(found[40:, 50:], wide[40:, 50:], rtol=1e-6, atol=0)
    assert (found[:20, :20] - wide[:20, :20]).abs().max() > 1e-4


def test_bad_samples_are_explained():
    truth, _, _ = scene()
    pixels = torch.tensor([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match='at least 2 samples'):
        fit_local_lines(truth, pixels[:1], torch.ones(1))
    with pytest.raises(ValueError, match=r'expected depth \(H, W\), pixels \(N, 2\) and targets \(N, \)'):
        fit_local_lines(truth, pixels, torch.ones(3))
    with pytest.raises(ValueError, match='bandwidth must be positive'):
        fit_local_lines(truth, pixels, torch.ones(2), bandwidth=0)
