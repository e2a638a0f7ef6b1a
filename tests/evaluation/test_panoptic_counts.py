from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panoptic_definition import counts_by_definition

from frozenmm.evaluation.panoptic_counts import PanopticCounts, count_segments, quality


def strips(*lengths_and_values):
    """A map of one row."""
    return np.concatenate([np.full(length, value) for length, value in lengths_and_values])[None]


def test_a_match_and_a_miss_by_hand():
    # class 0: 10 true pixels, 8 of them found, and 2 beside them on class 1: IoU 8 / 12
    truth, predicted = strips((10, 5), (10, 6)), strips((2, 0), (10, 1), (8, 2))
    counts = count_segments(truth, {5: 0, 6: 1}, predicted, {1: 0, 2: 0}, 2)
    assert counts.iou.tolist() == [pytest.approx(8 / 12), 0]
    assert [counts.matched.tolist(), counts.extra.tolist(), counts.missed.tolist()] == [[1, 0], [1, 0], [0, 1]]
    values = quality(counts)
    # class 0: 0.667 / (1 + 0.5), SQ 0.667, RQ 0.667; class 1: 0
    assert values['PQ'] == pytest.approx(100 * (8 / 12 / 1.5) / 2)
    assert values['SQ'] == pytest.approx(100 * (8 / 12) / 2)
    assert values['RQ'] == pytest.approx(100 * (1 / 1.5) / 2)


def test_an_overlap_of_exactly_half_is_no_match():
    counts = count_segments(strips((4, 1)), {1: 0}, strips((2, 7), (2, 0)), {7: 0}, 1)
    assert counts.matched.tolist() == [0] and counts.missed.tolist() == [1] and counts.extra.tolist() == [1]


def test_void_pixels_do_not_count_in_the_union():
    counts = count_segments(strips((4, 1), (6, 0)), {1: 0}, strips((10, 7)), {7: 0}, 1)
    assert counts.iou.tolist() == [1.0]


@pytest.mark.parametrize(('void', 'extra'), [(5, 1), (6, 0)])
def test_a_guess_mostly_on_void_is_no_error(void, extra):
    truth = strips((void, 0), (10 - void, 3))
    assert count_segments(truth, {3: 1}, strips((10, 7)), {7: 0}, 2).extra.tolist() == [extra, 0]


def test_a_crowd_is_never_missed_nor_matched_and_forgives_its_own_class_only():
    truth = strips((10, 9))
    for kind, extra in (0, [0, 0]), (1, [0, 1]):
        counts = count_segments(truth, {}, strips((10, 7)), {7: kind}, 2, crowds={9: 0})
        assert counts.extra.tolist() == extra
        assert counts.matched.sum() == counts.missed.sum() == 0


def test_two_crowds_of_a_class_both_forgive():
    counts = count_segments(strips((4, 8), (4, 9), (2, 3)), {3: 1}, strips((10, 7)), {7: 0}, 2, crowds={8: 0, 9: 0})
    assert counts.extra.tolist() == [0, 0]


def test_a_listed_segment_without_pixels_is_missed():
    assert count_segments(strips((4, 0)), {1: 0}, strips((4, 0)), {}, 1).missed.tolist() == [1]


def test_classes_absent_from_both_sides_take_no_part():
    counts = count_segments(strips((4, 1)), {1: 0}, strips((4, 2)), {2: 0}, 3)
    assert quality(counts) == {'PQ': 100, 'SQ': 100, 'RQ': 100, 'classes': 1}
    nothing = quality(counts, np.array([False, True, True]))
    assert nothing['classes'] == 0 and math.isnan(nothing['PQ'])


def test_another_size_is_refused():
    with pytest.raises(ValueError, match='prediction is 1x3 pixels, the annotation 1x4; predict at original size'):
        count_segments(strips((4, 1)), {1: 0}, strips((3, 2)), {2: 0}, 1)


maps = st.lists(st.integers(0, 5), min_size=24, max_size=24)


