"""What all inferencers share: any source of images in, results one after the other out."""
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.apis.video_files import AnnotatedVideos
from frozenmm.compat.image_sources import NamedImage, read_images
from frozenmm.compat.threads import ThreadTuner
from frozenmm.engine.terminal import without_noise
from frozenmm.errors import UserError


class Inferencer:
    """Reads images, runs a model on them, writes result files.

    A subclass says what its model does with a batch (`predict`), how a result is drawn (`draw`) and which files it
    makes (`write`). Registered in `INFERENCERS`, it is what `frozenmm.apis.inferencer` builds for the models that
    `models` names: with the config, and with `weights`, `device`, `trust_weights`, `vocabulary` and `task` where its
    constructor takes them.

    Threads may share one: they take turns, and no vocabulary changes while a batch is in the network.
    """

    @property
    def turn(self) -> AbstractContextManager:
        """The lock of whoever uses the model or changes its vocabulary."""
        return vars(self).setdefault('_turn', threading.RLock())  # in one step, and needs no parent's constructor

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """Classes of models that it runs, subclasses included where no other inferencer names them."""
        return ()

    def __call__(self, images: Any, *, batch_size: int = 1, out_dir: str | Path | None = None, min_score: float = 0.0,
                 channel_order: str = 'rgb') -> list[Any]:
        """Results of all images, on the CPU; see `stream`, which does not keep them."""
        return [result for _, result in self.stream(images, batch_size=batch_size, out_dir=out_dir,
                                                    min_score=min_score, channel_order=channel_order)]

    def stream(self, images: Any, *, batch_size: int = 1, out_dir: str | Path | None = None, min_score: float = 0.0,
               channel_order: str = 'rgb', unreadable: list[str] | None = None) -> Iterator[tuple[NamedImage, Any]]:
        """Every image with its result, one after the other.

        Args:
            images: see `read_images`: path, folder, video, array, PIL picture, or a list of these.
            batch_size: images that go through the network together.
            out_dir: write result files into this folder, see `write`; a video also gives `NAME_overlay.mp4`.
            min_score: what scores below it is not drawn.
            channel_order: of arrays, `'rgb'` or `'bgr'`.
            unreadable: see `read_images`.

        Yields:
            The image, and what `predict` gives for it.

        Raises:
            UserError: see `read_images`.
        """
        if batch_size < 1:
            raise UserError(f'batch_size must be at least 1, got {batch_size}')
        source = read_images(images, channel_order=channel_order, unreadable=unreadable)
        videos = None if out_dir is None else AnnotatedVideos(Path(out_dir))
        tuner = ThreadTuner('inference')
        try:
            while batch := list(islice(source, batch_size)):
                with self.turn, tuner.step(), without_noise():
                    results = self.predict(batch)
                for image, result in zip(batch, results):
                    if videos is not None:
                        self.write(videos.folder, image, result, min_score=min_score)
                        if image.frames_per_second:
                            videos.add(image, self.draw_frame(image, result, min_score=min_score))
                        else:
                            videos.close()
                    yield image, result
            if videos is not None:
                videos.close()
        finally:
            if videos is not None:
                videos.discard()  # what is not complete by now, as after an error

    def predict(self, images: Sequence[NamedImage]) -> list[Any]:
        """Results of one batch, on the CPU."""
        raise NotImplementedError(f'{type(self).__name__} must define `predict`')

    def draw(self, image: NamedImage, result: Any, *, min_score: float = 0.0) -> np.ndarray:
        """(H', W', 3) uint8 RGB, the picture with its result."""
        raise NotImplementedError(f'{type(self).__name__} must define `draw`')

    def draw_frame(self, image: NamedImage, result: Any, *, min_score: float = 0.0) -> np.ndarray:
        """The same for a frame of an annotated video, whose frames should all have one size."""
        return self.draw(image, result, min_score=min_score)

    def write(self, folder: Path, image: NamedImage, result: Any, *, min_score: float = 0.0) -> list[Path]:
        """Write the result files of one image, each complete or not at all; returns them."""
        raise NotImplementedError(f'{type(self).__name__} must define `write`')

    def summary(self, result: Any, *, min_score: float = 0.0) -> str:
        """One line for a terminal."""
        raise NotImplementedError(f'{type(self).__name__} must define `summary`')
