"""Phrases and their masks: the RefCOCO family, Panoptic Narrative Grounding, and names of panoptic segments."""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement, PixelData

from frozenmm.compat.image_files import read_image_file
from frozenmm.compat.plain_pickle import loads
from frozenmm.datasets.panoptic_files import read_panoptic_file, read_panoptic_map
from frozenmm.errors import UserError, reading
from frozenmm.foundation.lookup import choice
from frozenmm.registry import DATASETS

Entry = dict[str, Any]
"""`picture`, its file; `phrases`; `masks`, for each phrase what `_mask` draws."""


def read_refcoco(refs: str | Path, instances: str | Path, split: str) -> list[Entry]:
    """The expressions of a split of RefCOCO, RefCOCO+ or RefCOCOg, a picture's together.

    Args:
        refs: `refs(unc).p`, `refs(umd).p` or `refs(google).p`, a pickle of plain values.
        instances: `instances.json` beside it.
        split: `'train'`, `'val'`, `'testA'`, ...

    Raises:
        UserError: unreadable files, an annotation that is not there, or a split without expressions.
    """
    with reading(refs, 'a file of referring expressions', 'fetch it again'):
        listed: Any = loads(Path(refs).read_bytes())
        chosen = [ref for ref in listed if ref['split'] == split]
        splits = sorted({ref['split'] for ref in listed})
    if not chosen:
        raise UserError(f'{refs} has no expressions of the split {split!r}; it has {splits}')
    with reading(instances, 'a file of instances', 'fetch it again'):
        content = json.loads(Path(instances).read_text(encoding='utf-8'))
        pictures = {entry['id']: entry for entry in content['images']}
        annotations = {entry['id']: entry for entry in content['annotations']}
        found: dict[int, Entry] = {}
        for ref in chosen:
            picture = pictures[ref['image_id']]
            entry = found.setdefault(ref['image_id'], dict(
                picture=picture['file_name'], size=(picture['height'], picture['width']), phrases=[], masks=[]))
            for sentence in ref['sentences']:
                entry['phrases'].append(sentence['sent'])
                entry['masks'].append(dict(polygons=annotations[ref['ann_id']]['segmentation']))
    return list(found.values())


def read_narratives(narratives: str | Path, panoptic: str | Path) -> list[Entry]:
    """The phrases of Panoptic Narrative Grounding that name segments, a narrative's together.

    Args:
        narratives: `png_coco_train2017.json` or that of val.
        panoptic: the panoptic annotation file of the same pictures.

    Raises:
        UserError: unreadable files, or no phrase with a segment.
    """
    maps = {picture.id: picture for picture in read_panoptic_file(panoptic).images}
    found = []
    with reading(narratives, 'a file of narratives', 'fetch it again'):
        for narrative in json.loads(Path(narratives).read_text(encoding='utf-8')):
            picture = maps[int(narrative['image_id'])]
            words: dict[tuple, list[str]] = defaultdict(list)
            for segment in narrative['segments']:
                ids = tuple(int(number) for number in segment['segment_ids'])
                if ids and segment.get('noun', True):
                    words[ids].append(segment['utterance'].strip())
            if words:
                found.append(dict(picture=picture.file_name, panoptic=picture.map_name,
                                  phrases=[' '.join(parts) for parts in words.values()],
                                  masks=[dict(segments=list(ids)) for ids in words]))
    if not found:
        raise UserError(f'{narratives} has no phrase that names a segment')
    return found


def read_panoptic_names(panoptic: str | Path) -> list[Entry]:
    """The names of the classes that each picture of a panoptic file shows, with all their segments."""
    content = read_panoptic_file(panoptic)
    names = {category.id: category.name for category in content.categories}
    found = []
    for picture in content.images:
        segments: dict[str, list[int]] = defaultdict(list)
        for segment in picture.segments:
            segments[names[segment.category_id]].append(segment.id)
        if segments:
            found.append(dict(picture=picture.file_name, panoptic=picture.map_name, phrases=list(segments),
                              masks=[dict(segments=ids) for ids in segments.values()]))
    return found


