from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from frozenmm.evaluation.depth import align_depth, depth_errors
from frozenmm.evaluation.trajectory import trajectory_errors
from frozenmm.reconstruction.align import Alignment, AlignSettings, align
from frozenmm.reconstruction.known_camera import KnownCamera


def _abs_rel(depth, truth):
    depth, truth = torch.from_numpy(depth), torch.from_numpy(truth)
    return depth_errors(align_depth(depth, truth), truth)['abs_rel']


@pytest.fixture(scope='module')
def aligned(room, rooms) -> Alignment:
    return align(room.images, rooms.distort_depth(room.depth))


def test_a_generated_room_is_recovered(room, aligned, rooms):
    centres = torch.from_numpy(room.poses_c2w[:, :3, 3])
    path = float(centres.diff(dim=0).norm(dim=1).sum())
    assert trajectory_errors(torch.from_numpy(aligned.poses_c2w[:, :3, 3]), centres)['ate_rmse'] < 0.01 * path
    assert abs(aligned.focal_px / room.focal_px - 1) < 0.02
    assert _abs_rel(aligned.depth, room.depth) < 0.5 * _abs_rel(rooms.distort_depth(room.depth), room.depth)
    assert aligned.warnings == []
    np.testing.assert_allclose(aligned.poses_c2w[0], np.eye(4), atol=1e-9)


def test_the_same_seed_gives_the_same_result(room, aligned, rooms):
    again = align(room.images, rooms.distort_depth(room.depth))
    assert np.array_equal(again.depth, aligned.depth) and again.focal_px == aligned.focal_px


def test_disparity_is_aligned_as_well(room):
    disparity = 1 / room.depth + 0.05
    result = align(room.images, disparity / disparity.max(), kind='affine_disparity')
    assert _abs_rel(result.depth, room.depth) < 0.03


def test_a_given_focal_length_is_kept(room, rooms):
    result = align(room.images, rooms.distort_depth(room.depth), known=KnownCamera(focal_px=room.focal_px))
    assert result.focal_px == pytest.approx(room.focal_px)


def test_a_black_frame_is_named_and_the_rest_is_aligned(room, rooms):
    images = room.images.copy()
    images[2] = 0
    result = align(images, rooms.distort_depth(room.depth))
    assert any('frame 2: of one colour' in sentence for sentence in result.warnings)
    assert np.isfinite(result.depth).all()
    kept = [0, 1, 3, 4]
    centres = torch.from_numpy(room.poses_c2w[kept, :3, 3])
    assert trajectory_errors(torch.from_numpy(result.poses_c2w[kept, :3, 3]), centres)['ate_rmse'] < 0.03


def test_a_still_camera_is_named(room, rooms):
    images = np.repeat(room.images[:1], 3, 0)
    result = align(images, np.repeat(rooms.distort_depth(room.depth[:1]), 3, 0))
    assert any('the camera stands still' in sentence for sentence in result.warnings)
    assert np.isfinite(result.depth).all()


def test_a_pure_rotation_is_named(rooms):
    clip = rooms.render_room(rooms.RoomSettings(frames=4, size=(120, 160), path_m=0.0, samples=1, seed=3))
    result = align(clip.images, rooms.distort_depth(clip.depth))
    assert any('the camera only turns' in sentence for sentence in result.warnings)


@pytest.fixture(scope='module')
def passing(room) -> tuple[np.ndarray, np.ndarray]:
    """The room with a textured square that crosses a quarter of every frame, and where it is."""
    images, where = room.images.copy(), np.zeros(room.images.shape[:3], dtype=bool)
    coarse = np.random.default_rng(0).integers(0, 255, (15, 15, 3), dtype=np.uint8)
    square = cv2.resize(coarse, (60, 60), interpolation=cv2.INTER_CUBIC)
    for index, image in enumerate(images):
        row, column = 20 + 6 * index, 5 + 12 * index
        image[row:row + 60, column:column + 60] = square
        where[index, row - 2:row + 62, column - 2:column + 62] = True
    return images, where


def _ate(result, room) -> float:
    centres = torch.from_numpy(room.poses_c2w[:, :3, 3])
    return trajectory_errors(torch.from_numpy(result.poses_c2w[:, :3, 3]), centres)['ate_rmse']


def test_a_moving_thing_is_named(room, passing, rooms):
    result = align(passing[0], rooms.distort_depth(room.depth))
    assert any('fit one still scene' in sentence and '--mask' in sentence for sentence in result.warnings)
    assert np.isfinite(result.depth).all() and np.isfinite(result.poses_c2w).all()


def test_a_masked_moving_thing_does_no_harm(room, passing, rooms):
    result = align(passing[0], rooms.distort_depth(room.depth), invalid=passing[1])
    assert result.warnings == [] and _ate(result, room) < 0.02


def test_a_clip_without_features_is_aligned_by_brightness(room, rooms):
    blurred = np.stack([cv2.GaussianBlur(x, (0, 0), 6) for x in room.images[:3]])
    frozen = rooms.distort_depth(room.depth[:3])
    result = align(blurred, frozen)
    assert 'aligned by brightness (mode direct) instead' in result.warnings[0]
    assert _abs_rel(result.depth, room.depth[:3]) < _abs_rel(frozen, room.depth[:3])


def test_mode_compat_goes_through_the_same_interface(room, rooms):
    seen = []
    result = align(room.images, rooms.distort_depth(room.depth),
                   report=lambda step, done, total: seen.append((step, done)),
                   settings=AlignSettings(mode='compat', compat_iterations=20))
    assert seen[-1] == ('official loop', 60)
    assert result.depth.shape == room.depth.shape and (result.depth > 0).all()
    assert 0.3 < result.focal_px / room.focal_px < 3
    assert 0 < _ate(result, room) < 0.6


def test_mode_compat_leaves_masked_pixels_out(room, passing, rooms):
    settings = AlignSettings(mode='compat', compat_iterations=5)
    with_mask, without = (align(passing[0], rooms.distort_depth(room.depth), settings=settings, invalid=invalid)
                          for invalid in (passing[1], None))
    assert np.isfinite(with_mask.depth).all() and not np.array_equal(with_mask.depth, without.depth)


def test_unrelated_images_are_refused(room):
    noise = np.random.default_rng(0).integers(0, 255, room.images[:2].shape, dtype=np.uint8)
    with pytest.raises(ValueError, match='no two frames share enough feature tracks'):
        align(np.stack((room.images[0], noise[1])), room.depth[:2])


def test_a_textureless_wall_is_refused():
    with pytest.raises(ValueError, match='no two frames share enough feature tracks'):
        align(np.full((3, 60, 80, 3), 128, np.uint8), np.ones((3, 60, 80)))


def test_bad_input_is_explained(room, rooms):
    depth = rooms.distort_depth(room.depth)
    with pytest.raises(ValueError, match='at least 2 frames, got 1'):
        align(room.images[:1], depth[:1])
    with pytest.raises(ValueError, match='depth must have the shape of the images'):
        align(room.images, depth[:, :60])
    with pytest.raises(ValueError, match='images must be uint8'):
        align(room.images.astype(np.float32), depth)
    with pytest.raises(ValueError, match="mode 'track'.*tracks"):
        align(room.images, depth, settings=AlignSettings(mode='track'))
    with pytest.raises(ValueError, match='focal_px must be positive'):
        align(room.images, depth, known=KnownCamera(focal_px=0.0))


def test_a_stored_alignment_comes_back(aligned):
    again = Alignment.from_arrays(aligned.to_arrays())
    assert again.focal_px == aligned.focal_px and again.warnings == aligned.warnings
