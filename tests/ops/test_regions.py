"""RoIAlign and RoIPool through mmcv's functions, against loops over bins and samples."""
from __future__ import annotations

import math

import pytest
import torch
from mmcv.ops import roi_align, roi_pool

from frozenmm.compat import mmcv_ext

pytestmark = pytest.mark.skipif(mmcv_ext.compiled_extension() is not None, reason='mmcv has compiled operators')


def sample(feature, y, x):
    """Bilinear value of (H, W) at a point; 0 more than one pixel outside."""
    height, width = feature.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    return float(feature[top, left] * (1 - fy) * (1 - fx) + feature[top, right] * (1 - fy) * fx
                 + feature[bottom, left] * fy * (1 - fx) + feature[bottom, right] * fy * fx)


def roi_align_by_loops(feature, roi, bins, scale, ratio, aligned, mode='avg'):
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (value * scale - shift for value in roi[1:])
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    counts = [ratio or math.ceil(length / n) for length, n in ((height, bins[0]), (width, bins[1]))]
    out = torch.zeros(feature.shape[1], *bins, dtype=feature.dtype)
    for channel in range(feature.shape[1]):
        for i in range(bins[0]):
            for j in range(bins[1]):
                samples = []
                for a in range(counts[0]):
                    for b in range(counts[1]):
                        y = y1 + height / bins[0] * (i + (a + 0.5) / counts[0])
                        x = x1 + width / bins[1] * (j + (b + 0.5) / counts[1])
                        samples.append(sample(feature[int(roi[0]), channel], y, x))
                if samples:
                    out[channel, i, j] = max(samples) if mode == 'max' else sum(samples) / len(samples)
    return out


ROIS = [[0, 2.3, 1.1, 13.7, 9.2], [1, -6.0, -4.0, 9.0, 8.0], [1, 10.0, 10.0, 40.0, 36.0], [0, 5.0, 5.0, 5.4, 5.2],
        [0, 0.0, 0.0, 15.9, 11.9], [1, 4.0, 4.0, 4.0, 9.0], [0, 3.0, 5.0, 3.0, 5.0]]


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_follows_the_definition(aligned, ratio, mode, generator):
    feature = torch.rand(2, 3, 9, 11, generator=generator, dtype=torch.float64)
    ours = roi_align(feature, torch.tensor(ROIS, dtype=torch.float64), (3, 2), 0.5, ratio, mode, aligned)
    expected = torch.stack([roi_align_by_loops(feature, roi, (3, 2), 0.5, ratio, aligned, mode) for roi in ROIS])
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_backward_is_the_gradient_of_forward(aligned, mode, generator):
    feature = torch.rand(2, 2, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(ROIS[:4], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, (2, 3), 0.5, 0, mode, aligned), (feature, ))


def test_roi_align_without_regions_is_empty():
    out = roi_align(torch.rand(1, 2, 5, 5), torch.zeros(0, 5), (2, 2), 1.0, 0, 'avg', True)
    assert out.shape == (0, 2, 2, 2)


@pytest.mark.parametrize('aligned', [True, False])
def test_an_empty_region_is_zero_where_samples_follow_its_size(aligned, generator):
    feature = torch.rand(1, 2, 8, 8, generator=generator) + 1
    out = roi_align(feature, torch.tensor([[0.0, 3, 3, 3, 3], [0, 6, 2, 4, 5]]), (2, 2), 1.0, 0, 'avg', aligned)
    if aligned:
        assert not out.any()
    else:  # regions are at least one cell large there
        assert (out[0] >= 1).all()


# inputs and results of the size of mmcv's own tests: one or two channels of 2 x 2 and 4 x 4 cells
SMALL = [([[[[1.0, 2], [3, 4]]]], [[0.0, 0, 0, 1, 1]], [[[[1.0, 2], [3, 4]]]]),
         ([[[[1.0, 2], [3, 4]], [[4, 3], [2, 1]]]], [[0.0, 0, 0, 1, 1]], [[[[1.0, 2], [3, 4]], [[4, 3], [2, 1]]]]),
         ([[[[1.0, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]]], [[0.0, 0, 0, 3, 3]],
          [[[[4.0, 8], [12, 16]]]])]


@pytest.mark.parametrize(('feature', 'rois', 'expected'), SMALL)
def test_small_regions_are_pooled(feature, rois, expected):
    assert roi_pool(torch.tensor(feature), torch.tensor(rois), (2, 2), 1.0).tolist() == expected


def roi_pool_by_loops(feature, roi, bins, scale):
    x1, y1, x2, y2 = roi[1] * scale, roi[2] * scale, (roi[3] + 1) * scale, (roi[4] + 1) * scale
    out = torch.zeros(feature.shape[1], *bins, dtype=feature.dtype)
    if x2 <= x1 or y2 <= y1:
        return out
    for i in range(bins[0]):
        for j in range(bins[1]):
            rows = [min(max(n, 0), feature.shape[2]) for n in (math.floor(y1 + i * (y2 - y1) / bins[0]),
                                                               math.ceil(y1 + (i + 1) * (y2 - y1) / bins[0]))]
            columns = [min(max(n, 0), feature.shape[3]) for n in (math.floor(x1 + j * (x2 - x1) / bins[1]),
                                                                  math.ceil(x1 + (j + 1) * (x2 - x1) / bins[1]))]
            cells = feature[int(roi[0]), :, rows[0]:rows[1], columns[0]:columns[1]]
            if cells.numel():
                out[:, i, j] = cells.flatten(1).amax(1)
    return out


POOLED = [*ROIS, [0, 7.0, 7.0, 2.0, 3.0]]


def test_roi_pool_follows_the_definition(generator):
    feature = torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64)
    found = roi_pool(feature, torch.tensor(POOLED, dtype=torch.float64), (3, 2), 0.5)
    expected = torch.stack([roi_pool_by_loops(feature, roi, (3, 2), 0.5) for roi in POOLED])
    assert torch.equal(found, expected)


def test_roi_pool_backward_is_the_gradient_of_forward(generator):
    feature = torch.randperm(84, generator=generator).double().view(2, 1, 6, 7).requires_grad_()
    rois = torch.tensor(POOLED, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, rois, (2, 3), 0.5), (feature, ))
