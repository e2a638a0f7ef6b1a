"""What a clip lacks for a reconstruction, and where the result may be wrong; said in words with the frames' names."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.reconstruction.features import Tracks
from frozenmm.reconstruction.lens import straighten
from frozenmm.reconstruction.track_solver import TrackSolution
from frozenmm.reconstruction.two_view_start import FOCAL_GRID, strong_pairs

STILL_PX = 0.7
PARALLAX_DEG = 0.5
FEW = 30
FITTING = 0.8
"""Share of the tracked points that fits on clips of still scenes at least: 0.89 to 0.99 was measured."""
FRAME_FITTING = 0.55
"""The same of one frame."""
EXPLAINED = 0.5
"""Score of held-out observations below which cameras are doubtful; 0.53 and more was measured where they are right."""
FOCAL_ERROR = 0.12
"""Relative error of the focal length that is worth a warning."""
TURN_ERROR_DEG = 0.25
"""Standard deviation of a rotation by the normal matrix that is worth a warning; errors were 7 to 20 times as large."""
RIVAL_TURN_DEG = 5.0
"""Turn of a frame between two solutions that is worth a warning."""
SECOND_VIEW_PX = 2.5
ONE_PLANE = 0.75
"""Share of the matches of two frames that one homography explains where there is a plane or a turning camera only."""
TURN = 1.06
"""Ratio of the singular values of a homography up to which it is a rotation."""
USEFUL_DEPTH = 0.3
"""Share of the points that the frozen depth meets within 10 %, below which it is no help."""
SHOWN = 6
"""Names of frames in one sentence."""


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


def one_plane(tracks: Tracks, frames: int, size: tuple[int, int], unit: float) -> str:
    """`'turn'` where the camera only turns, `'plane'` where all lies in one plane, `''` where neither is so.

    Judged from the tracks, undistorted, and not from a solution: a homography explains the matches of most pairs of
    frames as well as a fundamental matrix does. It is that of a turn if, under one focal length, all of them are
    rotations.
    """
    cv2 = require('cv2', 'the diagnosis')
    centre, side = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2]), sum(size) / 2
    shares, found = [], []
    for first, second in strong_pairs(tracks, frames, unit)[:24]:
        ours, theirs = ((tracks.pixels[index] - centre) / side for index in (first, second))
        matrix, inside = cv2.findHomography(ours, theirs, cv2.USAC_MAGSAC, SECOND_VIEW_PX * unit / side)
        if matrix is not None:
            shares.append(float(inside.mean()))
            found.append(matrix / np.cbrt(np.linalg.det(matrix)))
    if not shares or np.median(shares) < ONE_PLANE:
        return ''
    scale = np.stack((FOCAL_GRID, FOCAL_GRID, np.ones_like(FOCAL_GRID)), 1)
    values = np.linalg.svd(np.stack(found)[:, None] * scale[None, :, None] / scale[None, :, :, None], compute_uv=False)
    return 'turn' if np.median(values[..., 0] / values[..., 2], axis=0).min() < TURN else 'plane'


def black_frames(images: np.ndarray) -> list[int]:
    """Frames of images (F, H, W, 3) without any contrast: black, white or one colour.

    >>> black_frames(np.stack([np.zeros((2, 2, 3)), np.arange(12).reshape(2, 2, 3) * 20]))
    [0]
    """
    return [index for index, image in enumerate(images) if float(image.std(axis=(0, 1)).max()) < 1.0]


def named(frames: Sequence[int], names: Sequence[str] | None) -> str:
    """Frames by their names, or numbers, the first of many.

    >>> named([0, 2], ['a.jpg', 'b.jpg', 'c.jpg'])
    'frames a.jpg, c.jpg'
    """
    shown = [str(frame) if names is None else names[frame] for frame in frames[:SHOWN]]
    more = f' and {len(frames) - SHOWN} more' if len(frames) > SHOWN else ''
    return f'frame{"s" * (len(frames) > 1)} {", ".join(shown)}{more}'


def blank_warnings(images: np.ndarray, names: Sequence[str] | None = None) -> list[str]:
    """A sentence where frames of images (F, H, W, 3) have no contrast."""
    blank = black_frames(images)
    return [f'{named(blank, names)}: of one colour; the pose is that of a neighbour'] if blank else []


def unlike_warnings(images: np.ndarray, likeness: np.ndarray, alike: float,
                    names: Sequence[str] | None = None) -> list[str]:
    """Sentences about images (F, H, W, 3) aligned by brightness: frames whose likeness (F, ) to others is too low."""
    blank = black_frames(images)
    unlike = [int(frame) for frame in np.flatnonzero(likeness < alike) if int(frame) not in blank]
    found = blank_warnings(images, names)
    if unlike:
        found.append(f'{named(unlike, names)}: not like any other where it was put; poses and depth are uncertain '
                     '(other place, blur or moving things)')
    return found


class Diagnosis:
    """Sentences about what is doubtful in a solution by tracks.

    Args:
        images: (F, H, W, 3) uint8.
        solution: of the clip.
        tracks: all of them, also those that do not fit.
        unit: pixels per pixel of a 320x240 image.
        names: of the frames.
    """

    def __init__(self, images: np.ndarray, solution: TrackSolution, tracks: Tracks, unit: float,
                 names: Sequence[str] | None = None) -> None:
        self.images, self.solution, self.tracks, self.unit, self.names = images, solution, tracks, unit, names
        self.size = (images.shape[1], images.shape[2])

    def warnings(self, prior_px: float | None = None) -> list[str]:
        """All of them, most serious first; `prior_px` is what the photographs say of the focal length."""
        motion = self._motion()
        if motion and 'stands still' in motion[0]:  # all else follows from it
            return [*blank_warnings(self.images, self.names), *motion]
        return [*blank_warnings(self.images, self.names), *motion, *self._focal(prior_px, bool(motion)),
                *self._fit(), *self._frames(), *self._depth()]

    def _motion(self) -> list[str]:
        solution, frames = self.solution, len(self.images)
        if still_camera(self.tracks, self.unit):
            return ['the camera stands still: focal length and scale between frames stay at their priors; give a clip '
                    'in which it moves']
        centre = np.array([(self.size[1] - 1) / 2, (self.size[0] - 1) / 2])
        plane = straighten((self.tracks.pixels - centre) / solution.state.focal_px, solution.state.lens)
        straight = Tracks(self.tracks.frame, self.tracks.point, solution.state.focal_px * plane + centre)
        kind = one_plane(straight, frames, self.size, self.unit)
        if kind == 'turn':
            return ['the camera only turns: the positions found are invented, depth is that of the network alone, and '
                    'the focal length is uncertain; step sideways while you film']
        if kind == 'plane':
            return ['all that is seen lies in one plane: focal length and distances depend on it alone; film something '
                    'with depth, or give the focal length (focal_px)']
        angle = parallax_deg(solution.tracks, solution.state.points, np.linalg.inv(solution.state.poses))
        return [] if angle >= PARALLAX_DEG else [
            f'the median angle between the rays to a point is {angle:.2f} degrees: the camera hardly moves for the '
            'distance of what it sees; translation and focal length are uncertain']

    def _focal(self, prior_px: float | None, known: bool) -> list[str]:
        solution, found = self.solution, []
        focal, error = solution.state.focal_px, solution.focal_error
        rivals = [rival for rival in solution.rivals_px if abs(np.log(rival / focal)) > FOCAL_ERROR]
        if not known and (error > FOCAL_ERROR or rivals):
            low, high = min([focal / (1 + error), *rivals]), max([focal * (1 + error), *rivals])
            found.append(f'the focal length is uncertain: {low:.0f} to {high:.0f} px explain the tracks about as well '
                         f'as {focal:.0f} px, and rotations are wrong by as much; give it (focal_px or camera), or '
                         'move more around near things')
        if prior_px is not None and abs(np.log(focal / prior_px)) > FOCAL_ERROR:
            found.append(f'the photographs state a focal length of {prior_px:.0f} px, but the tracks fit '
                         f'{focal:.0f} px: cropped after they were taken, or wrong cameras; give the right one '
                         '(focal_px), and look at the mesh')
        return found

    def _fit(self) -> list[str]:
        solution, found = self.solution, []
        share = float(solution.inliers.sum() / max(solution.found.sum(), 1))
        if share < FITTING:
            found.append(f'only {100 * share:.0f} % of the tracked points fit one still scene: things move, or texture '
                         'repeats, or cameras are wrong; poses and depth may follow what moves, so leave it out by a '
                         'mask (--mask "person, car")')
        if solution.score < EXPLAINED:
            found.append(f'the cameras explain tracks that they were not fitted to badly (median error '
                         f'{solution.error_px * self.unit:.1f} px): focal length and rotations may be far off; give '
                         'sharper frames with more overlap, and the focal length')
        return found

    def _frames(self) -> list[str]:
        solution, blank, found = self.solution, black_frames(self.images), []
        weak = [int(f) for f in np.flatnonzero(solution.inliers < FEW) if int(f) not in blank]
        lost = [frame for frame in weak if frame not in solution.rescued]
        apart = [int(f) for f in np.flatnonzero(~solution.joined) if int(f) not in {*blank, *weak}]
        share = solution.inliers / np.maximum(solution.found, 1)
        odd = [int(f) for f in np.flatnonzero(share < FRAME_FITTING) if int(f) not in {*blank, *weak, *apart}]
        loose = [int(f) for f in np.flatnonzero(solution.turn_deg > TURN_ERROR_DEG)
                 if int(f) not in {*blank, *weak, *apart, *odd}]
        turned = [int(f) for f in np.flatnonzero(solution.rival_turn_deg > RIVAL_TURN_DEG)
                  if int(f) not in {*blank, *weak, *apart, *odd, *loose}]
        if lost:
            found.append(f'{named(lost, self.names)}: fewer than {FEW} fitting feature tracks; the pose is uncertain '
                         '(little texture, blur or moving things): leave it out, or give frames between')
        if solution.rescued:
            found.append(f'{named(solution.rescued, self.names)}: fewer than {FEW} fitting feature tracks, placed by '
                         'brightness')
        if apart:
            found.append(f'{named(apart, self.names)}: hardly a point in common with the others; where they stand to '
                         'each other is not known: reconstruct them by themselves, or give frames between')
        if odd:
            found.append(f'{named(odd, self.names)}: most tracked points do not fit; the pose may be wrong (repeated '
                         'texture, another place, moving things): leave it out and compare')
        if loose:
            found.append(f'{named(loose, self.names)}: held by few tracks; rotations may be off by some degrees: give '
                         'sharper frames, or more of them between')
        if turned:
            found.append(f'{named(turned, self.names)}: another solution, which explains the tracks about as well, '
                         f'turns them by up to {solution.rival_turn_deg[turned].max():.0f} degrees: look at the mesh; '
                         'frames between, or the focal length, decide it')
        return found

    def _depth(self) -> list[str]:
        share = self.solution.depth_share
        return [] if share >= USEFUL_DEPTH else [
            f'the network\'s depth fits {100 * share:.0f} % of the points within 10 %: it says little about this '
            'scene, so surfaces between tracked points are poor; use another network (depth in the config)']
