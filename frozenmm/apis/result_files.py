"""The files of a run: drawings, and beside them one file per format, which the format's own readers open."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from mmengine.logging import print_log

from frozenmm.apis.coco_entries import AnnotationIds, Id, coco_categories, coco_entry, panoptic_annotation
from frozenmm.apis.entry_files import EntryFile
from frozenmm.apis.found import Found, objects, segments
from frozenmm.apis.label_pictures import class_colours, label_png, legend_csv, picture_bytes
from frozenmm.apis.results import Result
from frozenmm.apis.video_files import clip_name
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_sources import NamedImage
from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import VocabularyClass
from frozenmm.visualization.segment_map import segment_map

LINES, DETECTIONS, PANOPTIC = 'results.jsonl', 'coco_results.json', 'panoptic.json'
IMAGES, LEGEND, MAPS = 'coco_images.json', 'semantic_classes.csv', 'semantic'


class ResultFolder:
    """Writes the results of pictures into a folder; the files of a run appear when its `with` block ends.

    `NAME_overlay.png` is the drawing. `results.jsonl` has a line per picture. `coco_results.json` holds boxes and masks
    as `COCO.loadRes` reads them, for the pictures and categories of `coco_images.json`. `panoptic.json` and the folder
    `panoptic` are COCO's panoptic format. `semantic` holds label maps with a palette, whose values
    `semantic_classes.csv` explains. All results of a video are in `NAME_results.jsonl`, a line per frame.

    A block that an error or the user ends leaves whole files of the pictures that were done. A further block adds to
    the files, and replaces pictures of the same names.

    Args:
        folder: made if it is not there.
        annotations: whose ids pictures and categories get. Else a picture's id is its name where that is a number
            (`000000000139.jpg`), and a running number where not.
    """

    def __init__(self, folder: Path, annotations: AnnotationIds | None = None) -> None:
        self.folder = folder
        self.annotations = annotations
        self.files: list[Path] = []
        self._images: dict[str, dict[str, Any]] = {}
        self._classes: dict[int, VocabularyClass] = {}
        self._paths: dict[str, str] = {}
        self._unnamed = self._last = 0
        self._taken: set[Id] = set()
        self._earlier = False
        self._legend = ''
        self._clip = ''
        self._entries: dict[str, EntryFile] = {}
        self._done: set[Id] = set()

    def named(self, image: NamedImage) -> NamedImage:
        """The picture under a name that no other one has in this folder; arrays are numbered through all blocks."""
        name, number = image.name, 1
        if not image.path:
            name = f'image_{self._unnamed:04d}'
            self._unnamed += 1
        while name in self._paths and (not image.path or self._paths[name] != image.path):
            number += 1
            name = f'{image.name}_{number}'
        self._paths[name] = image.path
        return replace(image, name=name)

    def __enter__(self) -> ResultFolder:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files, self._entries, self._done = [], {}, set()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if self._done and not isinstance(error, OSError):  # a full disk has no room for these either
                self._finish()
        finally:
            for entries in self._entries.values():
                entries.close()

    def draw(self, image: NamedImage, drawing: np.ndarray) -> Path:
        """Write the drawing (H', W', 3) uint8 RGB of a picture."""
        return self._write(f'{image.name}_overlay.png', picture_bytes(drawing))

    def add(self, image: NamedImage, result: Result) -> None:
        """Add a result, of which everything counts.

        Raises:
            UserError: the picture is not in the annotation file, or the classes are not those of the other pictures.
        """
        classes = self._known(result.origin.classes)
        if not image.frames_per_second or f'{clip_name(image)}_results.jsonl' != self._clip:
            self._end_clip()
        if image.frames_per_second:
            self._add_frame(image, result, classes)
            return
        key = self._register(image, result.ori_shape)
        line = dict(image_id=key, **{name: value for name, value in self._images[image.name].items() if name != 'id'})
        if 'pred_instances' in result:
            found = objects(result)
            line['objects'] = [_short(one, classes) for one in sorted(found, key=lambda one: -(one.score or 0))]
            entries = self._file(DETECTIONS, between=',\n', after='\n]\n')
            for one in found:
                entries.add(coco_entry(one, key, classes))
        if 'pred_panoptic_seg' in result:
            found = segments(result)
            line['segments'] = [_short(one, classes) for one in found]
            ids = segment_colours(segment_map(result)[0])
            name = self._write(f'{PANOPTIC.removesuffix(".json")}/{image.name}.png', picture_bytes(ids)).name
            self._file(PANOPTIC, between=',\n', after='\n]}\n').add(panoptic_annotation(found, key, name, classes))
        if 'pred_sem_seg' in result:
            labels = result.pred_sem_seg.sem_seg[0].cpu().numpy()
            line['classes'] = [dict(category_id=entry.id, name=entry.name, pixels=int((labels == label).sum()))
                               for label, entry in enumerate(classes) if (labels == label).any()]
            self._write(f'{MAPS}/{image.name}.png', label_png(labels, class_colours(classes)))
            self._legend = legend_csv(classes)
        self._file(LINES).add(line)
        self._done.add(key)

    def _add_frame(self, image: NamedImage, result: Result, classes: Sequence[VocabularyClass]) -> None:
        """A line of a clip's own file, with all that was found."""
        line: dict[str, Any] = dict(video=Path(image.path).name, frame=image.frame,
                                    time_s=image.frame / image.frames_per_second)
        if 'pred_instances' in result:
            line['objects'] = [coco_entry(one, None, classes) for one in objects(result)]
        if 'pred_panoptic_seg' in result or 'pred_sem_seg' in result:
            key = 'segments' if 'pred_panoptic_seg' in result else 'classes'
            line[key] = [coco_entry(one, None, classes) for one in segments(result)]
        self._clip = f'{clip_name(image)}_results.jsonl'
        self._file(self._clip).add(line)
        self._done.add(self._clip)

    def _end_clip(self) -> None:
        if self._clip in self._entries:
            entries = self._entries.pop(self._clip)
            entries.finish()
            entries.close()
            self.files.append(entries.path)

    def _file(self, name: str, **signs: str) -> EntryFile:
        if name not in self._entries:
            self._entries[name] = EntryFile(self.folder / name, **signs)
        return self._entries[name]

    def _write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        write_whole(path, content)
        self.files.append(path)
        return path

    def _known(self, classes: Sequence[VocabularyClass]) -> Sequence[VocabularyClass]:
        """The classes with the ids of the annotations, noted as categories of this folder."""
        if self.annotations is not None:
            classes = self.annotations.applied(classes)
        known = [self._classes.get(entry.id or 0, entry) for entry in classes]
        strange = next((entry.name for entry, other in zip(classes, known) if entry.name != other.name), None)
        if strange is not None and self._done:
            raise UserError(f'{strange!r} has the category id of another class of the pictures before; give every '
                            'vocabulary a folder of its own')
        if strange is not None:
            print_log(f'{self.folder}: the results of {len(self._images)} earlier pictures, of other classes, are '
                      'replaced', logger='current')
            self._images, self._classes, self._taken, self._earlier = {}, {}, set(), False
        self._classes |= {entry.id or 0: entry for entry in classes}
        return classes

    def _register(self, image: NamedImage, size: tuple[int, int]) -> Id:
        """The id of a picture, which is entered into the table of pictures."""
        entry = self._images.get(image.name)
        if entry is None:
            number, name = self._new_id(image)
            self._taken.add(number)
            entry = self._images[image.name] = dict(id=number, name=image.name, file_name=name)
        entry |= dict(height=int(size[0]), width=int(size[1]))
        return entry['id']

    def _new_id(self, image: NamedImage) -> tuple[Id, str]:
        if self.annotations is not None:
            return self.annotations.image_id(image)
        name = Path(image.path).name or image.name
        if image.name.isascii() and image.name.isdecimal() and int(image.name) not in self._taken:
            return int(image.name), name
        self._last += 1
        while self._last in self._taken:
            self._last += 1
        return self._last, name

    def _finish(self) -> None:
        self._end_clip()
        without = self._done if self._earlier else None
        categories = coco_categories(list(self._classes.values()))
        images = list(self._images.values())
        for name, entries in self._entries.items():
            before = '[\n' if name == DETECTIONS else ''
            if name == PANOPTIC:
                before = (f'{{"categories": {json.dumps(categories)},\n"images": {json.dumps(images)},\n'
                          '"annotations": [\n')
            entries.finish(before, without=without)
            self.files.append(entries.path)
        if DETECTIONS in self._entries:
            self._write(IMAGES, json.dumps(dict(info={}, images=images, annotations=[], categories=categories)))
        if self._legend:
            self._write(LEGEND, self._legend)
        self._earlier = True


def _short(one: Found, classes: Sequence[VocabularyClass]) -> dict[str, Any]:
    """An entry for a reader: name, score and box."""
    x1, y1, x2, y2 = one.box
    entry = dict(category_id=classes[one.label].id, name=classes[one.label].name, score=one.score,
                 bbox=[x1, y1, x2 - x1, y2 - y1])
    if one.track is not None:
        entry['track_id'] = one.track
    return entry if one.mask is None else entry | dict(pixels=int(one.size))
