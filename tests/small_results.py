"""A finished reconstruction to look at: a generated room with its true cameras and depth, and its fused mesh."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from frozenmm.reconstruction.align import Alignment
from frozenmm.reconstruction.fusion import fuse
from frozenmm.reconstruction.outputs import write_ply
from frozenmm.reconstruction.pipeline import write_overview, write_scene

if TYPE_CHECKING:
    from frozenmm.demo.rooms.clip import RoomClip


def write_room(out: Path, room: RoomClip) -> Path:
    count = len(room.images)
    truth = Alignment(room.poses_c2w, room.depth, room.focal_px, scale=np.ones(count), shift=np.zeros(count),
                      found=np.zeros(count), inliers=np.zeros(count), reprojection=np.zeros(0), warnings=[])
    names = [f'{index}.png' for index in range(count)]
    write_scene(out, room.images, names, truth)
    write_overview(out, room.images, names, room.depth, truth, source='room')
    write_ply(out / 'mesh.ply', fuse(room.images, truth, voxel_size=0.03))
    return out
