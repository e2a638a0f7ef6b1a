"""Suppression and overlaps against loops over boxes, at the sizes of mmcv's own tests and through its functions."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, bbox_overlaps, nms, nms_match, soft_nms
from torch import Tensor

from frozenmm.compat import mmcv_ext
from frozenmm.ops import boxes as ours

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
    kept = ours.nms(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), threshold, offset)
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
    assert ours.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []


def test_batched_nms_keeps_classes_apart():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    _, index = batched_nms(boxes, torch.tensor([0.5, 0.9]), torch.tensor([0, 1]), dict(type='nms', iou_threshold=0.5))
    assert sorted(index.tolist()) == [0, 1]


IMPLEMENTATIONS = {'definition': ours._nms_definition, 'dispatched': torch.ops.frozenmm.nms_sorted}


def random_boxes(count: int, seed: int = 0, extent: float = 300.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * extent
    size = torch.rand(count, 2, generator=generator) * 60 + 5
    return torch.cat([corner, corner + size], 1), torch.rand(count, generator=generator)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('count', [1, 15, 16, 17, 511, 512, 513, 1300])
def test_a_sweep_keeps_what_pairwise_comparison_keeps(implementation, dtype, count):
    boxes, _ = random_boxes(count, extent=100.0)
    boxes = boxes.to(dtype)
    matrix, kept = ours.overlaps(boxes[:, None], boxes[None]).tolist(), []
    limit = torch.tensor(0.4, dtype=dtype).item()
    for j in range(count):
        if not any(matrix[i][j] > limit for i in kept):
            kept.append(j)
    assert IMPLEMENTATIONS[implementation](boxes, 0.4, 0).nonzero().flatten().tolist() == kept


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_boxes_that_are_no_boxes_beat_nothing(implementation):
    """NaN, points (0 / 0) and inverted corners: what comparisons with NaN give in mmcv's loop."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [math.nan, 0, 10, 10], [3, 3, 3, 3], [3, 3, 3, 3], [9, 9, 1, 1],
                          [1, 0, 10, 10]])
    assert IMPLEMENTATIONS[implementation](boxes, 0.5, 0).tolist() == [True, True, True, True, True, False]


def test_the_sweep_is_a_whole_operator():
    torch.library.opcheck(torch.ops.frozenmm.nms_sorted.default, (random_boxes(20)[0], 0.5, 0))


def test_mmcvs_own_example():
    boxes = np.array([[6.0, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]], dtype=np.float32)
    scores = np.array([0.6, 0.9, 0.7, 0.2], dtype=np.float32)
    kept, index = nms(boxes, scores, iou_threshold=0.3, offset=0)
    assert index.tolist() == [1, 0, 3]
    np.testing.assert_allclose(kept, np.c_[boxes, scores][[1, 0, 3]])


def test_half_precision_is_computed_in_float32():
    boxes, scores = random_boxes(200)
    found = ours.nms(boxes.half(), scores, 0.5)
    assert torch.equal(found, ours.nms(boxes.half().float(), scores, 0.5))


def soft(boxes, scores, threshold, sigma, least, method, offset):
    """Soft-NMS with lists: indices and scores in the order of taking."""
    left, scores, taken = list(range(len(boxes))), list(scores), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        taken.append((best, scores[best]))
        for i in left:
            ratio = overlap(boxes[best], boxes[i], offset)
            scores[i] *= (math.exp(-ratio**2 / sigma) if method == 'gaussian' else 1 if ratio < threshold else
                          1 - ratio if method == 'linear' else 0)
        left = [i for i in left if scores[i] >= least]
    return taken


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize(('count', 'offset'), [(4, 0), (30, 1), (200, 0)])
def test_soft_nms_gives_the_boxes_and_scores_of_the_definition(method, count, offset):
    boxes, scores = random_boxes(count, extent=80.0)
    dets, index = soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=0.05, method=method, offset=offset)
    expected = soft(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.05, method, offset)
    assert index.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets, torch.cat([boxes[index], torch.tensor([[s] for _, s in expected])], 1),
                               atol=1e-5, rtol=1e-5)


def test_soft_nms_of_nothing_is_nothing():
    dets, index = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and index.tolist() == []


@pytest.mark.parametrize('threshold', [0.2, 0.5])
def test_groups_hold_a_box_and_what_it_suppresses(threshold):
    boxes, scores = random_boxes(60, extent=80.0)
    found = [group.tolist() for group in nms_match(torch.cat([boxes, scores[:, None]], 1), threshold)]
    left, expected = sorted(range(60), key=lambda i: -scores[i].item()), []
    while left:
        group = [left[0]] + [i for i in left[1:]
                             if overlap(boxes[left[0]].tolist(), boxes[i].tolist(), 0) >= threshold]
        expected.append(group)
        left = [i for i in left if i not in group]
    assert found == expected and sorted(sum(found, [])) == list(range(60))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
def test_overlaps_of_all_and_of_pairs_equal_the_definition(mode, offset):
    first, second = (random_boxes(7, seed, 50.0)[0].double() for seed in (1, 2))

    def ratio(one, other):
        inter = max(0.0, min(one[2], other[2]) - max(one[0], other[0]) + offset) * \
            max(0.0, min(one[3], other[3]) - max(one[1], other[1]) + offset)
        areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (one, other)]
        return inter / (areas[0] if mode == 'iof' else sum(areas) - inter)
    expected = torch.tensor([[ratio(a, b) for b in second.tolist()] for a in first.tolist()], dtype=torch.float64)
    torch.testing.assert_close(bbox_overlaps(first, second, mode=mode, offset=offset), expected)
    pairs = bbox_overlaps(first, second, mode=mode, offset=offset, aligned=True)
    torch.testing.assert_close(pairs, expected.diagonal())
