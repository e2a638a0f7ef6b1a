"""The stand-ins against definitions written down independently here: loops over boxes, bins and samples."""
from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms, roi_align

from frozenmm.compat import mmcv_ext

pytestmark = pytest.mark.skipif(mmcv_ext.compiled_extension() is not None, reason='mmcv has compiled operators')


def overlap(one, other, offset):
    width = min(one[2], other[2]) - max(one[0], other[0]) + offset
    height = min(one[3], other[3]) - max(one[1], other[1]) + offset
    inter = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (one, other)]
    return inter / (sum(areas) - inter) if sum(areas) > inter else 0.0


def greedy(boxes, scores, threshold, offset):
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])  # stable: ties keep their order
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if not overlap(boxes[best], boxes[i], offset) > threshold]
    return kept


@st.composite
def scored_boxes(draw):
    """Boxes on a grid of quarters, where sums and products are exact in float32 (no doubt at the threshold)."""
    number = st.integers(0, 40).map(lambda n: n / 4)
    boxes = draw(st.lists(st.tuples(number, number, number, number), max_size=12))
    boxes = [(x, y, x + w + 0.25, y + h + 0.25) for x, y, w, h in boxes]
    scores = draw(st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]), min_size=len(boxes), max_size=len(boxes)))
    return boxes, scores


@settings(max_examples=150, deadline=None)
@given(scored_boxes(), st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.sampled_from([0, 1]))
def test_nms_keeps_what_the_greedy_definition_keeps(drawn, threshold, offset):
    boxes, scores = drawn
    kept = mmcv_ext.nms(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), threshold, offset)
    expected = greedy(boxes, scores, threshold, offset)
    assert kept.dtype == torch.int64
    # float32 division may fall on either side of a threshold that the exact ratio hits
    ratios = [overlap(a, b, offset) for a in boxes for b in boxes]
    if not any(abs(ratio - threshold) < 1e-6 for ratio in ratios):
        assert kept.tolist() == expected


def test_mmcv_nms_calls_the_stand_in():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]])
    kept, index = nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5)
    assert index.tolist() == [1, 2]
    torch.testing.assert_close(kept[:, :4], boxes[[1, 2]])


def test_nms_of_nothing_is_nothing():
    assert mmcv_ext.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []


def test_batched_nms_keeps_classes_apart():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    _, index = batched_nms(boxes, torch.tensor([0.5, 0.9]), torch.tensor([0, 1]), dict(type='nms', iou_threshold=0.5))
    assert sorted(index.tolist()) == [0, 1]


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


def roi_align_by_loops(feature, roi, bins, scale, ratio, aligned):
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (value * scale - shift for value in roi[1:])
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    counts = [ratio or max(1, math.ceil(length / n)) for length, n in ((height, bins[0]), (width, bins[1]))]
    out = torch.zeros(feature.shape[1], *bins, dtype=feature.dtype)
    for channel in range(feature.shape[1]):
        for i in range(bins[0]):
            for j in range(bins[1]):
                total = 0.0
                for a in range(counts[0]):
                    for b in range(counts[1]):
                        y = y1 + height / bins[0] * (i + (a + 0.5) / counts[0])
                        x = x1 + width / bins[1] * (j + (b + 0.5) / counts[1])
                        total += sample(feature[int(roi[0]), channel], y, x)
                out[channel, i, j] = total / (counts[0] * counts[1])
    return out


ROIS = [[0, 2.3, 1.1, 13.7, 9.2], [1, -6.0, -4.0, 9.0, 8.0], [1, 10.0, 10.0, 40.0, 36.0], [0, 5.0, 5.0, 5.4, 5.2],
        [0, 0.0, 0.0, 15.9, 11.9]]


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_follows_the_definition(aligned, ratio, generator):
    feature = torch.rand(2, 3, 9, 11, generator=generator, dtype=torch.float64)
    ours = roi_align(feature, torch.tensor(ROIS, dtype=torch.float64), (3, 2), 0.5, ratio, 'avg', aligned)
    expected = torch.stack([roi_align_by_loops(feature, roi, (3, 2), 0.5, ratio, aligned) for roi in ROIS])
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_backward_is_the_gradient_of_forward(aligned, generator):
    feature = torch.rand(2, 2, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(ROIS[:4], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, (2, 3), 0.5, 0, 'avg', aligned), (feature, ))


def test_roi_align_without_regions_is_empty():
    out = roi_align(torch.rand(1, 2, 5, 5), torch.zeros(0, 5), (2, 2), 1.0, 0, 'avg', True)
    assert out.shape == (0, 2, 2, 2)


def test_max_pooling_is_refused():
    with pytest.raises(NotImplementedError, match='pool_mode=\'max\' needs compiled mmcv operators'):
        roi_align(torch.rand(1, 1, 5, 5), torch.tensor([[0.0, 0, 0, 4, 4]]), (2, 2), 1.0, 0, 'max', True)


def test_an_operator_without_stand_in_names_itself_when_called():
    operator = mmcv_ext.StandIn('mmcv._ext').deform_conv_forward
    with pytest.raises(NotImplementedError, match='the operator \'deform_conv_forward\' exists only in compiled mmcv'):
        operator(1, 2)


def test_python_attributes_are_not_answered():
    with pytest.raises(AttributeError):
        _ = mmcv_ext.StandIn('mmcv._ext').__wrapped__


def test_the_environment_report_of_mmcv_works_and_says_what_stands_in():
    from mmcv.utils import collect_env
    report = collect_env()
    assert 'no compiled operators' in report['MMCV Compiler'] and report['MMCV CUDA Compiler'] == 'not available'


def test_it_is_installed_once():
    assert sys.modules['mmcv._ext'].__spec__.loader is None
    assert mmcv_ext.install() is False


def test_mmcv_still_knows_that_it_has_no_compiled_operators():
    from mmcv.utils import ext_loader
    assert ext_loader.check_ops_exist() is False


def test_a_real_extension_is_left_alone(tmp_path):
    """A package `mmcv` with a file like a compiled module: nothing is put in its place."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    from importlib.machinery import EXTENSION_SUFFIXES
    (package / f'_ext{EXTENSION_SUFFIXES[0]}').touch()
    code = ('import sys; sys.path.insert(0, sys.argv[1])\nimport frozenmm\nfrom frozenmm.compat import mmcv_ext\n'
            'assert mmcv_ext.compiled_extension().name.startswith("_ext")\nassert "mmcv._ext" not in sys.modules')
    subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=True)


@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss_and_its_gradient_equal_the_definition(weighted, generator):
    logits = (4 * torch.randn(7, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 3, 0, 2])  # 3 is background
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64) if weighted else torch.empty(0)
    positive = torch.nn.functional.one_hot(target, 4)[:, :3].bool()
    p = logits.sigmoid()
    expected = torch.where(positive, -0.25 * (1 - p)**2 * p.log(), -0.75 * p**2 * (1 - p).log())
    if weighted:
        expected = expected * torch.tensor([0.5, 2.0, 3.0, 1.0], dtype=torch.float64)[target][:, None]
    wanted, = torch.autograd.grad(expected.sum(), logits)
    loss, grad = torch.empty(7, 3, dtype=torch.float64), torch.empty(7, 3, dtype=torch.float64)
    mmcv_ext.sigmoid_focal_loss_forward(logits.detach(), target, weight, loss, 2.0, 0.25)
    mmcv_ext.sigmoid_focal_loss_backward(logits.detach(), target, weight, grad, 2.0, 0.25)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(grad, wanted)
