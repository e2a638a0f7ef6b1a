"""Annotated videos, frame by frame."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat import require
from frozenmm.compat.image_sources import NamedImage
from frozenmm.compat.video_codecs import VideoWriter
from frozenmm.errors import UserError


class AnnotatedVideos:
    """Writes `NAME_overlay.mp4` for every video whose frames it is given, in order, beside results of single frames.

    A video appears when it is complete: when the first frame of another follows or `close` is called. `discard` leaves
    nothing behind.

    Args:
        folder: made if it is not there.
        every: of the frames of a video, only every n-th comes.
    """

    def __init__(self, folder: Path, every: int = 1) -> None:
        self.folder = folder
        self._every = every
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
            UserError: the video cannot be written.
        """
        if image.path != self._source or image.frame == 0:
            self.close()
        if self._writer is None:
            self._open(image, picture)
        self._writer.write(fitted(picture, self._size))

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

    def _open(self, image: NamedImage, picture: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = clip_name(image)
        self._path, self._part = self.folder / f'{name}_overlay.mp4', self.folder / f'.{name}.part.mp4'
        # codecs want even sides
        self._size = (picture.shape[0] + picture.shape[0] % 2, picture.shape[1] + picture.shape[1] % 2)
        try:
            self._writer = VideoWriter(self._part, self._size, image.frames_per_second / self._every)
        except UserError:
            self._part.unlink(missing_ok=True)
            raise
        self._source = image.path


def clip_name(image: NamedImage) -> str:
    """The name of a frame's video, unique as the frame's is.

    >>> clip_name(NamedImage('walk_000012_2', np.zeros((1, 1, 3), np.uint8), 'walk.mp4', 25.0, 12))
    'walk_2'
    """
    return image.name.replace(f'_{image.frame:06d}', '', 1)


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
