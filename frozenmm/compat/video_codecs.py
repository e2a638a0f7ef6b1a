"""Frames of videos in and out: OpenCV, and FFmpeg by imageio-ffmpeg where that is installed."""
from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.errors import UserError

REMEDY = 'pip install imageio-ffmpeg'


def opencv_frames(path: Path, every: int = 1) -> Iterator[tuple[np.ndarray, float]]:
    """Every n-th frame (H, W, 3) uint8 BGR with the video's frames per second; none where OpenCV cannot decode it."""
    cv2 = require('cv2', 'reading videos')
    video = cv2.VideoCapture(str(path))
    try:
        rate = float(video.get(cv2.CAP_PROP_FPS)) or 25.0
        found, frame = video.read()
        while found:
            yield frame, rate
            for _ in range(every - 1):
                video.grab()  # without decoding it
            found, frame = video.read()
    finally:
        video.release()


def has_ffmpeg() -> bool:
    """Whether imageio-ffmpeg is installed, which brings an FFmpeg with H.264."""
    return importlib.util.find_spec('imageio_ffmpeg') is not None


def ffmpeg_frames(path: Path, every: int = 1) -> Iterator[tuple[np.ndarray, float]]:
    """The same by FFmpeg; nothing where that cannot decode it either."""
    # a playlist that calls itself a video may name addresses
    frames = require('imageio_ffmpeg', 'reading this video').read_frames(
        str(path.resolve()), input_params=['-protocol_whitelist', 'file'])
    try:
        meta = next(frames)
        width, height = meta['size']
        for number, frame in enumerate(frames):
            if number % every == 0:
                yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)[..., ::-1], meta['fps'] or 25.0
    except OSError:  # its sentence for a file that it cannot decode
        return
    finally:
        frames.close()


def frame_count(path: Path) -> int:
    """How many frames a video says to have; 0 where it does not."""
    cv2 = require('cv2', 'reading videos')
    video = cv2.VideoCapture(str(path))
    try:
        return max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    finally:
        video.release()


class VideoWriter:
    """An MP4 file: H.264, which every player and browser shows, with imageio-ffmpeg, else MPEG-4 by OpenCV.

    Args:
        path: the file.
        size: even height and width.
        rate: frames per second.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        self._ffmpeg: Any = None
        if has_ffmpeg():
            self._ffmpeg = require('imageio_ffmpeg', 'writing videos').write_frames(
                str(path), size[::-1], fps=rate, codec='libx264', macro_block_size=2, quality=7)
            self._ffmpeg.send(None)
            return
        cv2 = require('cv2', 'writing videos')
        self._opencv = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, size[::-1])
        if not self._opencv.isOpened():
            self._opencv.release()
            raise UserError(f'OpenCV cannot write the video {path}; is the folder writable, and does this build of '
                            f'OpenCV have FFmpeg? Install another one ({REMEDY}), or give the frames as a folder of '
                            'images')

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 RGB."""
        if self._ffmpeg is not None:
            self._ffmpeg.send(np.ascontiguousarray(frame))
        else:
            self._opencv.write(np.ascontiguousarray(frame[..., ::-1]))

    def release(self) -> None:
        """End the file."""
        if self._ffmpeg is not None:
            self._ffmpeg.close()
        else:
            self._opencv.release()
