from __future__ import annotations

import numpy as np
import pytest

from frozenmm.visualization.segments import Region, draw_segments

CLASSES = ['cat', 'a class with a very long name that must not be cut']


def halves(height=60, width=80):
    ids = np.ones((height, width), int)
    ids[:, width // 2:] = 2
    return np.full((height, width, 3), 100, np.uint8), ids


def test_regions_are_tinted_with_their_class_colour_and_the_rest_is_left():
    image, ids = halves()
    drawn = draw_segments(image, ids, [Region(1, 0)], CLASSES, palette=[(255, 0, 0), (0, 255, 0)], width=80,
                          legend=False)
    assert drawn.shape == (60, 80, 3)
    assert drawn[2, 2].tolist() == [178, 50, 50]  # half of 100 and half of red
    assert drawn[2, 60].tolist() == [100, 100, 100]
    assert (drawn[:, 40] == 255).any()  # a white line at the border


def test_segments_of_one_class_can_be_told_apart():
    image, ids = halves()
    drawn = draw_segments(image, ids, [Region(1, 0), Region(2, 0)], CLASSES, palette=[(200, 0, 0)] * 2, width=80,
                          legend=False)
    assert drawn[2, 2].tolist() != drawn[2, 70].tolist()


def test_the_legend_makes_room_for_long_names():
    image, ids = halves()
    plain = draw_segments(image, ids, [Region(1, 1, 0.5)], CLASSES, width=80, legend=False)
    drawn = draw_segments(image, ids, [Region(1, 1, 0.5)], CLASSES, width=80)
    assert drawn.shape[0] > plain.shape[0] and drawn.shape[1] > 200
    empty = draw_segments(image, ids, [], CLASSES, width=80)
    assert empty.shape[0] > plain.shape[0]


@pytest.mark.parametrize('shape', [(1, 50), (500, 1), (1, 1)])
def test_thin_pictures_are_drawn(shape):
    drawn = draw_segments(np.zeros((*shape, 3), np.uint8), np.ones(shape, int), [Region(1, 0, 0.9)], CLASSES, width=200)
    assert drawn.dtype == np.uint8 and drawn.shape[0] <= 500


def test_another_size_is_refused():
    image, ids = halves()
    with pytest.raises(ValueError, match='both must agree'):
        draw_segments(image, ids[:10], [], CLASSES)
