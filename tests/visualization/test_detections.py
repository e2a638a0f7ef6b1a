from __future__ import annotations

import numpy as np

from frozenmm.visualization.detections import Boxes, beside_truth, draw_boxes, spread_palette, surest

CLASSES = ('cat', 'dog', 'space shuttle')
PALETTE = ((255, 0, 0), (0, 0, 255), (0, 255, 0))
GREY = np.full((40, 60, 3), 128, np.uint8)


def _boxes(*rows, scores=None):
    corners = np.array([row[:4] for row in rows], float).reshape(-1, 4)
    return Boxes(corners, np.array([row[4] for row in rows], int), scores)


def _has(picture, colour):
    return (picture == np.array(colour)).all(-1)


def test_a_box_is_drawn_in_the_colour_of_its_class_at_the_scaled_place():
    picture = draw_boxes(GREY, _boxes((10, 20, 30, 35, 0)), CLASSES, PALETTE, width=240)
    assert picture.shape == (160, 240, 3)
    rows, columns = np.nonzero(_has(picture, PALETTE[0]))
    assert columns.min() == 40 and abs(columns.max() - 120) <= 1 and abs(rows.max() - 140) <= 1
    assert not _has(picture, PALETTE[1]).any()


def test_labels_stay_inside_the_picture():
    corner = draw_boxes(GREY, _boxes((50, 0, 60, 5, 2)), CLASSES, PALETTE, width=240)
    rows, columns = np.nonzero(_has(corner, PALETTE[2]))
    assert columns.max() - columns.min() > 60 and rows.min() == 0  # the label is wider than the box and moved left


def test_a_degenerate_box_and_none_at_all_are_drawn_without_complaint():
    assert draw_boxes(GREY, _boxes((30, 20, 10, 10, 0)), CLASSES, PALETTE).shape == (320, 480, 3)
    assert np.ptp(draw_boxes(GREY, _boxes(), CLASSES, PALETTE)) == 0


def test_every_prediction_gets_a_column_and_the_legend_names_what_occurs():
    truth, found = _boxes((5, 5, 30, 30, 0)), _boxes((8, 8, 30, 30, 1), scores=np.array([0.9]))
    one = beside_truth(GREY, truth, {'first': found}, CLASSES, PALETTE, width=120)
    two = beside_truth(GREY, truth, {'first': found, 'second': _boxes()}, CLASSES, PALETTE, width=120)
    assert two.shape[1] - one.shape[1] == 128 and one.shape[0] == two.shape[0]
    legend = two[-40:]
    assert _has(legend, PALETTE[0]).any() and _has(legend, PALETTE[1]).any() and not _has(legend, PALETTE[2]).any()


def test_a_long_legend_breaks_into_rows():
    names = [f'quite a long name {i}' for i in range(12)]
    truth = _boxes(*((i, i, i + 9, i + 9, i) for i in range(12)))
    few = beside_truth(GREY, _boxes((0, 0, 9, 9, 0)), {'p': _boxes()}, names, spread_palette(12), width=120)
    many = beside_truth(GREY, truth, {'p': _boxes()}, names, spread_palette(12), width=120)
    assert many.shape[0] > few.shape[0] + 3 * 20


def test_spread_colours_differ():
    colours = spread_palette(20)
    assert len(set(colours)) == 20 and all(0 <= value <= 255 for colour in colours for value in colour)


def test_the_surest_boxes_are_one_per_object():
    boxes = Boxes(np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [80, 0, 90, 9], [82, 2, 86, 6],
                            [83, 3, 87, 7]], float),
                  np.array([0, 1, 2, 3, 3, 4]), np.array([0.2, 0.9, 0.3, 0.1, 0.09, 0.08]))
    assert surest(boxes, 2).scores.tolist() == [0.9, 0.3]  # the first lies on the second
    # a part of an object is no second one of its class, but may be one of another
    assert surest(boxes, 9).scores.tolist() == [0.9, 0.3, 0.1, 0.08] and len(surest(boxes, 0).xyxy) == 0
