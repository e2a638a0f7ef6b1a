"""Generated scenes on disk, in COCO layout: images, instance and panoptic annotations.

Every image depends on the seed, its split and its number alone, so an interrupted run goes on where it stopped and
gives the same files. The annotation files are written last; a folder that has them is complete.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.demo.painted_folder import SPLITS, PaintedFolder, check_split, settings_from
from frozenmm.demo.scenes.cutouts import CLASSES
from frozenmm.demo.scenes.painter import Scene, paint
from frozenmm.errors import UserError

VERSION = 1
"""Raised whenever the same settings would give other pictures."""
_GROUND = len(CLASSES) + 1


@dataclass(frozen=True)
class SceneSettings:
    """What decides the content of a folder of scenes.

    Attributes:
        train: number of training images.
        val: number of test images, on grounds and under lights that never occur in training.
        size: side of the square images in pixels.
        objects: smallest and largest number of objects in an image.
        seed: everything random follows from it.
    """

    train: int = 100
    val: int = 200
    size: int = 160
    objects: tuple[int, int] = (3, 6)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.val) < 1:
            raise UserError(f'train and val must be at least 1, got {self.train} and {self.val}')
        if self.size < 64:
            raise UserError(f'size must be at least 64 pixels, got {self.size}')
        if not 1 <= self.objects[0] <= self.objects[1] <= 200:
            raise UserError(f'objects must be 1 <= smallest <= largest <= 200, got {self.objects}')


def _painted(folder: str | Path, settings: SceneSettings) -> PaintedFolder:
    return PaintedFolder(folder, 'scenes', settings, version=VERSION)


def write_scenes(folder: str | Path, settings: SceneSettings = SceneSettings()) -> Path:
    """Make the scenes in a folder, or whatever is missing of them.

    Args:
        folder: gets `images/{train,val}/*.jpg`, `panoptic_{train,val}/*.png` and
            `annotations/{instances,panoptic}_{train,val}.json`.
        settings: number, size, seed.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds scenes made with other settings.
    """
    scenes = _painted(folder, settings)
    if scenes.is_complete():
        return scenes.folder
    jobs = [(split, index) for split in SPLITS for index in range(getattr(settings, split))]
    scenes.paint(jobs, lambda job: _record_path(scenes.folder, *job).is_file(),
                 lambda job: _write_scene(scenes.folder, *job, settings))
    for split in SPLITS:
        _join(scenes.folder, split, getattr(settings, split))
    return scenes.finish()


def make_scenes(data_root: str | Path, settings: Mapping[str, Any] | None = None) -> None:
    """Paint the scenes that a folder lacks. Several processes may do so at once: they write the same files.

    Args:
        data_root: the folder.
        settings: fields of `SceneSettings` that differ from their defaults.
    """
    write_scenes(data_root, settings_from(SceneSettings, settings))


def require_scenes(data_root: str | Path, split: str, settings: Mapping[str, Any] | None = None) -> None:
    """Check that a folder holds the scenes of these settings.

    Raises:
        MissingFile: it holds none; the text gives the command that paints them.
        UserError: unknown split; or scenes of other settings.
    """
    check_split(split)
    _painted(data_root, settings_from(SceneSettings, settings)).require()


def _name(split: str, index: int) -> str:
    return f'{split}_{index:05d}'


def _record_path(folder: Path, split: str, index: int) -> Path:
    return folder / 'records' / f'{_name(split, index)}.json'


def _write_scene(folder: Path, split: str, index: int, settings: SceneSettings) -> None:
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    scene = paint(split, settings.size, settings.objects, rng)
    name = _name(split, index)
    write_whole(folder / 'images' / split / f'{name}.jpg',
                cv2.imencode('.jpg', scene.image, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes())
    # COCO's panoptic maps hold the segment id as R + 256 G + 65536 B, and 0 is "no segment"
    panoptic = np.zeros((*scene.segments.shape, 3), np.uint8)
    panoptic[..., 2] = scene.segments + 1
    write_whole(folder / f'panoptic_{split}' / f'{name}.png', cv2.imencode('.png', panoptic)[1].tobytes())
    write_whole(_record_path(folder, split, index), json.dumps(_record(scene, name, index)).encode())


def _record(scene: Scene, name: str, index: int) -> dict:
    """Image entry and segments of a scene, boxes xywh and run lengths of the visible pixels."""
    encode = require('pycocotools.mask', 'the generated scenes').encode
    height, width = scene.segments.shape
    segments = [{'id': 1, 'category_id': _GROUND, 'area': int((scene.segments == 0).sum()), 'iscrowd': 0,
                 'bbox': _box(scene.segments == 0)}]
    masks = []
    for number, label in enumerate(scene.labels, start=1):
        mask = scene.segments == number
        segments.append({'id': number + 1, 'category_id': CLASSES.index(label) + 1, 'area': int(mask.sum()),
                         'iscrowd': 0, 'bbox': _box(mask)})
        run_lengths = encode(np.asfortranarray(mask.astype(np.uint8)))
        masks.append({'size': [height, width], 'counts': run_lengths['counts'].decode()})
    return {
        'image': {'id': index, 'file_name': f'{name}.jpg', 'width': width, 'height': height, 'texture': scene.texture,
                  'light': scene.light},
        'segments': segments,
        'masks': masks,
    }


def _box(mask: np.ndarray) -> list[int]:
    return list(cv2.boundingRect(mask.astype(np.uint8)))


def _join(folder: Path, split: str, count: int) -> None:
    """The two annotation files of a split from the records of its images."""
    records = [json.loads(_record_path(folder, split, index).read_text()) for index in range(count)]
    images = [record['image'] for record in records]
    things = [{'id': i, 'name': name, 'supercategory': 'object', 'isthing': 1} for i, name in enumerate(CLASSES, 1)]
    ground = {'id': _GROUND, 'name': 'ground', 'supercategory': 'stuff', 'isthing': 0}
    instances: list[dict] = []
    panoptic: list[dict] = []
    for record in records:
        image = record['image']
        panoptic.append({'image_id': image['id'], 'file_name': image['file_name'].replace('.jpg', '.png'),
                         'segments_info': record['segments']})
        for segment, mask in zip(record['segments'][1:], record['masks'], strict=True):
            instances.append({**segment, 'id': len(instances) + 1, 'image_id': image['id'], 'segmentation': mask})
    info = {'description': 'generated scenes of frozenmm, from photographs bundled with scikit-image'}
    for kind, entries, categories in (('instances', instances, things), ('panoptic', panoptic, [*things, ground])):
        content = {'info': info, 'images': images, 'annotations': entries, 'categories': categories}
        write_whole(folder / 'annotations' / f'{kind}_{split}.json', json.dumps(content).encode())
