"""The files of a run: drawings, and beside them one file per format, which the format's own readers open."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from frozenmm.apis.coco_entries import Id, coco_annotation, coco_categories, coco_entry, panoptic_annotation
from frozenmm.apis.entry_files import EntryFile, stored_entries
from frozenmm.apis.found import Found, objects, segments
from frozenmm.apis.label_pictures import class_colours, label_png, legend_csv, picture_bytes
from frozenmm.apis.result_tables import ResultTables
from frozenmm.apis.results import Result
from frozenmm.apis.video_files import clip_name
from frozenmm.compat.files import whole_file, write_whole
from frozenmm.compat.image_sources import NamedImage
from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.foundation.vocabulary import VocabularyClass
from frozenmm.visualization.segment_map import segment_map

LINES, DETECTIONS, PANOPTIC = 'results.jsonl', 'coco_results.json', 'panoptic.json'
IMAGES, ANNOTATIONS, LEGEND, MAPS = 'coco_images.json', 'coco_annotations.json', 'semantic_classes.csv', 'semantic'


class ResultFiles:
    """Writes the results of pictures into a folder; the files of the run appear when its `with` block ends.

    `NAME_overlay.png` is the drawing. `results.jsonl` has a line per picture. `coco_results.json` holds boxes and masks
    as `COCO.loadRes` reads them, for the pictures and categories of `coco_images.json`; `coco_annotations.json` holds
    the same as annotations, to correct in a labelling tool and to train on, with categories from 1 on.
    `panoptic.json` and the folder `panoptic` are COCO's panoptic format. `semantic` holds label maps with a palette,
    whose values `semantic_classes.csv` explains. All results of a video are in `NAME_results.jsonl`, a line per frame.

    A block that an error or the user ends leaves whole files of the pictures that were done. A further block with the
    same tables adds to the files, and replaces pictures of the same names.

    Args:
        tables: of the folder, which is made if it is not there.

    Attributes:
        files: what is written so far.
    """

    def __init__(self, tables: ResultTables) -> None:
        self.tables, self.folder = tables, tables.folder
        self.files: list[Path] = []
        self._entries: dict[str, EntryFile] = {}
        self._done: set[Id] = set()
        self._legend = self._clip = ''

    def __enter__(self) -> ResultFiles:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if not isinstance(error, OSError):  # a full disk has no room for these either
                self._end_clip()
                with self.tables.lock:  # another run may end at the same time
                    self._finish()
        finally:
            for entries in self._entries.values():
                entries.close()

    def draw(self, image: NamedImage, drawing: np.ndarray) -> None:
        """Write the drawing (H', W', 3) uint8 RGB of a picture."""
        self._write(f'{image.name}_overlay.png', picture_bytes(drawing))

    def add(self, image: NamedImage, result: Result) -> None:
        """Add a result, of which everything counts.

        Raises:
            UserError: the picture is not in the annotation file, or the classes are not those of the other pictures.
        """
        if not image.frames_per_second or clip_name(image) != self._clip:
            self._end_clip()
        if image.frames_per_second:
            self._add_frame(image, result, self.tables.numbered(result.origin.classes))
            return
        classes = self.tables.known(result.origin.classes, begun=bool(self._done))
        entry = self.tables.registered(image, result.ori_shape)
        key = entry['id']
        line = dict(image_id=key, **{name: value for name, value in entry.items() if name != 'id'})
        if 'pred_instances' in result:
            found = objects(result)
            line['objects'] = [_short(one, classes) for one in sorted(found, key=lambda one: -(one.score or 0))]
            entries = self._file(DETECTIONS, between=',\n', after='\n]\n')
            for one in found:
                entries.add(coco_entry(one, key, classes))
        if 'pred_panoptic_seg' in result:
            found = segments(result)
            line['segments'] = [_short(one, classes) for one in found]
            name = f'{PANOPTIC.removesuffix(".json")}/{image.name}.png'
            self._write(name, picture_bytes(segment_colours(segment_map(result)[0])))
            self._file(PANOPTIC, between=',\n', after='\n]}\n').add(
                panoptic_annotation(found, key, Path(name).name, classes))
        if 'pred_sem_seg' in result:
            line['classes'] = self._add_labels(image, result.pred_sem_seg.sem_seg[0].cpu().numpy(), classes)
        self._file(LINES).add(line)
        self._done.add(key)

    def _add_labels(self, image: NamedImage, labels: np.ndarray, classes: Sequence[VocabularyClass]
                    ) -> list[dict[str, Any]]:
        self._write(f'{MAPS}/{image.name}.png', label_png(labels, class_colours(classes)))
        self._legend = legend_csv(classes)
        return [dict(category_id=entry.id, name=entry.name, pixels=int((labels == label).sum()))
                for label, entry in enumerate(classes) if (labels == label).any()]

    def _add_frame(self, image: NamedImage, result: Result, classes: Sequence[VocabularyClass]) -> None:
        """A line of a clip's own file, with all that was found."""
        line: dict[str, Any] = dict(video=Path(image.path).name, frame=image.frame,
                                    time_s=image.frame / image.frames_per_second)
        if 'pred_instances' in result:
            line['objects'] = [coco_entry(one, None, classes) for one in objects(result)]
        if 'pred_panoptic_seg' in result or 'pred_sem_seg' in result:
            key = 'segments' if 'pred_panoptic_seg' in result else 'classes'
            line[key] = [coco_entry(one, None, classes) for one in segments(result)]
        self._clip = clip_name(image)
        self._file(f'{self._clip}_{LINES}').add(line)

    def _end_clip(self) -> None:
        entries = self._entries.pop(f'{self._clip}_{LINES}', None)
        if entries is not None:
            entries.finish()
            entries.close()
            self.files.append(entries.path)

    def _file(self, name: str, **signs: str) -> EntryFile:
        if name not in self._entries:
            self._entries[name] = EntryFile(self.folder / name, **signs)
        return self._entries[name]

    def _write(self, name: str, content: bytes | str) -> None:
        write_whole(self.folder / name, content)
        self.files.append(self.folder / name)

    def _finish(self) -> None:
        if not self._done:
            return
        categories, images = coco_categories(self.tables.classes), self.tables.images
        for name, entries in self._entries.items():
            before = '[\n' if name == DETECTIONS else ''
            if name == PANOPTIC:
                before = (f'{{"categories": {json.dumps(categories)},\n"images": {json.dumps(images)},\n'
                          '"annotations": [\n')
            entries.finish(before, without=self._done if self.tables.written else None)
            self.files.append(entries.path)
        if DETECTIONS in self._entries:
            self._write(IMAGES, json.dumps(dict(info={}, images=images, annotations=[], categories=categories)))
            self._write_annotations(images, categories)
        if self._legend:
            self._write(LEGEND, self._legend)
        self.tables.written = True

    def _write_annotations(self, images: list[dict[str, Any]], categories: list[dict[str, Any]]) -> None:
        # labelling tools take category 0 for the background, and its annotations lose their label
        shift = int(any(entry['id'] == 0 for entry in categories))
        categories = [entry | dict(id=entry['id'] + shift) for entry in categories]
        with whole_file(self.folder / ANNOTATIONS) as part, part.open('w', encoding='utf-8') as file:
            file.write(f'{{"info": {{}}, "images": {json.dumps(images)},\n"categories": {json.dumps(categories)},\n'
                       '"annotations": [\n')
            for number, entry in enumerate(stored_entries(self.folder / DETECTIONS), start=1):
                entry['category_id'] += shift
                file.write(',\n' * (number > 1) + json.dumps(coco_annotation(entry, number)))
            file.write('\n]}\n')
        self.files.append(self.folder / ANNOTATIONS)


def _short(one: Found, classes: Sequence[VocabularyClass]) -> dict[str, Any]:
    """An entry for a reader: name, score and box."""
    x1, y1, x2, y2 = one.box
    entry = dict(category_id=classes[one.label].id, name=classes[one.label].name, score=one.score,
                 bbox=[x1, y1, x2 - x1, y2 - y1])
    return entry if one.mask is None else entry | dict(pixels=int(one.size))
