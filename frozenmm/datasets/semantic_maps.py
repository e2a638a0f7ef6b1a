"""COCO annotations, by instance or panoptic, as semantic label maps."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from frozenmm.compat import require
from frozenmm.compat.files import whole_file, write_whole
from frozenmm.datasets.panoptic_files import read_panoptic_map
from frozenmm.errors import UserError, reading

CROWD = 255
KIND = 'a COCO annotation file'


def write_semantic_maps(annotations: str | Path, folder: str | Path, *, classes: Sequence[str],
                        category_ids: Sequence[int] | None = None, panoptic_folder: str | Path | None = None) -> Path:
    """Label maps of a COCO annotation file, one PNG per image; written once.

    Value k is the k-th class, 0 everything else, 255 crowds of a class. Where instances overlap, the smaller one is on
    top. Panoptic annotations never overlap.

    Args:
        annotations: `instances_*.json` or `panoptic_*.json`.
        folder: gets `<image stem>.png` and, last, `source.json`; a folder that has the right one is complete.
        classes: names, in the order of their values.
        category_ids: COCO category of every class; by default the category of its name.
        panoptic_folder: folder of the panoptic maps, for panoptic annotations.

    Returns:
        The folder.

    Raises:
        MissingFile: no annotation file, or a panoptic map is missing.
        UserError: a class that is no category, panoptic annotations without folder, a file in another format, or
            `folder` holds maps of another file or other classes.
    """
    annotations, folder = Path(annotations), Path(folder)
    with reading(annotations, KIND):
        text = annotations.read_bytes()
        content = json.loads(text)
        values = _values(content['categories'], classes, category_ids, annotations)
    source = dict(sha256=hashlib.sha256(text).hexdigest(), values={str(key): value for key, value in values.items()})
    if is_made_from(source, folder / 'source.json', 'label maps of other annotations or classes'):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    maps = _label_maps(content, values, annotations, None if panoptic_folder is None else Path(panoptic_folder))
    for stem, labels in maps:
        with whole_file(folder / f'{stem}.png') as part:
            Image.fromarray(labels).save(part, format='PNG')
    write_whole(folder / 'source.json', json.dumps(source))
    return folder


def is_made_from(content: object, record: Path, other: str) -> bool:
    """Whether a folder that we write is complete: its record, written last, has this content.

    Args:
        content: what the record should hold.
        record: its file.
        other: what a folder with another record holds, for the error.

    Raises:
        UserError: the record is damaged, or the folder was made of something else.
    """
    if not record.is_file():
        return False
    with reading(record, 'the record of what this folder was made of', 'delete the folder to make it again'):
        found = json.loads(record.read_text())
    if found != content:
        raise UserError(f'{record.parent.absolute()} holds {other}; delete it or choose another folder')
    return True


def _label_maps(content: dict, values: dict[int, int], path: Path,
                panoptic_folder: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Stem and map of every image; a failure to make one is the annotation file's."""
    with reading(path, KIND):
        print_log(f'making label maps for the {len(content["images"])} images of {path}', logger='current')
        segments = 'segments_info' in (content['annotations'] or [{}])[0]
    if segments and panoptic_folder is None:
        raise UserError(f'{path.name} is a panoptic file; give panoptic_folder, the folder of its maps')
    maps = _from_panoptic(content, values, panoptic_folder) if panoptic_folder and segments else _from_instances(
        content, values)
    while True:
        with reading(path, KIND):
            made = next(maps, None)
        if made is None:
            return
        yield made


def _values(categories: list[dict], classes: Sequence[str], category_ids: Sequence[int] | None,
            path: Path) -> dict[int, int]:
    """COCO category id to value in the label map."""
    if category_ids is None:
        by_name = {category['name']: category['id'] for category in categories}
        missing = [name for name in classes if name not in by_name]
        if missing:
            raise UserError(f'{path.name} has no categories {missing}; it has {list(by_name)[:8]}, ...')
        category_ids = [by_name[name] for name in classes]
    known = {category['id'] for category in categories}
    unknown = [number for number in category_ids if number not in known]
    if unknown or len(category_ids) != len(classes):
        raise UserError(f'category_ids must give one category of {path.name} for each of {len(classes)} classes; '
                         f'{len(category_ids)} came, of which {unknown} are unknown')
    return {number: value for value, number in enumerate(category_ids, start=1)}


def _from_panoptic(content: dict, values: dict[int, int], folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for annotation in content['annotations']:
        ids = read_panoptic_map(folder / annotation['file_name'])
        labels = np.zeros(ids.shape, np.uint8)
        for segment in annotation['segments_info']:
            value = values.get(segment['category_id'])
            if value is not None:
                labels[ids == segment['id']] = CROWD if segment.get('iscrowd') else value
        yield Path(annotation['file_name']).stem, labels


def _from_instances(content: dict, values: dict[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    mask_tools = require('pycocotools.mask', 'label maps from COCO instances')
    by_image: dict[int, list[dict]] = {}
    for annotation in content['annotations']:
        if annotation['category_id'] in values:
            by_image.setdefault(annotation['image_id'], []).append(annotation)
    for image in content['images']:
        height, width = image['height'], image['width']
        labels = np.zeros((height, width), np.uint8)
        # crowds lie below, then from large to small
        for annotation in sorted(by_image.get(image['id'], []), key=lambda a: (not a.get('iscrowd'), -a['area'])):
            outline = annotation['segmentation']
            if isinstance(outline, list):
                outline = mask_tools.merge(mask_tools.frPyObjects(outline, height, width))
            elif isinstance(outline['counts'], list):
                outline = mask_tools.frPyObjects(outline, height, width)
            mask = mask_tools.decode(outline).astype(bool)
            labels[mask] = CROWD if annotation.get('iscrowd') else values[annotation['category_id']]
        yield Path(image['file_name']).stem, labels
