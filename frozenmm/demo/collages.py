"""Collages as an mmdet data set: made when the data set is built, kept in memory, never written."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from frozenmm.demo.painted_folder import SPLITS, check_split
from frozenmm.demo.scenes.collage import Collage, CollageSource, compose
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import DATASETS

VOID = 255


@DATASETS.register_module()
class Collages(BaseDetDataset):
    """Pictures of pasted things on clutter, with instances and semantic maps; pipelines begin after loading.

    The last class of the vocabulary is the ground. Training pictures show none of the unseen things at all, and are
    made of cut-outs and stuff of the training split. Test pictures show seen things of the other split; of unseen
    things, which training cannot know, those of both.

    Args:
        source: folder of a panoptic data set, see `CollageSource`.
        split: `'train'` or `'val'`.
        vocabulary: things and the ground, in label order; the first word of a thing is its category's name. A class
            without any cut-out never occurs.
        unseen: names of things that training does not show.
        count: number of pictures.
        size: their side in pixels.
        objects: smallest and largest number of things in a picture.
        seed: everything random follows from it, the split and a picture's number.
        **kwargs: for `mmdet.datasets.BaseDetDataset`: `pipeline`, `test_mode`, `indices`, ...

    Raises:
        MissingFile, UserError: the source is not usable; an unknown split; an unseen name that is no thing of
            the vocabulary.
    """

    pictures_in_memory = True

    def __init__(self, source: str, split: str, *, vocabulary: VocabularySource, unseen: Sequence[str] = (),
                 count: int = 200, size: int = 192, objects: Sequence[int] = (3, 6), seed: int = 0,
                 **kwargs: Any) -> None:
        check_split(split)
        if not 1 <= objects[0] <= objects[1] or count < 1 or size < 32:
            raise UserError('collages need at least one picture of at least 32 pixels and 1 <= smallest <= largest '
                             f'number of objects, got count={count}, size={size}, objects={tuple(objects)}')
        self.vocabulary = Vocabulary.read(vocabulary)
        things = self.vocabulary.names[:-1]
        strange = [name for name in unseen if name not in things]
        if strange:
            raise UserError(f'the unseen names {strange} are no things of the vocabulary {things}')
        self.pictures = _make(CollageSource(Path(source)), split, things, unseen, count, size, objects, seed)
        self.labels = {name: index for index, name in enumerate(things)}
        super().__init__(metainfo=dict(classes=tuple(self.vocabulary.names), thing_classes=tuple(things),
                                       stuff_classes=(self.vocabulary.names[-1], )), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per picture, without its pixels."""
        return [dict(img_id=index, img_path=f'collage_{index}', sample_idx=index, height=picture.image.shape[0],
                     width=picture.image.shape[1]) for index, picture in enumerate(self.pictures)]

    def filter_data(self) -> list[dict]:
        """Every picture stays: each shows something."""
        return self.data_list

    def get_data_info(self, idx: int) -> dict:
        """What mmdet's loading transforms would have made of the picture: image, boxes, masks, semantic map."""
        info = super().get_data_info(idx)
        picture = self.pictures[info['img_id']]
        labels = np.array([self.labels[name] for name in picture.labels], np.int64)
        masks = picture.segments[None] == np.arange(1, len(labels) + 1, dtype=np.uint8)[:, None, None]
        table = np.concatenate([[len(self.vocabulary) - 1], labels]).astype(np.uint8)
        size = picture.segments.shape
        return {**info, 'img': picture.image.copy(), 'img_shape': size, 'ori_shape': size,
                'gt_bboxes': HorizontalBoxes(_boxes(masks)), 'gt_bboxes_labels': labels,
                'gt_ignore_flags': np.zeros(len(labels), bool),
                'gt_masks': BitmapMasks(masks.astype(np.uint8), *size), 'gt_seg_map': table[picture.segments],
                'ignore_index': VOID}


def _make(source: CollageSource, split: str, things: Sequence[str], unseen: Sequence[str], count: int, size: int,
          objects: Sequence[int], seed: int) -> list[Collage]:
    seen = [name for name in things if name not in unseen]
    cutouts = source.things(split, seen)
    if split == 'val':
        for part in SPLITS:
            for name, found in source.things(part, unseen).items():
                cutouts.setdefault(name, []).extend(found)
    if not any(cutouts.values()):
        raise UserError(f'{source.folder} has no cut-out of {list(things)} that is large enough')
    stuff = source.stuff(split)
    return [compose(cutouts, stuff, size, (int(objects[0]), int(objects[1])),
                    np.random.default_rng([seed, SPLITS.index(split), index])) for index in range(count)]


def _boxes(masks: np.ndarray) -> np.ndarray:
    """(N, 4) float32 xyxy of masks (N, H, W)."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