READERS = {'refcoco': read_refcoco, 'narratives': read_narratives, 'panoptic': read_panoptic_names}


@DATASETS.register_module()
class PhraseMasks(BaseDataset):
    """Pictures with phrases and a mask for each, as `frozenmm.FrozenLMMGrounder` takes them.

    Args:
        kind: `'refcoco'`, `'narratives'` or `'panoptic'`.
        files: arguments of that reader, paths below `data_root`: `dict(refs=..., instances=..., split=...)`,
            `dict(narratives=..., panoptic=...)` or `dict(panoptic=...)`.
        pictures: folder of the pictures below `data_root`.
        panoptic_folder: folder of the panoptic maps below `data_root`.
        data_root: see above.
        indices: see mmengine.
        most: phrases of a picture in training; the first ones.
        test_mode: see mmengine; all phrases of a picture.

    Raises:
        UserError: unknown kind, unreadable files, or a picture of another size than its masks.
    """

    def __init__(self, kind: str, files: Mapping[str, str], *, pictures: str, panoptic_folder: str = '',
                 data_root: str = '', indices: int | Sequence[int] | None = None, most: int = 8,
                 test_mode: bool = False) -> None:
        self.kind, self.files, self.most = choice('kind', kind, list(READERS)), dict(files), most
        self.pictures, self.panoptic_folder = pictures, panoptic_folder
        super().__init__(data_root=data_root, indices=indices, test_mode=test_mode, serialize_data=False)

    def _join_prefix(self) -> None:
        """Paths are joined when they are read."""

    def load_data_list(self) -> list[Entry]:
        """An entry for each picture."""
        root = Path(self.data_root)
        paths = {key: value if key == 'split' else root / value for key, value in self.files.items()}
        return READERS[self.kind](**paths)  # type: ignore[operator]

    def prepare_data(self, idx: int) -> Entry:
        """`inputs`, the picture (3, H, W) RGB uint8, and `data_samples` with phrases and masks."""
        entry, root = self.get_data_info(idx), Path(self.data_root)
        path = root / self.pictures / entry['picture']
        picture = torch.from_numpy(np.ascontiguousarray(read_image_file(path).transpose(2, 0, 1)))
        count = len(entry['phrases']) if self.test_mode else self.most
        labels = None
        if 'panoptic' in entry:
            labels = read_panoptic_map(root / self.panoptic_folder / entry['panoptic'])
        masks = np.stack([_mask(mask, labels, entry.get('size')) for mask in entry['masks'][:count]])
        if masks.shape[1:] != picture.shape[1:]:
            raise UserError(f'{path} is {tuple(picture.shape[1:])} pixels, its masks are {masks.shape[1:]}; picture '
                            'and annotation must be of one data set')
        sample = BaseDataElement(metainfo=dict(phrases=entry['phrases'][:count], img_path=str(path),
                                               ori_shape=tuple(picture.shape[1:])))
        sample.set_data(dict(gt_phrase_masks=PixelData(data=torch.from_numpy(masks))))
        return dict(inputs=picture, data_samples=sample)


def _mask(mask: Mapping[str, Any], labels: np.ndarray | None, size: tuple[int, int] | None) -> np.ndarray:
    """(H, W) bool from segments of a panoptic map, or from polygons or run lengths of COCO."""
    if labels is not None:
        return np.isin(labels, mask['segments'])
    from pycocotools import mask as coco
    height, width = size or (0, 0)
    given = mask['polygons']
    if isinstance(given, list):
        given = coco.merge(coco.frPyObjects(given, height, width))
    elif isinstance(given['counts'], list):
        given = coco.frPyObjects(given, height, width)
    return coco.decode(given).astype(bool)
