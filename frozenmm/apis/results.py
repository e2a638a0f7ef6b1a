"""The results of inferencers: a sample of mmdet or MMEngine that can be shown, saved and handed to other tools."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from typing_extensions import Self

from frozenmm.apis.coco_entries import coco_entry
from frozenmm.apis.found import MIN_SCORE, everything, kept, left_out, names_and_scores, objects, segments
from frozenmm.apis.label_pictures import class_colours, picture_bytes
from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_files import read_image_file
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import VocabularyClass
from frozenmm.visualization.detections import Boxes, draw_boxes
from frozenmm.visualization.segment_map import segment_map
from frozenmm.visualization.segments import Region, draw_segments

_UNREAD = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Origin:
    """Where a result comes from.

    Attributes:
        image: the picture; its pixels are left out where its file can be read again.
        classes: what labels index, with category ids.
        selected: what is in the result was chosen already, see `Result.kept`.
    """

    image: NamedImage
    classes: tuple[VocabularyClass, ...]
    selected: bool = False


class Result(BaseDataElement):
    """A sample (`pred_instances`, `pred_panoptic_seg`, `pred_sem_seg`; metainfo `classes`, `ori_shape`) with methods.

    `len(result)` is the number of its objects, else of its segments, else of the classes in its map. Files and drawings
    hold what scores `MIN_SCORE` or more; `to_coco`, `to_supervision` and the sample's own fields hold everything.
    """

    _origin: Origin | None = None

    @classmethod
    def of(cls, sample: BaseDataElement, image: NamedImage, classes: Sequence[VocabularyClass]) -> Self:
        """The result of a picture.

        Args:
            sample: what the model gave, at the size of the picture, on the CPU.
            image: the picture.
            classes: what labels index.
        """
        result = cls()
        result.set_metainfo(dict(sample.metainfo_items()))
        result.set_metainfo(dict(classes=tuple(entry.name for entry in classes), ori_shape=image.pixels.shape[:2]))
        result.set_data(dict(sample.items()))
        if not image.frames_per_second and Path(image.path).is_file():  # a long list of results keeps no pixels
            image = replace(image, pixels=_UNREAD)
        return result._from(Origin(image, tuple(classes)))

    def _from(self, origin: Origin | None) -> Self:
        object.__setattr__(self, '_origin', origin)  # no field of the sample
        return self

    def new(self, **fields: Any) -> Self:
        """See mmengine; a copy comes from the same picture."""
        return super().new(**fields)._from(self._origin)

    def clone(self) -> Self:
        """See mmengine."""
        return super().clone()._from(self._origin)

    @property
    def origin(self) -> Origin:
        """Picture and classes.

        Raises:
            UserError: the result was made by hand.
        """
        if self._origin is None:
            raise UserError('this result knows no picture; take one that an inferencer gave, or use Result.of')
        return self._origin

    @property
    def image(self) -> NamedImage:
        """The picture, read again where its pixels were left out.

        Raises:
            MissingFile: its file is gone.
        """
        image = self.origin.image
        return image if image.pixels.size else replace(image, pixels=read_image_file(Path(image.path)))

    def kept(self, *, min_score: float | None = None, several_labels: bool = False) -> Self:
        """A copy with what files and drawings show, see `frozenmm.apis.found.kept`; it stays as it is from then on."""
        if self.origin.selected and min_score is None:
            return self
        chosen = kept(self, min_score=min_score, several_labels=several_labels or self.origin.selected)
        return chosen._from(replace(self.origin, selected=True))

    def drawing(self, *, min_score: float | None = None, several_labels: bool = False, legend: bool = True,
                width: int = 800, image: NamedImage | None = None) -> np.ndarray:
        """(H', W', 3) uint8 RGB, the picture with labelled boxes, or with its segments and a legend.

        Args:
            min_score: see `kept`.
            several_labels: see `kept`.
            legend: add it below segments.
            width: the picture is resized to this width, so that names stay readable.
            image: the picture, where it is at hand.
        """
        shown = self.kept(min_score=min_score, several_labels=several_labels)
        image = self.image if image is None else image
        classes = self.origin.classes
        names = [entry.name for entry in classes]
        palette = class_colours(classes)
        if 'pred_instances' in self and 'masks' not in self.pred_instances:
            found = shown.pred_instances
            tracks = found.tracks.numpy() if 'tracks' in found else None
            boxes = Boxes(found.bboxes.numpy(), found.labels.numpy(), found.scores.numpy(), tracks)
            return draw_boxes(image.pixels, boxes, names, palette, width=width)
        ids, infos = segment_map(shown)
        regions = [Region(info['id'], info['category_id'], info['score'], info.get('track')) for info in infos]
        return draw_segments(image.pixels, ids, regions, names, palette=palette, width=width, legend=legend)

    def show(self, *, min_score: float | None = None, several_labels: bool = False) -> None:
        """Show the drawing: in the notebook, or with the picture viewer of this machine.

        Raises:
            UserError: there is no viewer.
        """
        pil = require('PIL.Image', 'drawing')
        picture = pil.fromarray(self.drawing(min_score=min_score, several_labels=several_labels))
        if _in_notebook():
            require('IPython.display', 'showing pictures in a notebook').display(picture)
        elif not require('PIL.ImageShow', 'showing pictures').show(picture, title=self.origin.image.name):
            raise UserError("this machine has no viewer for pictures; write a file instead: result.save('picture.png')")

    def save(self, path: str | Path, *, min_score: float | None = None, several_labels: bool = False) -> list[Path]:
        """Write the drawing, or with a folder as path all files of a run over this one picture.

        Args:
            path: a picture (`.png`, `.jpg`, ...), or a folder, which is made if it is not there.
            min_score: see `kept`.
            several_labels: see `kept`.

        Returns:
            The files.

        Raises:
            UserError: a suffix of no format of pictures.
        """
        from frozenmm.apis.result_files import ResultFiles
        from frozenmm.apis.result_tables import ResultTables
        path = Path(path)
        shown = self.kept(min_score=min_score, several_labels=several_labels)
        if path.suffix and not path.is_dir():
            write_whole(path, picture_bytes(shown.drawing(), path.suffix))
            return [path]
        with ResultFiles(ResultTables(path)) as files:
            files.draw(self.origin.image, shown.drawing())
            files.add(self.origin.image, shown)
        return files.files

    def to_coco(self, image_id: int | str = 0, *, min_score: float = 0.0, several_labels: bool = True
                ) -> list[dict[str, Any]]:
        """COCO results, which `COCO.loadRes` reads: one entry per object, else one per segment; all by default.

        Args:
            image_id: of the picture in its data set.
            min_score: see `kept`.
            several_labels: see `kept`.
        """
        shown = self.kept(min_score=min_score, several_labels=several_labels)
        return [coco_entry(one, image_id, self.origin.classes) for one in everything(shown)]

    def to_supervision(self, *, min_score: float = 0.0, several_labels: bool = True) -> Any:
        """`supervision.Detections` of the objects, else of the segments, with `data['class_name']`; all by default.

        Args:
            min_score: see `kept`.
            several_labels: see `kept`.

        Raises:
            MissingPackage: supervision is not installed.
        """
        detections = require('supervision', 'results as supervision.Detections').Detections
        found = everything(self.kept(min_score=min_score, several_labels=several_labels))
        if not found:
            return detections.empty()
        masks = [one.mask for one in found if one.mask is not None]
        names = [entry.name for entry in self.origin.classes]
        scores = [one.score for one in found]
        tracks = [one.track for one in found]
        return detections(
            xyxy=np.array([one.box for one in found], np.float32), mask=np.stack(masks) if masks else None,
            confidence=None if None in scores else np.array(scores, np.float32),
            class_id=np.array([one.label for one in found], int),
            tracker_id=None if None in tracks else np.array(tracks, int),
            data={'class_name': np.array([names[one.label] for one in found])})

    def summary(self, *, min_score: float | None = None) -> str:
        """One line: what the drawing shows, and how much scores too low for it."""
        shown = self.kept(min_score=min_score)
        boxes = 'pred_instances' in self and 'masks' not in self.pred_instances
        text = names_and_scores(objects(shown) if boxes else segments(shown), self.classes)
        below = '' if self.origin.selected else left_out(self, min_score)
        return f'{text} ({below})' if below else text

    def __len__(self) -> int:
        return len(self.pred_instances) if 'pred_instances' in self else len(segment_map(self)[1])

    def __repr__(self) -> str:
        if self._origin is None:
            return super().__repr__()
        kind = ('masks' if 'masks' in self.pred_instances else 'boxes') if 'pred_instances' in self else \
            'segments' if 'pred_panoptic_seg' in self else 'classes'
        height, width = self.ori_shape
        shown = self.kept()
        cut = '' if self.origin.selected or 'pred_instances' not in self else f', {len(shown)} of at least {MIN_SCORE}'
        return (f'<{type(self).__name__} of {self.origin.image.name} ({width}x{height}): {len(self)} {kind}{cut}: '
                f'{names_and_scores(everything(shown), self.classes)}>')


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, whose pages show pictures."""
    import sys
    shell = sys.modules.get('IPython')
    return shell is not None and type(shell.get_ipython()).__name__ == 'ZMQInteractiveShell'
