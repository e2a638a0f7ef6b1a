"""Which pictures and categories the files of a folder speak of, and by which ids."""
from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from frozenmm.apis.coco_entries import AnnotationIds, Id
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import VocabularyClass


class ResultTables:
    """Pictures and categories of a folder, through all runs of one inferencer that write there.

    Args:
        folder: the folder.
        annotations: whose ids pictures and categories get. Else a picture's id is its name where that is a number
            (`000000000139.jpg`), and a running number where not.

    Attributes:
        lock: for whoever writes files of the folder.
        written: whether a run of this inferencer has written such files.
    """

    def __init__(self, folder: Path, annotations: AnnotationIds | None = None) -> None:
        self.folder = folder
        self.annotations = annotations
        self.lock = threading.RLock()
        self.written = False
        self._images: dict[str, dict[str, Any]] = {}
        self._classes: dict[int, VocabularyClass] = {}
        self._ids: set[Id] = set()
        self._paths: dict[str, str] = {}
        self._unnamed = self._last = 0

    @property
    def images(self) -> list[dict[str, Any]]:
        """`images` of a COCO file."""
        return list(self._images.values())

    @property
    def classes(self) -> list[VocabularyClass]:
        """All classes of the pictures, with their category ids."""
        return list(self._classes.values())

    def named(self, image: NamedImage) -> NamedImage:
        """The picture under a name that no other one has in this folder; arrays are numbered through all runs."""
        with self.lock:
            name, number = image.name, 1
            if not image.path:
                name = f'image_{self._unnamed:04d}'
                self._unnamed += 1
            while name in self._paths and (not image.path or self._paths[name] != image.path):
                number += 1
                name = f'{image.name}_{number}'
            self._paths[name] = image.path
        return replace(image, name=name)

    def numbered(self, classes: Sequence[VocabularyClass]) -> Sequence[VocabularyClass]:
        """The classes with the ids of the annotations."""
        return classes if self.annotations is None else self.annotations.applied(classes)

    def known(self, classes: Sequence[VocabularyClass], *, begun: bool) -> Sequence[VocabularyClass]:
        """The classes with the ids of the annotations, noted as categories of this folder.

        Args:
            classes: of a result.
            begun: its run has results in the files already.

        Raises:
            UserError: an id belongs to another class in the results of this run.
        """
        classes = self.numbered(classes)
        with self.lock:
            strange = next((entry.name for entry in classes
                            if self._classes.get(entry.id or 0, entry).name != entry.name), None)
            if strange is not None and begun:
                raise UserError(f'{strange!r} has the category id of another class of the pictures before; give every '
                                'vocabulary a folder of its own')
            if strange is not None:
                print_log(f'{self.folder}: the results of {len(self._images)} earlier pictures, of other classes, are '
                          'replaced', logger='current')
                self._images, self._classes, self._ids, self.written = {}, {}, set(), False
            self._classes |= {entry.id or 0: entry for entry in classes}
        return classes

    def registered(self, image: NamedImage, size: tuple[int, int]) -> dict[str, Any]:
        """The entry of a picture in `images`: `id`, `name`, `file_name`, `height`, `width`.

        Raises:
            UserError: it is not in the annotation file.
        """
        with self.lock:
            if image.name not in self._images:
                number, file_name = self._new_id(image)
                self._ids.add(number)
                self._images[image.name] = dict(id=number, name=image.name, file_name=file_name)
            self._images[image.name] |= dict(height=int(size[0]), width=int(size[1]))
            return self._images[image.name]

    def _new_id(self, image: NamedImage) -> tuple[Id, str]:
        if self.annotations is not None:
            return self.annotations.image_id(image)
        name = Path(image.path).name or image.name
        if image.name.isascii() and image.name.isdecimal() and int(image.name) not in self._ids:
            return int(image.name), name
        self._last += 1
        while self._last in self._ids:
            self._last += 1
        return self._last, name
