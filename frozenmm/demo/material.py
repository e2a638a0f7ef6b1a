"""The picture and the clip that the documents work on, so that their commands run as they are written."""
from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.demo.rooms.clip import RoomSettings, distort_depth, render_room


def write_material(folder: str | Path) -> list[Path]:
    """Write a photograph and a clip of a generated room with depth as a frozen network might give it.

    Args:
        folder: gets `photo.jpg` (a cat, from scikit-image), `frames/` and `frames_depth.npz`.

    Returns:
        What was written.

    Raises:
        MissingPackage: scikit-image is not installed.
    """
    folder = Path(folder)
    photo = require('skimage.data', 'the photograph of the documents').chelsea()
    files = {folder / 'photo.jpg': _encoded('.jpg', photo)}
    room = render_room(RoomSettings(frames=5, size=(120, 160), path_m=0.6, samples=2, seed=1))
    for index, image in enumerate(room.images):
        files[folder / 'frames' / f'{index}.png'] = _encoded('.png', image)
    depth = io.BytesIO()
    np.savez(depth, depth=distort_depth(room.depth))
    files[folder / 'frames_depth.npz'] = depth.getvalue()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return list(files)


def _encoded(suffix: str, image_rgb: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image_rgb[..., ::-1])[1].tobytes()
