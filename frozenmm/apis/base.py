"""What all inferencers share: any source of images in, results one after the other out."""
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np

from frozenmm.apis.coco_entries import AnnotationIds
from frozenmm.apis.result_files import ResultFiles
from frozenmm.apis.result_tables import ResultTables
from frozenmm.apis.results import Result
from frozenmm.apis.tracks import Tracker
from frozenmm.apis.video_files import AnnotatedVideos
from frozenmm.compat.image_sources import NamedImage, read_images
from frozenmm.compat.threads import ThreadTuner
from frozenmm.engine.terminal import without_noise
from frozenmm.errors import UserError


@dataclass(frozen=True)
class RunOptions:
    """What a run over images does beside predicting.

    Attributes:
        several_labels: files and drawings keep every label of a box, as tests count them; else the best one.
        annotations: COCO annotation file, whose ids the files use for pictures and categories.
        every: of videos, take every n-th frame.
        track: number the objects of videos, see `Tracker`.
    """

    several_labels: bool = False
    annotations: str | Path | None = None
    every: int = 1
    track: bool = False


_PLAIN = RunOptions()


class Inferencer:
    """Reads images, runs a model on them, writes result files.

    A subclass says what its model does with a batch (`predict`). Where that gives no `Result`, it also says how a
    result is drawn (`draw`), which files it makes (`write`) and what it is in a line (`summary`). Registered in
    `INFERENCERS`, it is what `frozenmm.apis.inferencer` builds for the models that `models` names: with the config, and
    with `weights`, `device`, `trust_weights`, `vocabulary` and `task` where its constructor takes them.

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

    @overload
    def __call__(self, images: Iterator[Any], *, batch_size: int = 1, out_dir: str | Path | None = None,
                 min_score: float | None = None, channel_order: str = 'rgb',
                 options: RunOptions = ...) -> Iterator[Any]: ...

    @overload
    def __call__(self, images: Any, *, batch_size: int = 1, out_dir: str | Path | None = None,
                 min_score: float | None = None, channel_order: str = 'rgb', options: RunOptions = ...) -> list[Any]:
        ...

    def __call__(self, images: Any, *, batch_size: int = 1, out_dir: str | Path | None = None,
                 min_score: float | None = None, channel_order: str = 'rgb',
                 options: RunOptions = _PLAIN) -> list[Any] | Iterator[Any]:
        """Results of all images, on the CPU; of an iterator (a generator, a camera) one after the other, see `stream`.

        Returns:
            A list; for an iterator an iterator, which keeps nothing.
        """
        results = (result for _, result in self.stream(
            images, batch_size=batch_size, out_dir=out_dir, min_score=min_score, channel_order=channel_order,
            options=options))
        return results if isinstance(images, Iterator) else list(results)

    def stream(self, images: Any, *, batch_size: int = 1, out_dir: str | Path | None = None,
               min_score: float | None = None, channel_order: str = 'rgb', unreadable: list[str] | None = None,
               options: RunOptions = _PLAIN) -> Iterator[tuple[NamedImage, Any]]:
        """Every image with its result, one after the other.

        Args:
            images: see `read_images`: path, folder, video, array, PIL picture, a list or an iterator of these.
            batch_size: images that go through the network together.
            out_dir: write result files into this folder, see `ResultFiles`; a video gives `NAME_overlay.mp4`.
            min_score: what scores below it is neither drawn nor in the files; see `frozenmm.apis.found.kept` for the
                default.
            channel_order: of arrays, `'rgb'` or `'bgr'`.
            unreadable: see `read_images`.
            options: what else to do.

        Yields:
            The image, and what `predict` gives for it, whatever it scores.

        Raises:
            UserError: see `read_images`.
        """
        if batch_size < 1:
            raise UserError(f'batch_size must be at least 1, got {batch_size}')
        source = read_images(images, channel_order=channel_order, unreadable=unreadable, every=options.every)
        files = None if out_dir is None else _Run(self, self._tables(Path(out_dir), options), min_score, options)
        tracker = Tracker(min_score, options.every) if options.track else None
        tuner = ThreadTuner('inference')
        with ExitStack() as stack:
            if files is not None:
                stack.enter_context(files)
            while batch := list(islice(source, batch_size)):
                if files is not None:
                    batch = [files.tables.named(image) for image in batch]
                with self.turn, tuner.step(), without_noise():
                    results = self.predict(batch)
                for image, result in zip(batch, results):
                    if tracker is not None and isinstance(result, Result):
                        result = tracker.tracked(image, result)
                    if files is not None:
                        files.write(image, result)
                    yield image, result

    def _tables(self, path: Path, options: RunOptions) -> ResultTables:
        """Those of a folder, to whose files several calls may add."""
        wanted = None if options.annotations is None else Path(options.annotations)
        with self.turn:  # two threads that begin a folder at once must not both make its tables
            folders = vars(self).setdefault('_folders', {})
            found = folders.get(path.resolve())
            if found is None or (found.annotations and found.annotations.path) != wanted:
                found = ResultTables(path, None if wanted is None else AnnotationIds.read(wanted))
                folders[path.resolve()] = found
        return found

    def predict(self, images: Sequence[NamedImage]) -> list[Any]:
        """Results of one batch, on the CPU."""
        raise NotImplementedError(f'{type(self).__name__} must define `predict`')

    def draw(self, image: NamedImage, result: Any, *, min_score: float | None = None) -> np.ndarray:
        """(H', W', 3) uint8 RGB, the picture with its result."""
        if not isinstance(result, Result):
            raise NotImplementedError(f'{type(self).__name__} must define `draw`')
        return result.drawing(min_score=min_score, image=image)

    def draw_frame(self, image: NamedImage, result: Any, *, min_score: float | None = None) -> np.ndarray:
        """The same for a frame of an annotated video: at its own size, without a legend."""
        if isinstance(result, Result) and type(self).draw is Inferencer.draw:
            height, width = image.pixels.shape[:2]
            # a drawing is at most twice as high as it should be wide
            return result.drawing(min_score=min_score, image=image, legend=False, width=max(width, -(-height // 2)))
        return self.draw(image, result) if min_score is None else self.draw(image, result, min_score=min_score)

    def write(self, folder: Path, image: NamedImage, result: Any, *, min_score: float | None = None) -> list[Path]:
        """Write the files of one image, each complete or not at all; returns them."""
        if not isinstance(result, Result):
            raise NotImplementedError(f'{type(self).__name__} must define `write`')
        folder.mkdir(parents=True, exist_ok=True)  # else `save` would take a name with a dot for a picture
        return result.save(folder, min_score=min_score)

    def summary(self, result: Any, *, min_score: float | None = None) -> str:
        """One line for a terminal."""
        if not isinstance(result, Result):
            raise NotImplementedError(f'{type(self).__name__} must define `summary`')
        return result.summary(min_score=min_score)


class _Run(ResultFiles):
    """Files, drawings and videos of a run; nothing of a video that is not complete stays after an error."""

    def __init__(self, inferencer: Inferencer, tables: ResultTables, min_score: float | None,
                 options: RunOptions) -> None:
        super().__init__(tables)
        self._inferencer, self._options = inferencer, options
        self._videos = AnnotatedVideos(self.folder, options.every)
        # an inferencer of one's own has a default of its own
        self._score = {} if min_score is None else dict(min_score=min_score)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            super().__exit__(kind, error, trace)
            if error is None:
                self._videos.close()
        finally:
            self._videos.discard()

    def write(self, image: NamedImage, result: Any) -> None:
        """Write what belongs to one image."""
        maker, score = self._inferencer, self._score
        if isinstance(result, Result):
            # chosen once for all, and as it is for whoever draws it
            result, score = result.kept(**score, several_labels=self._options.several_labels), {}
        if not isinstance(result, Result) or type(maker).write is not Inferencer.write:
            maker.write(self.folder, image, result, **score)
        else:
            if not image.frames_per_second:
                self.draw(image, maker.draw(image, result))
            self.add(image, result)
        if image.frames_per_second:
            self._videos.add(image, maker.draw_frame(image, result, **score))
        else:
            self._videos.close()
