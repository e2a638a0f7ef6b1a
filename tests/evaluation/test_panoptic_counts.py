from __future__ import annotations

import math

import numpy as np
import pytest
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


def test_as_panopticapi_only_the_last_crowd_of_a_class_forgives():
    truth = strips((4, 8), (4, 9), (2, 3))
    for crowds, extra in ({8: 0, 9: 0}, 1), ({8: 0, 9: 1}, 1), ({9: 0}, 0):
        counts = count_segments(truth, {3: 1}, strips((10, 7)), {7: 0}, 2, crowds=crowds, compat=True)
        assert counts.extra.tolist() == [extra, 0]
    counts = count_segments(truth, {3: 1}, strips((4, 5), (4, 7), (2, 5)), {7: 0}, 2, crowds={8: 0, 9: 0}, compat=True)
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


def test_counts_of_images_add_up():
    one = count_segments(strips((4, 1)), {1: 0}, strips((4, 2)), {2: 0}, 1)
    both = one + PanopticCounts.zeros(1) + one
    assert both.matched.tolist() == [2] and both.iou.tolist() == [2.0]
