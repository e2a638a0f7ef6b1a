"""First guess of cameras and points from the tracks alone: two frames by their essential matrix, the others by PnP.

This start owes nothing to the frozen depth, so it holds where that is bad; it needs parallax, which the other start
(`track_start`) does not. Focal lengths to begin with come from the fundamental matrices of many pairs.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.reconstruction.bundle import Bundle, BundleState, shared_observations
from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth
from frozenmm.reconstruction.features import Tracks, pixel_unit
from frozenmm.reconstruction.lens import straighten
from frozenmm.reconstruction.track_start import (
    MIN_KNOWN,
    GrowingCameras,
    nearest_joined,
    scaled_to,
    triangulate_rays,
)

MIN_SHARED = 25
"""Points that two frames share, fewer of which give no essential matrix."""
FIRST_PAIRS = 8
"""Pairs of frames that are tried as the first one."""
PAIR_PX, POINT_PX = 1.5, 4.0
"""Tolerances of the essential matrix and of a point's observations, at a diagonal of 400 pixels."""
ENOUGH_DEG = 1.0
"""Least angle between two rays to a point that is triangulated."""
GOOD_DEG = 6.0
"""Angle between the rays of a first pair above which more does not make it better."""
FOCAL_GRID = np.geomspace(0.45, 4.5, 47)
"""Focal lengths that are tried against fundamental matrices, over the mean side."""

MakeBundle = Callable[[Tracks, np.ndarray], Bundle]
"""Gives the joint solver of the tracks of a window of frames (W, ), whose depth says nothing."""


def focal_votes(tracks: Tracks, frames: int, size: tuple[int, int]) -> list[float]:
    """Focal lengths over the mean side under which pairs of frames have an essential matrix, the best one first.

    The two singular values of an essential matrix are alike (Mendonca and Cipolla, A simple technique for
    self-calibration, CVPR 1999). A pair's vote counts by its points and its movement.

    Args:
        tracks: of the clip, undistorted.
        frames: number of frames.
        size: (height, width).
    """
    cv2 = require('cv2', 'the start of the track solver')
    unit, side = pixel_unit(*size), sum(size) / 2
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    matrices, weights = [], []
    for first, second in strong_pairs(tracks, frames, unit)[:4 * FIRST_PAIRS]:
        ours, theirs = tracks.pixels[first], tracks.pixels[second]
        found = cv2.findFundamentalMat((ours - centre) / side, (theirs - centre) / side, cv2.FM_LMEDS)[0]
        if found is not None and found.shape == (3, 3):
            matrices.append(found)
            weights.append(np.sqrt(len(first)))
    if not matrices:
        return []
    scale = np.stack((FOCAL_GRID, FOCAL_GRID, np.ones_like(FOCAL_GRID)), 1)
    values = np.linalg.svd(scale[None, :, :, None] * np.stack(matrices)[:, None] * scale[None, :, None],
                           compute_uv=False)
    off = 1 - values[..., 1] / np.maximum(values[..., 0], 1e-12)
    cost = (np.array(weights)[:, None] * np.minimum(off, 0.5)).sum(0) / sum(weights)
    valleys = [i for i in range(1, len(cost) - 1) if cost[i] < cost[i - 1] and cost[i] <= cost[i + 1]]
    return [float(FOCAL_GRID[i]) for i in sorted(valleys, key=lambda i: cost[i])]


