"""Generated scenes on disk, in COCO layout: images, instance and panoptic annotations.

Every image depends on the seed, its split and its number alone, so an interrupted run goes on where it stopped and
gives the same files. The annotation files are written last; a folder that has them is complete.
"""
from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.demo.scenes.cutouts import CLASSES
from frozenmm.demo.scenes.painter import Scene, paint

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
            raise ValueError(f'train and val must be at least 1, got {self.train} and {self.val}')
        if self.size < 64:
            raise ValueError(f'size must be at least 64 pixels, got {self.size}')
        if not 1 <= self.objects[0] <= self.objects[1] <= 200:
            raise ValueError(f'objects must be 1 <= smallest <= largest <= 200, got {self.objects}')


def write_scenes(folder: str | Path, settings: SceneSettings = SceneSettings()) -> Path:
    """Make the scenes in a folder, or whatever is missing of them.

    Args:
        folder: gets `images/{train,val}/*.jpg`, `panoptic_{train,val}/*.png` and
            `annotations/{instances,panoptic}_{train,val}.json`.
        settings: number, size, seed.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds scenes made with other settings.
    """
    folder = Path(folder)
    # through JSON and back, so that tuples compare equal to what the file gives
    wanted = json.loads(json.dumps({'version': VERSION, **asdict(settings)}))
    manifest = folder / 'scenes.json'
    if manifest.is_file():
        found = json.loads(manifest.read_text())
        if found['settings'] != wanted:
            raise ValueError(f'{folder} holds scenes made with {found["settings"]}, but {wanted} is asked for; remove '
                             'the folder or name another one')
        if found['complete']:
            return folder
    write_whole(manifest, json.dumps({'settings': wanted, 'complete': False}, indent=1).encode())
    jobs = [(split, index) for split in ('train', 'val') for index in range(getattr(settings, split))]
    missing = [job for job in jobs if not _record_path(folder, *job).is_file()]
    start = time.perf_counter()
    for done, (split, index) in enumerate(missing):
        if done % 100 == 0:
            left = f', {(time.perf_counter() - start) / done * (len(missing) - done):.0f} s left' if done else ''
            painted = len(jobs) - len(missing) + done
            print_log(f'{folder}: {painted} of {len(jobs)} scenes painted{left}', logger='current')
        _write_scene(folder, split, index, settings)
    for split in ('train', 'val'):
        _join(folder, split, getattr(settings, split))
    write_whole(manifest, json.dumps({'settings': wanted, 'complete': True}, indent=1).encode())
    return folder


def _name(split: str, index: int) -> str:
    return f'{split}_{index:05d}'


def _record_path(folder: Path, split: str, index: int) -> Path:
    return folder / 'records' / f'{_name(split, index)}.json'


def _write_scene(folder: Path, split: str, index: int, settings: SceneSettings) -> None:
    rng = np.random.default_rng([settings.seed, ('train', 'val').index(split), index])
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
    instances, panoptic = [], []
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
