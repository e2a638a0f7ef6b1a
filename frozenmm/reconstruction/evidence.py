"""How well cameras explain what they were not fitted to: observations of tracks that were held out."""
from __future__ import annotations

import numpy as np

from frozenmm.reconstruction.bundle import BundleState
from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.features import Tracks
from frozenmm.reconstruction.lens import distort, straighten
from frozenmm.reconstruction.track_start import triangulate

EVERY = 3
"""Of every third track with at least three observations one is held out."""


def held_out(tracks: Tracks) -> np.ndarray:
    """Bool (O, ): observations that are held out; every track keeps at least two.

    >>> tracks = Tracks(np.array([0, 1, 2, 0, 1]), np.array([0, 0, 0, 1, 1]), np.zeros((5, 2)))
    >>> held_out(tracks).tolist()
    [True, False, False, False, False]
    """
    starts = np.flatnonzero(np.diff(tracks.point, prepend=-1))
    counts = np.diff(np.append(starts, len(tracks)))
    number = np.arange(len(starts))
    chosen = (counts >= 3) & (number % EVERY == 0)
    held = np.zeros(len(tracks), dtype=bool)
    held[starts[chosen] + (number[chosen] // EVERY * 7) % counts[chosen]] = True
    return held


def held_out_errors(tracks: Tracks, held: np.ndarray, state: BundleState, size: tuple[int, int]) -> np.ndarray:
    """Distances in pixels (H, ) of held-out observations from where the rest of their tracks says that they are.

    Args:
        tracks: all of them, wrong ones too.
        held: (O, ) bool of `held_out`.
        state: of which the cameras are read.
        size: (height, width).
    """
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    plane = straighten((tracks.pixels - centre) / state.focal_px, state.lens)
    rest = tracks.subset(~held)[0]  # no point goes, as each keeps two observations
    points = triangulate(rest, state.poses, plane[~held])
    pose = state.poses[tracks.frame[held]]
    camera = np.einsum('oij,oj->oi', pose[:, :3, :3], points[tracks.point[held]]) + pose[:, :3, 3]
    seen = distort(camera[:, :2] / np.maximum(camera[:, 2:], NEAREST), state.lens)
    return np.linalg.norm(state.focal_px * seen + centre - tracks.pixels[held], axis=1)
