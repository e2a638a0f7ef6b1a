from __future__ import annotations

import numpy as np
import pytest

from frozenmm.visualization.depth import depth_colours, draw_depth


def test_near_is_warm_whatever_the_kind():
    values = np.linspace(1, 9, 90).reshape(9, 10)
    depth, disparity = (depth_colours(values, nearer_is_larger=flag).astype(int) for flag in (False, True))
    assert depth[0, 0, 0] > depth[0, 0, 2] and depth[-1, -1, 0] < depth[-1, -1, 2] + depth[-1, -1, 0] + 1
    assert np.array_equal(depth, disparity[::-1, ::-1])


def test_unknown_and_constant_values_are_drawn():
    values = np.full((4, 4), 2.0)
    values[0, 0] = np.nan
    drawn = depth_colours(values, nearer_is_larger=False)
    assert drawn[0, 0].tolist() == [0, 0, 0] and len(np.unique(drawn[1:].reshape(-1, 3), axis=0)) == 1


def test_picture_and_depth_stand_side_by_side():
    sheet = draw_depth(np.zeros((10, 20, 3), np.uint8), np.ones((10, 20)), nearer_is_larger=True, width=100)
    assert sheet.shape == (50 + 16, 200 + 24, 3)
    assert not sheet[8:58, 8:108].any()
    with pytest.raises(ValueError, match='both must agree'):
        draw_depth(np.zeros((10, 20, 3), np.uint8), np.ones((10, 21)), nearer_is_larger=True)
