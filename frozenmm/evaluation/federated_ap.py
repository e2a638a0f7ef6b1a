"""Mask and box AP on LVIS, whose images are annotated exhaustively for some classes only."""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from frozenmm.compat import require
from frozenmm.errors import UserError, reading
from frozenmm.evaluation.seen_classes import seen_split
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import METRICS

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
FREQUENCIES = ('r', 'c', 'f')


@dataclass
class FederatedImage:
    """What the annotations say about one image.

    Attributes:
        size: (height, width) in pixels.
        outlines: category id -> its objects, as segmentations in COCO's formats or as boxes (x, y, width, height).
        absent: categories that do not occur.
        open_ended: categories of which not every object is annotated.
    """

    size: tuple[int, int]
    outlines: dict[int, list] = field(default_factory=lambda: defaultdict(list))
    absent: frozenset[int] = frozenset()
    open_ended: frozenset[int] = frozenset()


@dataclass
class Matches:
    """Detections of one image that count, N of them, at T thresholds.

    Attributes:
        categories: (N,) ids.
        scores: (N,).
        correct: (N, T) bool.
        ignored: (N, T) bool, unmatched detections of open-ended categories.
        truth: category id -> number of annotated objects.
    """

    categories: np.ndarray
    scores: np.ndarray
    correct: np.ndarray
    ignored: np.ndarray
    truth: dict[int, int]


def match_image(image: FederatedImage, categories: np.ndarray, scores: np.ndarray,
                shapes: Sequence[Mapping] | np.ndarray) -> Matches:
    """Match the detections of an image, best first, each to the free object that it overlaps most.

    Source: Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019, section 4, and the
    rules of its evaluation: detections of categories that are neither annotated in the image nor known to be absent
    do not count, nor do those without a pixel.

    Args:
        image: its annotations.
        categories: (N,) category ids.
        scores: (N,).
        shapes: N masks as run lengths of pycocotools, or boxes (N, 4) x, y, width and height; the objects of the image
            are the same.
    """
    asked = set(image.outlines) | image.absent
    areas = _areas(shapes)
    chosen = [index for index in np.argsort(-scores, kind='stable').tolist()
              if int(categories[index]) in asked and areas[index] > 0]
    correct = np.zeros((len(chosen), len(THRESHOLDS)), bool)
    for category in {int(categories[index]) for index in chosen} & set(image.outlines):
        rows = [row for row, index in enumerate(chosen) if categories[index] == category]
        objects = image.outlines[category]
        overlaps = _overlaps([shapes[chosen[row]] for row in rows], objects, image.size)
        for column, threshold in enumerate(THRESHOLDS):
            free = np.ones(len(objects), bool)
            for row, overlap in zip(rows, overlaps):
                # of equal overlaps the last one counts, as in the official evaluation
                best = len(objects) - 1 - int(np.argmax(np.where(free, overlap, -1)[::-1]))
                if free[best] and overlap[best] >= min(threshold, 1 - 1e-10):
                    correct[row, column] = True
                    free[best] = False
    kept = categories[chosen].astype(np.int64)
    return Matches(kept, scores[chosen], correct, ~correct & np.isin(kept, list(image.open_ended))[:, None],
                   {category: len(outlines) for category, outlines in image.outlines.items()})


def _areas(shapes: Sequence[Mapping] | np.ndarray) -> Sequence[float]:
    if isinstance(shapes, np.ndarray):
        return shapes[:, 2] * shapes[:, 3]
    area = require('pycocotools.mask', 'mask AP').area
    # in pieces: pycocotools 2.0.11 counts the masks of one call in 8 bits under numpy 2
    return [value for start in range(0, len(shapes), 255) for value in area(list(shapes[start:start + 255]))]


def _overlaps(found: list, outlines: list, size: tuple[int, int]) -> np.ndarray:
    """IoU (N, M) of N detections and M objects of one image and category."""
    coco_mask = require('pycocotools.mask', 'AP on LVIS')
    if isinstance(found[0], np.ndarray):
        return np.asarray(coco_mask.iou(np.asarray(found, np.float64), np.asarray(outlines, np.float64),
                                        [0] * len(outlines)))
    objects = [_run_length(outline, size, coco_mask) for outline in outlines]
    return np.asarray(coco_mask.iou(found, objects, [0] * len(objects)))


def average_precisions(matches: Sequence[Matches], category_ids: Sequence[int]) -> np.ndarray:
    """AP (K, T) of every category at every threshold, in 0..1, by 101 points; NaN without annotated objects."""
    truth: dict[int, int] = defaultdict(int)
    for found in matches:
        for category, count in found.truth.items():
            truth[category] += count
    result = np.full((len(category_ids), len(THRESHOLDS)), np.nan)
    if not matches:
        return result
    categories = np.concatenate([found.categories for found in matches])
    scores = np.concatenate([found.scores for found in matches])
    correct, ignored = (np.concatenate([getattr(found, name) for found in matches]) for name in ('correct', 'ignored'))
    order = np.lexsort((np.arange(len(scores)), -scores, categories))
    starts = np.searchsorted(categories[order], category_ids)
    ends = np.searchsorted(categories[order], category_ids, side='right')
    for index, number in enumerate(category_ids):
        if truth[number]:
            rows = order[starts[index]:ends[index]]
            result[index] = _curve_areas(correct[rows], ignored[rows], truth[number])
    return result


