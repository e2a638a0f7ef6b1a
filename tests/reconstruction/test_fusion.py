from __future__ import annotations

import numpy as np
import pytest

from frozenmm.reconstruction.fusion import disagreement


def test_frames_disagree_by_the_noise_of_their_depth(room):
    exact = disagreement(room.depth, room.poses_c2w, room.focal_px)
    factors = np.array([1.0, 1.06, 1.0, 1.06, 1.0])[:, None, None]
    noisy = disagreement(room.depth * factors, room.poses_c2w, room.focal_px)
    far = float(np.quantile(room.depth, 0.9))
    assert exact < 0.02 * far
    assert 0.03 * far < noisy < 0.08 * far
    larger = room.poses_c2w.copy()
    larger[:, :3, 3] *= 3
    assert disagreement(3 * room.depth, larger, room.focal_px) == pytest.approx(3 * exact, rel=0.01)


def test_frames_that_share_nothing_do_not_disagree(room):
    poses = room.poses_c2w[:2].copy()
    poses[1, :3, :3] = poses[1, :3, :3] @ np.diag([-1.0, 1.0, -1.0])  # looks the other way
    assert disagreement(room.depth[:2], poses, room.focal_px) == 0
    assert disagreement(np.zeros_like(room.depth), room.poses_c2w, room.focal_px) == 0
