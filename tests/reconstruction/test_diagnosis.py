"""Every warning on tracks that deserve it, and none where nothing is wrong."""
from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from frozenmm.reconstruction.depth_model import FrozenDepth
from frozenmm.reconstruction.diagnosis import Diagnosis, named, one_plane
from frozenmm.reconstruction.features import Tracks, pixel_unit
from frozenmm.reconstruction.track_solver import TrackSettings, solve_tracks

SIZE = (120, 160)
CENTRE = np.array([79.5, 59.5])
NAMES = ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg', 'e.jpg']


@pytest.fixture(scope='module')
def solution(exact):
    return solve_tracks(exact.tracks, FrozenDepth(exact.room.depth), settings=TrackSettings())


def _warnings(exact, solution, prior_px=None, **changes):
    diagnosis = Diagnosis(exact.room.images, dataclasses.replace(solution, **changes), exact.tracks,
                          pixel_unit(*SIZE), NAMES)
    return diagnosis.warnings(prior_px)


def test_nothing_is_said_where_nothing_is_wrong(exact, solution):
    assert _warnings(exact, solution) == []
    assert _warnings(exact, solution, prior_px=1.1 * solution.state.focal_px) == []


def test_what_is_uncertain_is_said_with_its_range_and_the_remedy(exact, solution):
    focal = solution.state.focal_px
    said, = _warnings(exact, solution, focal_error=0.3)
    assert f'{focal / 1.3:.0f} to {focal * 1.3:.0f} px' in said and 'focal_px' in said
    said, = _warnings(exact, solution, rivals_px=[focal, 1.5 * focal])
    assert f'to {1.5 * focal:.0f} px' in said
    for stated in (1.15 * focal, 2 * focal):
        said, = _warnings(exact, solution, prior_px=stated)
        assert f'the photographs state a focal length of {stated:.0f} px' in said and 'cropped' in said


def test_frames_are_named(exact, solution):
    few = solution.inliers.copy()
    few[3] = 10
    assert any(s.startswith('frame d.jpg: fewer than 30') for s in _warnings(exact, solution, inliers=few))
    said = _warnings(exact, solution, inliers=few, rescued=[3])
    assert any(s.startswith('frame d.jpg: fewer than 30 fitting feature tracks, placed by brightness') for s in said)
    joined = np.array([True, True, True, False, False])
    said, = _warnings(exact, solution, joined=joined)
    assert said.startswith('frames d.jpg, e.jpg: hardly a point in common')
    odd = np.where(np.arange(5) == 1, solution.found // 2, solution.inliers)
    said, = (s for s in _warnings(exact, solution, inliers=odd) if 'b.jpg' in s)
    assert 'most tracked points do not fit' in said
    said, = _warnings(exact, solution, rival_turn_deg=np.array([0, 1, 0, 12.0, 6.0]))
    assert said.startswith('frames d.jpg, e.jpg: another solution') and 'up to 12 degrees' in said
    assert named(list(range(9)), None) == 'frames 0, 1, 2, 3, 4, 5 and 3 more'


def test_bad_fits_and_bad_depth_are_said(exact, solution):
    said, = _warnings(exact, solution, score=0.3)
    assert 'explain tracks that they were not fitted to badly' in said
    said, = _warnings(exact, solution, depth_share=0.12)
    assert "the network's depth fits 12 % of the points within 10 %" in said and 'another network' in said


def _seen(world, turns, shifts, focal=150.0):
    """Tracks of points (P, 3) by cameras with turns (F, 3) and shifts (F, 3)."""
    frames, pixels = len(turns), []
    for turn, shift in zip(turns, shifts):
        camera = (world - shift) @ cv2.Rodrigues(np.array(turn, float))[0].T
        pixels.append(focal * camera[:, :2] / camera[:, 2:] + CENTRE)
    pixels = np.stack(pixels, 1) + np.random.default_rng(1).normal(0, 0.1, (len(world), frames, 2))
    return Tracks(np.tile(np.arange(frames), len(world)), np.repeat(np.arange(len(world)), frames),
                  pixels.reshape(-1, 2))


def test_turning_and_planes_are_told_apart_from_the_tracks():
    random = np.random.default_rng(0)
    world = np.column_stack((random.uniform(-1, 1, (200, 2)), random.uniform(2, 5, 200)))
    wall = world * [1, 1, 0] + [0, 0, 3]
    turns = [(0.02 * i, 0.06 * i, 0.01 * i) for i in range(5)]
    still, moving = np.zeros((5, 3)), np.array([(0.25 * i, 0.1 * i, -0.05 * i * i) for i in range(5)])
    unit = pixel_unit(*SIZE)
    assert one_plane(_seen(world, turns, still), 5, SIZE, unit) == 'turn'
    assert one_plane(_seen(wall, turns, moving), 5, SIZE, unit) == 'plane'
    assert one_plane(_seen(world, turns, moving), 5, SIZE, unit) == ''
