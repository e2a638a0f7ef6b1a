"""First guess of cameras and points: frames join one by one by PnP (spec section 12.0, step 2)."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.errors import UserError
from frozenmm.reconstruction.bundle import Bundle, BundleState
from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.depth_model import DepthParameters, FrozenDepth
from frozenmm.reconstruction.features import Tracks
from frozenmm.reconstruction.lens import NO_LENS, straighten

FOCAL_RATIOS = (0.79, 1.2)
SHIFTS = (0.1, 0.5)
MIN_KNOWN = 12
NOTHING_SHARED = ('no two frames share enough feature tracks to be joined: they show different things, or nothing with '
                  'texture. Give frames with more overlap (a smaller step of the video) and less blur')


class NothingSharedError(UserError):
    """No two frames could be joined by feature tracks."""

    def __init__(self) -> None:
        super().__init__(NOTHING_SHARED)


class GrowingCameras:
    """Cameras that join a world one by one: always the frame that sees most known points, placed by PnP.

    Args:
        tracks: ordered by point.
        frames: number of frames.
        unit: pixels per pixel of a 320x240 image.

    Attributes:
        poses: (F, 4, 4) world to camera.
        inliers: (F, ) points by which a frame was placed; 0 where it was not.
        points: (P, 3), NaN where there is none yet.
        plane: (O, 2) places of the observations on the plane at depth 1, under the focal length `focal_px`.
    """

    tolerance_px, iterations, confidence, share = 6.0, 200, 0.999, 0.0  # of PnP; share of the points that must fit
    points: np.ndarray
    plane: np.ndarray
    focal_px: float

    def __init__(self, tracks: Tracks, frames: int, unit: float) -> None:
        self.tracks, self.unit, self.frames = tracks, unit, frames
        self.poses = np.tile(np.eye(4), (frames, 1, 1))
        self.inliers = np.zeros(frames, dtype=int)
        self.of_frame = [np.flatnonzero(tracks.frame == frame) for frame in range(frames)]

    @property
    def joined(self) -> np.ndarray:
        """(F, ) bool, frames that have a place."""
        return self.inliers > 0

    def grow(self, added: Callable[[int, np.ndarray], None]) -> None:
        """Place frames until none sees enough known points.

        Args:
            added: called with a frame that was placed and the observations that placed it.
        """
        refused: set[int] = set()
        while True:
            known = ~np.isnan(self.points[:, 0])
            counts = np.bincount(self.tracks.frame[known[self.tracks.point]], minlength=self.frames)
            counts[self.joined] = 0
            counts[list(refused)] = 0
            frame = int(counts.argmax())
            if counts[frame] < MIN_KNOWN:
                return
            index = self.of_frame[frame]
            inside = self._locate(frame, index[known[self.tracks.point[index]]])
            if inside is None:
                refused.add(frame)
            else:
                refused.clear()
                added(frame, inside)

    def _locate(self, frame: int, index: np.ndarray) -> np.ndarray | None:
        """Place a frame by observations of known points; those that fit, None where they are too few."""
        cv2 = require('cv2', 'the start of the track solver')
        world, plane = self.points[self.tracks.point[index]], np.ascontiguousarray(self.plane[index])
        found, rotation, shift, inside = cv2.solvePnPRansac(
            world, plane, np.eye(3), None, flags=cv2.SOLVEPNP_EPNP, confidence=self.confidence,
            reprojectionError=self.tolerance_px * self.unit / self.focal_px, iterationsCount=self.iterations)
        if not found or inside is None or len(inside) < max(MIN_KNOWN, self.share * len(index)):
            return None
        inside = inside[:, 0]
        rotation, shift = cv2.solvePnPRefineLM(world[inside], plane[inside], np.eye(3), None, rotation, shift)
        matrix = cv2.Rodrigues(rotation)[0]
        if (world[inside] @ matrix[2] + float(shift[2, 0]) > 0).sum() < MIN_KNOWN:
            return None
        self.poses[frame, :3, :3], self.poses[frame, :3, 3] = matrix, shift[:, 0]
        self.inliers[frame] = len(inside)
        return index[inside]


class Growth(GrowingCameras):
    """Cameras and points that grow from one frame and its depth.

    Args:
        tracks: ordered by point.
        depth: predictions at the images' size.
        focal_px: focal length that the guess assumes.
        shift: shift of every frame, in medians.
        unit: pixels per pixel of a 320x240 image.
        lens: (4, ), that the guess assumes.
    """

    def __init__(self, tracks: Tracks, depth: FrozenDepth, *, focal_px: float, shift: float, unit: float,
                 lens: np.ndarray = NO_LENS) -> None:
        super().__init__(tracks, len(depth.maps), unit)
        centre, self.focal_px = np.array([(depth.size[1] - 1) / 2, (depth.size[0] - 1) / 2]), focal_px
        self.shift = np.full(self.frames, 0.0 if depth.kind == 'metric' else shift)
        values = depth.sample(tracks.frame, tracks.pixels)
        self.log_base = depth.log_base(values, tracks.frame, self.shift)[0]
        self.plane = straighten((tracks.pixels - centre) / focal_px, lens)
        self.log_scale, self.points = np.zeros(self.frames), np.full((tracks.points, 3), np.nan)
        self._sum, self._count = np.zeros((tracks.points, 3)), np.zeros(tracks.points)

    def run(self, root: int) -> Growth:
        """Grow from the frame `root`; frames that cannot be placed stand where the nearest one in time stands."""
        index = self.of_frame[root]
        self.log_scale[root], self.inliers[root] = -np.median(self.log_base[index]), len(index)
        self._add_points(root)
        self.grow(self._added)
        nearest = nearest_joined(self.joined)
        self.poses, self.log_scale = self.poses[nearest], self.log_scale[nearest]
        return self

    def _added(self, frame: int, inside: np.ndarray) -> None:
        z = self.points[self.tracks.point[inside]] @ self.poses[frame, 2, :3] + self.poses[frame, 2, 3]
        self.log_scale[frame] = np.median((np.log(np.maximum(z, NEAREST)) - self.log_base[inside])[z > 0])
        self._add_points(frame)

    def _add_points(self, frame: int) -> None:
        """Points become the means of their back-projections."""
        index, pose = self.of_frame[frame], self.poses[frame]
        rays = np.concatenate((self.plane[index], np.ones((len(index), 1))), 1)
        depth, point = np.exp(self.log_base[index] + self.log_scale[frame]), self.tracks.point[index]
        self._sum[point] += (depth[:, None] * rays - pose[:3, 3]) @ pose[:3, :3]  # once per frame each
        self._count[point] += 1
        self.points[point] = self._sum[point] / self._count[point][:, None]


def nearest_joined(joined: np.ndarray) -> np.ndarray:
    """Of every frame the nearest one in time that is `joined` (F, ) bool, itself where it is.

    >>> nearest_joined(np.array([False, True, False])).tolist()
    [1, 1, 1]
    """
    there = np.flatnonzero(joined)
    return there[np.abs(there[None] - np.arange(len(joined))[:, None]).argmin(1)]


def grow(tracks: Tracks, depth: FrozenDepth, *, focal_px: float, shift: float, unit: float,
         lens: np.ndarray = NO_LENS) -> tuple[BundleState, np.ndarray]:
    """A first state and the number of inliers (F, ) with which every frame joined (0: it did not)."""
    # the frame with the most observations is the safest root
    root = int(np.bincount(tracks.frame, minlength=len(depth.maps)).argmax())
    growth = Growth(tracks, depth, focal_px=focal_px, shift=shift, unit=unit, lens=lens).run(root)
    parameters = DepthParameters(growth.log_scale, growth.shift)
    points = np.nan_to_num(growth.points)  # those of frames that could not be placed lie at the origin
    return BundleState(growth.poses, float(np.log(focal_px)), parameters, points, lens), growth.inliers


def best_start(bundle: Bundle, *, mean_side: float, focal_ratios: Sequence[float], shifts: Sequence[float],
               steps: int, lens: Callable[[float], np.ndarray] = lambda focal_px: NO_LENS,
               ) -> tuple[BundleState, np.ndarray]:
    """The start with the lowest robust cost after a few steps, and the inliers (F, ) with which frames joined.

    Args:
        bundle: of the clip or a window of it.
        mean_side: mean of height and width in pixels.
        focal_ratios: focal lengths to try, over the mean side.
        shifts: shifts to try, in medians.
        steps: of Levenberg-Marquardt per start.
        lens: gives the lens (4, ) to begin with under a focal length.

    Raises:
        NothingSharedError: no two frames could be joined.
    """
    best = None
    for ratio in focal_ratios:
        for shift in shifts if bundle.depth.kind != 'metric' else (0.0, ):
            state, inliers = grow(bundle.tracks, bundle.depth, focal_px=ratio * mean_side, shift=shift,
                                  unit=bundle.unit, lens=lens(ratio * mean_side))
            if (inliers > 0).sum() < 2:
                continue
            state, cost = bundle.optimise(state, steps=steps)
            # a start that loses frames must not win by its lower cost on the rest
            key = (-(inliers > 0).sum(), cost)
            if best is None or key < best[0]:
                best = (key, state, inliers)
    if best is None:
        raise NothingSharedError
    return best[1], best[2]


def posed_start(bundle: Bundle, poses_w2c: np.ndarray, *, mean_side: float, focal_ratios: Sequence[float],
                shifts: Sequence[float], steps: int) -> BundleState:
    """The start with the lowest robust cost under given poses (F, 4, 4): triangulated points give the scales."""
    best = None
    for ratio in focal_ratios:
        plane = straighten((bundle.tracks.pixels - bundle.centre) / (ratio * mean_side), NO_LENS)
        points = triangulate(bundle.tracks, poses_w2c, plane)
        frame = bundle.tracks.frame
        z = (points[bundle.tracks.point] * poses_w2c[frame, 2, :3]).sum(1) + poses_w2c[frame, 2, 3]
        if not (z > NEAREST).any():
            continue
        for shift in shifts if bundle.depth.kind != 'metric' else (0.0, ):
            parameters, _ = scaled_to(bundle.tracks, bundle.depth, z, z > NEAREST, shift)
            state, cost = bundle.optimise(BundleState(poses_w2c, float(np.log(ratio * mean_side)), parameters, points),
                                          steps=steps)
            if best is None or cost < best[0]:
                best = (cost, state)
    if best is None:
        raise NothingSharedError
    return best[1]


def scaled_to(tracks: Tracks, depth: FrozenDepth, z: np.ndarray, usable: np.ndarray,
              shift: float) -> tuple[DepthParameters, float]:
    """Scales under which predictions fit the depth z (O, ) of `usable` (O, ) points, and the median of what is left.

    Frames without such points get the median scale.
    """
    frames, frame = len(depth.maps), tracks.frame
    shifts = np.full(frames, shift)
    offset = np.log(np.maximum(z, NEAREST)) - depth.log_base(depth.sample(frame, tracks.pixels), frame, shifts)[0]
    scale = np.array([np.median(offset[index]) if len(index) else np.nan for index in (
        np.flatnonzero(usable & (frame == number)) for number in range(frames))])
    scale = np.where(np.isnan(scale), np.nanmedian(scale), scale)
    return DepthParameters(scale, shifts), float(np.median(np.abs(offset - scale[frame])[usable]))


def triangulate(tracks: Tracks, poses_w2c: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Points (P, 3) that lie nearest to the rays of their observations (least squares of the rays' distances).

    Args:
        tracks: ordered by point.
        poses_w2c: (F, 4, 4).
        plane: (O, 2) ideal places of the observations on the plane at depth 1.
    """
    rays = np.concatenate((plane, np.ones((len(plane), 1))), 1)
    return triangulate_rays(tracks, poses_w2c[tracks.frame], rays)[0]


def triangulate_rays(tracks: Tracks, poses_w2c: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) nearest to rays (O, 3) of cameras (O, 4, 4), and the rays of length 1 in the world (O, 3)."""
    rays = np.einsum('oji,oj->oi', poses_w2c[:, :3, :3], rays / np.linalg.norm(rays, axis=1, keepdims=True))
    centres = -np.einsum('oji,oj->oi', poses_w2c[:, :3, :3], poses_w2c[:, :3, 3])
    across = np.eye(3) - rays[:, :, None] * rays[:, None]
    starts = np.flatnonzero(np.diff(tracks.point, prepend=-1))
    matrix = np.add.reduceat(across, starts) + 1e-9 * np.eye(3)
    return np.linalg.solve(matrix, np.add.reduceat(across @ centres[:, :, None], starts))[..., 0], rays