@given(truth=maps, predicted=maps, blocks=st.integers(1, 3),
       kinds=st.lists(st.integers(0, 1), min_size=10, max_size=10), crowd=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_it_equals_the_definition(truth, predicted, blocks, kinds, crowd):
    truth, predicted = (np.kron(np.array(values).reshape(4, 6), np.ones((blocks, 1), int))
                        for values in (truth, predicted))
    # agreeing halves make matches likely
    predicted[:, :4] = truth[:, :4]
    classes = {key: kinds[key] for key in np.unique(truth).tolist() if key not in (0, crowd)}
    crowds = {crowd: kinds[crowd]} if crowd in truth and crowd else {}
    guesses = {key: kinds[key] if key % 2 else kinds[key + 4] for key in np.unique(predicted).tolist() if key}
    counts = count_segments(truth, classes, predicted, guesses, 2, crowds=crowds)
    wanted = counts_by_definition(truth, classes, predicted, guesses, 2, crowds)
    np.testing.assert_allclose([counts.iou, counts.matched, counts.extra, counts.missed], wanted)


def random_scene(rng, classes, things, height=48, width=64):
    """Two panoptic maps that agree in part: (category, instance) of every pixel; category -1 is void."""
    truth = np.full((height, width, 2), [-1, 0])
    for number in range(int(rng.integers(4, 12))):
        kind = int(rng.integers(len(classes)))
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        truth[y:y + rng.integers(8, 32), x:x + rng.integers(8, 40)] = classes[kind], number if things[kind] else 0
    shifted = np.roll(truth, rng.integers(-3, 4, 2), (0, 1))
    swapped = rng.random() < 0.5
    for kind, number in np.unique(shifted.reshape(-1, 2), axis=0).tolist():
        if kind >= 0 and rng.random() < 0.3:
            where = (shifted == [kind, number]).all(-1)
            shifted[where, 0] = -1 if swapped else classes[int(rng.integers(len(classes)))]
    is_thing = np.isin(shifted[..., 0], [name for name, thing in zip(classes, things) if thing])
    shifted[..., 1] *= is_thing  # stuff has no instances
    return truth, shifted


@pytest.mark.parametrize('seed', range(5))
def test_it_equals_torchmetrics(seed):
    """Over five images with things, stuff and void; that implementation knows no crowds."""
    detection = pytest.importorskip('torchmetrics.detection')
    rng = np.random.default_rng(seed)
    classes, things = [0, 1, 2, 3, 4], [True, True, False, True, False]
    other = detection.PanopticQuality(
        things={name for name, thing in zip(classes, things) if thing},
        stuffs={name for name, thing in zip(classes, things) if not thing}, allow_unknown_preds_category=True,
        return_sq_and_rq=True, return_per_class=True)
    total = PanopticCounts.zeros(len(classes))
    for _ in range(5):
        maps = random_scene(rng, classes, things)
        truth, predicted = (pair[..., 0] + 1 + 1000 * pair[..., 1] for pair in maps)
        segments = [{int(value): int(value) % 1000 - 1 for value in np.unique(one) if value % 1000}
                    for one in (truth, predicted)]
        total += count_segments(truth, segments[0], predicted, segments[1], len(classes))
        # category -1 is what it takes for void; the order of its columns is that of its own list of categories
        other.update(*(torch.from_numpy(pair[None].copy()) for pair in maps[::-1]))
    order = [0, 1, 3, 2, 4]
    wanted = other.compute().squeeze(0).numpy()[:, :]
    ours = [quality(total, np.arange(len(classes)) == name) for name in order]
    assert total.matched.sum() > 5 and total.extra.sum() and total.missed.sum()
    for row, found in zip(wanted, ours):
        if found['classes']:
            np.testing.assert_allclose(100 * row, [found['PQ'], found['SQ'], found['RQ']], atol=1e-4)


def test_counts_of_images_add_up():
    one = count_segments(strips((4, 1)), {1: 0}, strips((4, 2)), {2: 0}, 1)
    both = one + PanopticCounts.zeros(1) + one
    assert both.matched.tolist() == [2] and both.iou.tolist() == [2.0]
