"""What a clip lacks for a reconstruction: overlap, baseline, rotation, texture; said in words."""
from __future__ import annotations

import numpy as np

from frozenmm.reconstruction.features import Tracks

STILL_PX = 0.7
PARALLAX_DEG = 0.5
FEW = 30
FITTING = 0.8
"""Share of the tracked points that fits on clips of still scenes at least: 0.89 to 0.99 was measured."""


def still_camera(tracks: Tracks, unit: float) -> bool:
    """Whether the median track moves by less than 0.7 pixels (of a 320x240 image) over the clip."""
    if not len(tracks):
        return False
    starts = np.flatnonzero(np.diff(tracks.point, prepend=-1))
    spread = np.maximum.reduceat(tracks.pixels, starts) - np.minimum.reduceat(tracks.pixels, starts)
    return bool(np.median(spread.max(1)) < STILL_PX * unit)


def parallax_deg(tracks: Tracks, points: np.ndarray, poses_c2w: np.ndarray) -> float:
    """Median over the points of the angle in degrees between the first and the last ray to them.

    Args:
        tracks: ordered by point.
        points: (P, 3) in the world.
        poses_c2w: (F, 4, 4).
    """
    starts = np.flatnonzero(np.diff(tracks.point, prepend=-1))
    ends = np.append(starts[1:], len(tracks)) - 1
    centres = poses_c2w[:, :3, 3]
    rays = [points[tracks.point[index]] - centres[tracks.frame[index]] for index in (starts, ends)]
    sine = np.linalg.norm(np.cross(rays[0], rays[1]), axis=1)
    return float(np.degrees(np.median(np.arctan2(sine, (rays[0] * rays[1]).sum(1)))))


def black_frames(images: np.ndarray) -> list[int]:
    """Frames of images (F, H, W, 3) without any contrast: black, white or one colour.

    >>> black_frames(np.stack([np.zeros((2, 2, 3)), np.arange(12).reshape(2, 2, 3) * 20]))
    [0]
    """
    return [index for index, image in enumerate(images) if float(image.std(axis=(0, 1)).max()) < 1.0]


def blank_warnings(images: np.ndarray) -> list[str]:
    """A sentence where frames of images (F, H, W, 3) have no contrast."""
    blank = black_frames(images)
    return [f'frames {blank} are of one colour; their poses are those of their neighbours'] if blank else []


def unlike_warnings(images: np.ndarray, likeness: np.ndarray, alike: float) -> list[str]:
    """Sentences about images (F, H, W, 3) aligned by brightness: frames whose likeness (F, ) to others is too low."""
    blank = black_frames(images)
    unlike = [int(frame) for frame in np.flatnonzero(likeness < alike) if int(frame) not in blank]
    found = blank_warnings(images)
    if unlike:
        found.append(f'frames {unlike} do not look like any other where they were put; their poses and depth are '
                     'uncertain (other place, blur or moving things)')
    return found


def moving_warnings(found: np.ndarray, inliers: np.ndarray) -> list[str]:
    """A sentence where too few of the tracked points, `found` (F, ) and fitting `inliers` (F, ), fit a still scene."""
    share = float(inliers.sum() / max(found.sum(), 1))
    return [] if share >= FITTING else [
        f'only {100 * share:.0f} % of the tracked points fit one still scene: things move, or texture repeats; poses '
        'and depth may follow what moves, so leave it out by a mask (--mask "person, car")']


def warnings_for(images: np.ndarray, tracks: Tracks, found_points: np.ndarray, inliers: np.ndarray, parallax: float,
                 unit: float, rescued: list[int]) -> list[str]:
    """Sentences about what is doubtful in a result, most serious first.

    Args:
        images: (F, H, W, 3) uint8.
        tracks: that fit.
        found_points: (F, ) observations per frame at the start.
        inliers: (F, ) of these, the ones that fit.
        parallax: of `parallax_deg`.
        unit: pixels per pixel of a 320x240 image.
        rescued: frames that were placed by brightness.
    """
    blank, found = black_frames(images), blank_warnings(images)
    if still_camera(tracks, unit):
        found.append('the camera stands still: focal length and scale between frames stay at their priors')
    elif parallax < PARALLAX_DEG:
        found.append(f'the median angle between the rays to a point is {parallax:.2f} degrees: the camera turns but '
                     'hardly moves; translation and focal length are uncertain')
    found += moving_warnings(found_points, inliers)
    weak = [int(frame) for frame in np.flatnonzero(inliers < FEW) if int(frame) not in blank]
    lost = [frame for frame in weak if frame not in rescued]
    if lost:
        found.append(f'frames {lost} have fewer than {FEW} fitting feature tracks; their poses are uncertain '
                     '(little texture, blur or moving things)')
    if rescued:
        found.append(f'frames {rescued} have fewer than {FEW} fitting feature tracks and were placed by brightness')
    return found