def strong_pairs(tracks: Tracks, frames: int, unit: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Observations of the points that two frames share, the pairs with many of them and much movement first."""
    found = []
    for first, second in shared_observations(tracks, frames).values():
        if len(first) >= MIN_SHARED:
            moved = float(np.median(np.linalg.norm(tracks.pixels[first] - tracks.pixels[second], axis=1))) / unit
            found.append((min(moved, 40.0) * np.sqrt(len(first)), first, second))
    return [(first, second) for _, first, second in sorted(found, key=lambda pair: -pair[0])]


class TwoViewGrowth(GrowingCameras):
    """Cameras and points that grow from two frames.

    Args:
        tracks: ordered by point.
        state: focal length and lens to begin with; its poses and points are not read.
        size: (height, width).
        frames: number of frames.
        bundle: makes joint solvers, by which cameras and points are set right on the way.
    """

    tolerance_px, iterations, confidence, share = 5.0, 500, 0.9999, 0.25

    def __init__(self, tracks: Tracks, state: BundleState, size: tuple[int, int], frames: int,
                 bundle: MakeBundle) -> None:
        super().__init__(tracks, frames, pixel_unit(*size))
        self.state, self.bundle, self.centre = state, bundle, np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
        self.points, self._polished = np.full((tracks.points, 3), np.nan), 2
        self._see()

    def _see(self) -> None:
        """Places on the plane at depth 1 of all observations."""
        self.focal_px = self.state.focal_px
        self.plane = straighten((self.tracks.pixels - self.centre) / self.focal_px, self.state.lens)

    def run(self) -> bool:
        """Grow until no frame sees enough known points; whether there was a pair to begin with."""
        if not self._begin():
            return False
        self.grow(self._added)
        self._polish(8)
        return True

    def run_from(self, poses_w2c: np.ndarray, placed: np.ndarray) -> bool:
        """Grow from poses (F, 4, 4) of frames that are `placed` (F, ) bool, which stay; whether that was enough."""
        self.poses[placed] = poses_w2c[placed]
        self.inliers[placed] = MIN_KNOWN
        self._triangulate()
        self.grow(lambda frame, inside: self._triangulate(frame))
        return bool((~np.isnan(self.points[:, 0])).sum() >= MIN_KNOWN)

    def _added(self, frame: int, inside: np.ndarray) -> None:
        """New points, and joint steps of all on the way."""
        self._triangulate(frame)
        if self.joined.sum() >= 1.6 * self._polished:
            self._polish(6)
            self._polished = int(self.joined.sum())

    def _begin(self) -> bool:
        """Place the pair of frames whose essential matrix has most points under good angles."""
        cv2 = require('cv2', 'the start of the track solver')
        best, threshold = 0.0, PAIR_PX * self.unit / self.focal_px
        for first, second in strong_pairs(self.tracks, self.frames, self.unit)[:FIRST_PAIRS]:
            ours, theirs = self.plane[first], self.plane[second]
            matrix, inside = cv2.findEssentialMat(ours, theirs, np.eye(3), method=cv2.USAC_MAGSAC, prob=0.999,
                                                  threshold=threshold)
            if matrix is None or matrix.shape != (3, 3):
                continue
            count, rotation, shift, front = cv2.recoverPose(matrix, ours, theirs, np.eye(3), mask=inside)
            if count < MIN_KNOWN:
                continue
            turned = np.concatenate((ours, np.ones((len(ours), 1))), 1) @ rotation.T
            angle = _angles_deg(turned, np.concatenate((theirs, np.ones((len(theirs), 1))), 1))[front[:, 0] > 0]
            value = count * min(float(np.median(angle)), GOOD_DEG)
            if value > best and np.median(angle) > ENOUGH_DEG:
                best, pair = value, (first, second, rotation, shift[:, 0], count)
        if not best:
            return False
        first, second, rotation, shift, count = pair
        frames = self.tracks.frame[[first[0], second[0]]]
        self.poses[frames[1], :3, :3], self.poses[frames[1], :3, 3] = rotation, shift
        self.inliers[frames] = count
        self._triangulate()
        return bool((~np.isnan(self.points[:, 0])).sum() >= MIN_KNOWN)

    def _triangulate(self, frame: int | None = None) -> None:
        """All points, or those of a frame, that joined frames see under an angle and whose observations fit."""
        usable, touched = self.joined[self.tracks.frame], np.ones(len(self.points), dtype=bool)
        if frame is not None:
            touched[:] = False
            touched[self.tracks.point[self.of_frame[frame]]] = True
            usable = usable & touched[self.tracks.point]
        seen, old, kept = self.tracks.subset(usable)
        self.points[touched] = np.nan
        if not len(seen):
            return
        rays = np.concatenate((self.plane[kept], np.ones((len(seen), 1))), 1)
        pose = self.poses[seen.frame]
        points, world = triangulate_rays(seen, pose, rays)
        camera = np.einsum('oij,oj->oi', pose[:, :3, :3], points[seen.point]) + pose[:, :3, 3]
        off = np.linalg.norm(camera[:, :2] / np.maximum(camera[:, 2:], NEAREST) - rays[:, :2], axis=1)
        off[camera[:, 2] < NEAREST] = np.inf
        starts = np.flatnonzero(np.diff(seen.point, prepend=-1))
        worst = np.maximum.reduceat(off, starts) * self.focal_px / self.unit
        angle = np.maximum.reduceat(_angles_deg(world, world[starts][seen.point]), starts)
        good = (worst < POINT_PX) & (angle > ENOUGH_DEG)
        self.points[old[good]] = points[good]

    def _polish(self, steps: int) -> None:
        """Joint steps of all that is there; the focal length and the lens follow where they are free."""
        window = np.flatnonzero(self.joined)
        usable = self.joined[self.tracks.frame] & ~np.isnan(self.points[self.tracks.point, 0])
        inside, old, _ = self.tracks.subset(usable)
        if len(window) < 2 or inside.points < MIN_KNOWN:
            return
        bundle = self.bundle(inside.window(window), window)
        none = DepthParameters(np.zeros(len(window)), np.zeros(len(window)))
        begin = replace(self.state, poses=self.poses[window], points=self.points[old], depth=none)
        found, _ = bundle.optimise(begin, steps=steps, tolerance=1e-3)
        self.poses[window] = found.poses
        self.state = replace(self.state, log_focal=found.log_focal, lens=found.lens)
        self._see()
        self._triangulate()


def _angles_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angles (N, ) in degrees between rays (N, 3)."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(first, second), axis=1), (first * second).sum(1)))


def state_from(growth: TwoViewGrowth, depth: FrozenDepth, shifts: tuple[float, ...]) -> BundleState:
    """The state of all frames: scale and shift of their depth fit the points; points without a place get it from them.

    Args:
        growth: that has run.
        depth: predictions at the images' size.
        shifts: shifts to try, in medians; the one that leaves least is taken for all frames.
    """
    tracks = growth.tracks
    poses = growth.poses[nearest_joined(growth.joined)]
    pose, known = poses[tracks.frame], ~np.isnan(growth.points[tracks.point, 0])
    points = np.nan_to_num(growth.points)
    z = np.einsum('oj,oj->o', pose[:, 2, :3], points[tracks.point]) + pose[:, 2, 3]
    usable = known & (z > NEAREST) & growth.joined[tracks.frame]
    parameters, _ = min((scaled_to(tracks, depth, z, usable, shift)
                         for shift in (shifts if depth.kind != 'metric' else (0.0, ))), key=lambda fit: fit[1])
    values = depth.sample(tracks.frame, tracks.pixels)
    base = depth.log_base(values, tracks.frame, parameters.shift)[0] + parameters.log_scale[tracks.frame]
    rays = np.concatenate((growth.plane, np.ones((len(tracks), 1))), 1)
    world = np.einsum('oji,oj->oi', pose[:, :3, :3], np.exp(base)[:, None] * rays - pose[:, :3, 3])
    lost = np.flatnonzero(np.isnan(growth.points[:, 0]))
    first = np.flatnonzero(np.diff(tracks.point, prepend=-1))
    points[lost] = world[first[lost]]
    return replace(growth.state, poses=poses, points=points, depth=parameters)
