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
PNP_PX = 6.0
NOTHING_SHARED = ('no two frames share enough feature tracks to be joined: they show different things, or nothing with '
                  'texture. Give frames with more overlap (a smaller step of the video) and less blur')


class NothingSharedError(UserError):
    """No two frames could be joined by feature tracks."""

    def __init__(self) -> None:
        super().__init__(NOTHING_SHARED)


class Growth:
    """Cameras that join a world one by one.

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
        frames = len(depth.maps)
        self.tracks, self.focal_px, self.unit = tracks, focal_px, unit
        self.centre = np.array([(depth.size[1] - 1) / 2, (depth.size[0] - 1) / 2])
        self.shift = np.full(frames, 0.0 if depth.kind == 'metric' else shift)
        values = depth.sample(tracks.frame, tracks.pixels)
        self.log_base = depth.log_base(values, tracks.frame, self.shift)[0]
        plane = straighten((tracks.pixels - self.centre) / focal_px, lens)
        self.rays = np.concatenate((plane, np.ones((len(tracks), 1))), 1)
        self.poses = np.tile(np.eye(4), (frames, 1, 1))
        self.log_scale = np.zeros(frames)
        self.joined = np.zeros(frames, dtype=bool)
        self.inliers = np.zeros(frames, dtype=int)
        self._sum, self._count = np.zeros((tracks.points, 3)), np.zeros(tracks.points)
        self._of_frame = [np.flatnonzero(tracks.frame == frame) for frame in range(frames)]

    def run(self, root: int) -> Growth:
        """Grow from the frame `root` until no frame sees enough known points."""
        index = self._of_frame[root]
        self.log_scale[root] = -np.median(self.log_base[index])
        self._join(root, len(index))
        refused: set[int] = set()
        while True:
            known = np.bincount(self.tracks.frame[self._count[self.tracks.point] > 0], minlength=len(self.joined))
            known[self.joined] = 0
            known[list(refused)] = 0
            frame = int(known.argmax())
            if known[frame] < MIN_KNOWN:
                self._place_rest()
                return self
            if self._locate(frame):
                refused.clear()
            else:
                refused.add(frame)

    def points(self) -> np.ndarray:
        """(P, 3): means of the back-projections; points that no joined frame sees lie where their frame puts them."""
        return self._sum / np.maximum(self._count, 1)[:, None]

    def _locate(self, frame: int) -> bool:
        cv2 = require('cv2', 'the start of the track solver')
        index = self._of_frame[frame]
        index = index[self._count[self.tracks.point[index]] > 0]
        world = self.points()[self.tracks.point[index]]
        plane = np.ascontiguousarray(self.rays[index, :2])
        found, rotation, shift, inside = cv2.solvePnPRansac(
            world, plane, np.eye(3), None, flags=cv2.SOLVEPNP_EPNP,
            reprojectionError=PNP_PX * self.unit / self.focal_px, iterationsCount=200, confidence=0.999)
        if not found or inside is None or len(inside) < MIN_KNOWN:
            return False
        inside = inside[:, 0]
        rotation, shift = cv2.solvePnPRefineLM(world[inside], plane[inside], np.eye(3), None, rotation, shift)
        matrix = cv2.Rodrigues(rotation)[0]
        z = world[inside] @ matrix[2] + float(shift[2, 0])
        if (z > 0).sum() < MIN_KNOWN:
            return False
        self.poses[frame, :3, :3], self.poses[frame, :3, 3] = matrix, shift[:, 0]
        self.log_scale[frame] = np.median(np.log(z[z > 0]) - self.log_base[index[inside]][z > 0])
        self._join(frame, len(inside))
        return True

    def _join(self, frame: int, inliers: int) -> None:
        index = self._of_frame[frame]
        self.joined[frame], self.inliers[frame] = True, inliers
        depth = np.exp(self.log_base[index] + self.log_scale[frame])
        rotation, shift = self.poses[frame, :3, :3], self.poses[frame, :3, 3]
        np.add.at(self._sum, self.tracks.point[index], (depth[:, None] * self.rays[index] - shift) @ rotation)
        np.add.at(self._count, self.tracks.point[index], 1)

    def _place_rest(self) -> None:
        """Frames that could not be located stand where the nearest joined frame in time stands."""
        nearest = nearest_joined(self.joined)
        self.poses, self.log_scale = self.poses[nearest], self.log_scale[nearest]


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
    return BundleState(growth.poses, float(np.log(focal_px)), parameters, growth.points(), lens), growth.inliers


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
        for shift in shifts if bundle.depth.kind != 'metric' else (0.0, ):
            frames, frame = len(poses_w2c), bundle.tracks.frame
            shift_of = np.full(frames, shift)
            z = (points[bundle.tracks.point] * poses_w2c[frame, 2, :3]).sum(1) + poses_w2c[frame, 2, 3]
            offset = np.log(np.maximum(z, NEAREST)) - bundle.depth.log_base(bundle.values, frame, shift_of)[0]
            scale = np.array([np.median(offset[(frame == f) & (z > NEAREST)]) if ((frame == f) & (z > NEAREST)).any()
                              else np.nan for f in range(frames)])
            if np.isnan(scale).all():
                continue
            scale = np.where(np.isnan(scale), np.nanmedian(scale), scale)
            parameters = DepthParameters(scale, shift_of)
            state, cost = bundle.optimise(BundleState(poses_w2c, float(np.log(ratio * mean_side)), parameters, points),
                                          steps=steps)
            if best is None or cost < best[0]:
                best = (cost, state)
    if best is None:
        raise NothingSharedError
    return best[1]


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
