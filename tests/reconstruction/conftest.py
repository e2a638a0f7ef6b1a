from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from frozenmm.reconstruction.features import Tracks


@dataclass
class ExactTracks:
    """Tracks without errors through a generated room, with the truth that they come from."""

    room: Any
    tracks: Tracks
    points: np.ndarray
    poses_w2c: np.ndarray


@pytest.fixture(scope='session')
def room(rooms: ModuleType):
    """Five frames of a generated room at 160x120."""
    return rooms.render_room(rooms.RoomSettings(frames=5, size=(120, 160), path_m=0.6, samples=2, seed=1))


@pytest.fixture(scope='session')
def exact(room) -> ExactTracks:
    """Every eighth pixel of the room's frames, followed into the frames that see the same surface there."""
    height, width = room.depth.shape[1:]
    centre, w2c = np.array([(width - 1) / 2, (height - 1) / 2]), np.linalg.inv(room.poses_c2w)
    v, u = (axis.ravel() for axis in np.mgrid[4:height:8, 4:width:8])
    rays = np.concatenate(((np.stack((u, v), 1) - centre) / room.focal_px, np.ones((len(u), 1))), 1)
    world = np.concatenate([(rays * depth[v, u][:, None]) @ pose[:3, :3].T + pose[:3, 3]
                            for depth, pose in zip(room.depth, room.poses_c2w)])
    frames, points, pixels = [], [], []
    for frame, (pose, depth) in enumerate(zip(w2c, room.depth)):
        camera = world @ pose[:3, :3].T + pose[:3, 3]
        place = room.focal_px * camera[:, :2] / camera[:, 2:] + centre
        near = np.clip(np.rint(place).astype(int), 0, [width - 1, height - 1])
        inside = ((place >= 0) & (place <= [width - 1, height - 1])).all(1) & (camera[:, 2] > 0)
        seen = np.flatnonzero(inside & (np.abs(depth[near[:, 1], near[:, 0]] / camera[:, 2] - 1) < 0.01))
        frames.append(np.full(len(seen), frame))
        points.append(seen)
        pixels.append(place[seen])
    frame, point, pixel = (np.concatenate(values) for values in (frames, points, pixels))
    order = np.lexsort((frame, point))
    tracks, old, _ = Tracks(frame[order], point[order], pixel[order]).subset(np.ones(len(order), dtype=bool))
    return ExactTracks(room, tracks, world[old], w2c)