def _curve_areas(correct: np.ndarray, ignored: np.ndarray, objects: int) -> np.ndarray:
    """Mean precision (T,) at 101 recalls of detections (N, T) in descending order of score."""
    areas = np.zeros(correct.shape[1])
    if not len(correct):
        return areas
    hits, errors = np.cumsum(correct, 0), np.cumsum(~correct & ~ignored, 0)
    precision = hits / np.maximum(hits + errors, np.finfo(float).eps)
    precision = np.maximum.accumulate(precision[::-1], 0)[::-1]
    for column in range(len(areas)):
        places = np.searchsorted(hits[:, column] / objects, RECALLS)
        reached = places < len(precision)
        areas[column] = precision[places[reached], column].sum() / len(RECALLS)
    return areas


def _run_length(outline: Any, size: tuple[int, int], coco_mask: Any) -> Mapping:
    if isinstance(outline, list):
        return coco_mask.merge(coco_mask.frPyObjects(outline, *size))
    return coco_mask.frPyObjects(outline, *size) if isinstance(outline['counts'], list) else outline


@METRICS.register_module()
class LVISMaskAP(BaseMetric):
    """Mask AP on LVIS v1, without the package lvis.

    Reads `pred_instances` (`masks` (N, H, W) bool, `scores`, `labels`) and `img_id` of a data sample.

    Args:
        ann_file: `lvis_v1_*.json`; its categories, by ascending id, are the labels 0, 1, ...
        vocabulary: the classes that the model predicts, one per category; only needed with `train_vocabulary`.
        train_vocabulary: adds results for classes that share a word with it (seen) and for all others (unseen).
        max_detections: the best ones of an image that count.
        collect_device, prefix: see mmengine's `BaseMetric`.

    Results in percent: `AP`, `AP50`, `AP75`, `APr`, `APc`, `APf` (rare, common, frequent categories), and `AP_seen` and
    `AP_unseen`; NaN where no such category is annotated in the images.
    """

    default_prefix = 'lvis'
    annotation = 'segmentation'

    def __init__(self, ann_file: str, *, vocabulary: VocabularySource | None = None,
                 train_vocabulary: VocabularySource | None = None, max_detections: int = 300,
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.max_detections = max_detections
        self.seen = seen_split(vocabulary, train_vocabulary, type(self).__name__)
        self.category_ids, self.frequencies, self.images = _read(Path(ann_file), self.annotation)
        if vocabulary is not None and len(Vocabulary.read(vocabulary)) != len(self.category_ids):
            raise UserError(f'{ann_file} has {len(self.category_ids)} categories, but the vocabulary has '
                            f'{len(Vocabulary.read(vocabulary))} classes; prepare the vocabulary out of this file')

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Match the detections of each image."""
        for sample in data_samples:
            if 'pred_instances' not in sample:
                raise UserError(f'{type(self).__name__} found no `pred_instances` in a prediction; add \'instance\' to '
                                'the tasks of the model\'s post-processing')
            image = self.images.get(sample['img_id'])
            if image is None:
                raise UserError(f'image {sample["img_id"]} is not in {self.ann_file}; is it that of another split?')
            found = sample['pred_instances']
            scores, labels = found['scores'].float().cpu().numpy(), found['labels'].cpu().numpy()
            best = np.argsort(-scores, kind='stable')[:self.max_detections]
            self.results.append(match_image(image, self.category_ids[labels[best]], scores[best],
                                            self._shapes(found, best)))

    def _shapes(self, found: Mapping, best: np.ndarray) -> Sequence[Mapping] | np.ndarray:
        """What `match_image` compares, of the detections `best`."""
        coco_mask = require('pycocotools.mask', 'mask AP')
        return [coco_mask.encode(np.asfortranarray(found['masks'][int(index)].cpu().numpy().astype(np.uint8)))
                for index in best]

    def compute_metrics(self, results: list[Matches]) -> dict[str, float]:
        """Average precision over all images."""
        table = 100 * average_precisions(results, self.category_ids.tolist())
        groups = {f'AP{letter}': self.frequencies == letter for letter in FREQUENCIES}
        if self.seen is not None:
            groups |= {'AP_seen': self.seen, 'AP_unseen': ~self.seen}
        metrics = {'AP': _mean(table), 'AP50': _mean(table[:, 0]), 'AP75': _mean(table[:, 5])}
        metrics |= {name: _mean(table[chosen]) for name, chosen in groups.items()}
        MMLogger.get_current_instance().info(', '.join(f'{key} {value:.2f}' for key, value in metrics.items()))
        return metrics


@METRICS.register_module()
class LVISBoxAP(LVISMaskAP):
    """Box AP on LVIS v1, without the package lvis; reads `pred_instances.bboxes` (N, 4) xyxy instead of masks.

    Args:
        options: see `LVISMaskAP`.
    """

    annotation = 'bbox'

    def _shapes(self, found: Mapping, best: np.ndarray) -> np.ndarray:
        boxes = found['bboxes'].double().cpu().numpy()[best].reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float('nan')


def _read(path: Path, annotation: str) -> tuple[np.ndarray, np.ndarray, dict[int, FederatedImage]]:
    """Category ids (K,), their frequencies (K,), and the images by id."""
    with reading(path, 'an annotation file of LVIS v1', 'give lvis_v1_*.json (COCO\'s files will not do)'):
        content = json.loads(path.read_text(encoding='utf-8'))
        categories = sorted(content['categories'], key=lambda entry: entry['id'])
        images = {entry['id']: FederatedImage(
            (entry['height'], entry['width']), absent=frozenset(entry['neg_category_ids']),
            open_ended=frozenset(entry['not_exhaustive_category_ids'])) for entry in content['images']}
        for entry in content['annotations']:
            images[entry['image_id']].outlines[entry['category_id']].append(entry[annotation])
        return (np.array([entry['id'] for entry in categories]), np.array([entry['frequency'] for entry in categories]),
                images)
