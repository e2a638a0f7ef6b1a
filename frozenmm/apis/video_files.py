"""Annotated videos, frame by frame."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat import require
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError

FIRST = '_000000'
"""Ending of the name of a video's first frame, see `read_images`."""


class AnnotatedVideos:
    """Writes `NAME_overlay.mp4` for every video whose frames it is given, in order, beside results of single frames.

    A video appears when it is complete: when the first frame of another follows or `close` is called. `discard` leaves
    nothing behind.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = self._part = Path()
        self._source = ''
        self._size = (0, 0)
        self._writer: Any = None

    def add(self, image: NamedImage, picture: np.ndarray) -> None:
        """One frame.

        Args:
            image: the frame, of a video.
            picture: (H', W', 3) uint8 RGB to show; later ones are fitted into the size of the first.

        Raises:
            UserError: OpenCV cannot write the video.
        """
        if image.path != self._source or FIRST in image.name:
            self.close()
        cv2 = require('cv2', 'writing videos')
        if self._writer is None:
            self._open(cv2, image, picture)
        frame = fitted(np.ascontiguousarray(picture[..., ::-1]), self._size)
        self._writer.write(frame)

    def close(self) -> None:
        """Finish the video that is being written."""
        if self._writer is not None:
            self._writer.release()
            self._part.replace(self._path)
        self._writer, self._source = None, ''

    def discard(self) -> None:
        """Give up the video that is being written."""
        if self._writer is not None:
            self._writer.release()
            self._part.unlink(missing_ok=True)
        self._writer, self._source = None, ''

    def _open(self, cv2: Any, image: NamedImage, picture: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = image.name.replace(FIRST, '', 1)
        self._path, self._part = self.folder / f'{name}_overlay.mp4', self.folder / f'.{name}.part.mp4'
        # codecs want even sides
        self._size = (picture.shape[0] + picture.shape[0] % 2, picture.shape[1] + picture.shape[1] % 2)
        writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter_fourcc(*'mp4v'), image.frames_per_second,
                                 self._size[::-1])
        if not writer.isOpened():
            writer.release()
            self._part.unlink(missing_ok=True)
            raise UserError(f'OpenCV cannot write the video {self._path}; is the folder writable, and does this build '
                            'of OpenCV have FFmpeg? Or give the frames as a folder of images')
        self._writer, self._source = writer, image.path


def fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H', W', 3) uint8 on a white canvas (H, W, 3), made smaller where it does not fit.

    Args:
        picture: any colour order.
        size: height and width of the canvas.
    """
    cv2 = require('cv2', 'writing videos')
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1], 1.0)
    if scale < 1:
        shape = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
        picture = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
    canvas = np.full((*size, 3), 255, np.uint8)
    canvas[:picture.shape[0], :picture.shape[1]] = picture
    return canvas
