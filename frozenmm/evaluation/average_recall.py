"""Class-agnostic recall of predicted masks on annotated segments, averaged over overlaps."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from frozenmm.datasets.panoptic_files import match_categories, read_panoptic_file, read_panoptic_map
from frozenmm.errors import UserError
from frozenmm.evaluation.seen_classes import seen_split
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import METRICS

OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's: 0.50, 0.55, ..., 0.95."""


def best_overlaps(truth: Tensor, segments: Sequence[int], masks: Tensor) -> Tensor:
    """(S,) float64: the IoU of each segment with the mask that covers it best; 0 without any mask.

    Args:
        truth: (H, W) integers, the segment of each pixel.
        segments: the S values to look at.
        masks: (N, H, W) bool.

    Raises:
        UserError: sizes differ.
    """
    if masks.dim() != 3 or masks.shape[1:] != truth.shape:
        raise UserError(f'masks must have shape (N, {truth.shape[0]}, {truth.shape[1]}) as the annotation has '
                        f'{tuple(truth.shape)}, got {tuple(masks.shape)}; predict masks at annotation size')
    count = len(segments)
    if count == 0 or len(masks) == 0:
        return torch.zeros(count, dtype=torch.float64)
    index = torch.full(truth.shape, count, dtype=torch.long, device=truth.device)
    for place, value in enumerate(segments):
        index[truth == value] = place
    index = index.flatten()
    inside = masks.flatten(1)
    areas = index.bincount(minlength=count + 1)[:count]
    shared = torch.stack([index[mask].bincount(minlength=count + 1)[:count] for mask in inside])
    union = areas + inside.sum(1)[:, None] - shared
    return (shared.double() / union.clamp(min=1)).amax(0).cpu()


@METRICS.register_module()
class AverageMaskRecall(BaseMetric):
    """Average recall of class-agnostic mask proposals over the overlaps 0.50, 0.55, ..., 0.95, as COCO counts it.

    Every annotated segment, thing or stuff, but no crowd, counts once. Segments do not overlap, so a mask can exceed
    an overlap of one half with one segment alone and no assignment is needed. Reads `pred_proposals.masks` (N, H, W)
    bool and, where there are more than `limit` masks, `pred_proposals.scores` (N,).

    Args:
        ann_file: COCO panoptic JSON.
        seg_prefix: folder of its PNG maps.
        vocabulary: the classes that count; by default all of the file.
        train_vocabulary: adds results for classes of `vocabulary` that share a word with it (seen) and for the others.
        limit: masks per image.
        collect_device, prefix: see mmengine's `BaseMetric`.

    Results in percent: `AR` (for `limit` masks), `R50`, `R75`, and with `_seen`, `_unseen`; NaN where no segment is.
    """

    default_prefix = 'proposals'

    def __init__(self, ann_file: str, seg_prefix: str, *, vocabulary: VocabularySource | None = None,
                 train_vocabulary: VocabularySource | None = None, limit: int = 100, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        content = read_panoptic_file(ann_file)
        self.ann_file, self.seg_prefix, self.limit = ann_file, Path(seg_prefix), limit
        self.images = {image.id: image for image in content.images}
        classes = content.categories if vocabulary is None else match_categories(
            Vocabulary.read(vocabulary), content.categories)
        self.labels = {category.id: index for index, category in enumerate(classes)}
        self.seen = seen_split(vocabulary, train_vocabulary, 'AverageMaskRecall')

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Measure the segments of each image."""
        for sample in data_samples:
            if 'pred_proposals' not in sample:
                raise UserError('AverageMaskRecall found no `pred_proposals` in a prediction; add \'proposals\' to '
                                'the tasks of the model\'s post-processing')
            image = self.images.get(sample['img_id'])
            if image is None:
                raise UserError(f'image {sample["img_id"]} has no annotation in {self.ann_file}; is it the file of '
                                'another split?')
            segments = [segment for segment in image.segments
                        if segment.category_id in self.labels and not segment.is_crowd]
            masks = self._limited(sample['pred_proposals'])
            truth = torch.from_numpy(read_panoptic_map(
                self.seg_prefix / image.map_name, [segment.id for segment in image.segments]))
            overlaps = best_overlaps(truth.to(masks.device), [segment.id for segment in segments], masks)
            self.results.append((np.array([self.labels[segment.category_id] for segment in segments], np.int64),
                                 overlaps.numpy()))

    def _limited(self, proposals: Mapping[str, Tensor]) -> Tensor:
        masks = proposals['masks']
        if len(masks) <= self.limit:
            return masks
        if 'scores' not in proposals:
            raise UserError(f'{len(masks)} masks per image, but at most {self.limit} count; give `pred_proposals` '
                            '`scores`, or raise `limit`')
        return masks[proposals['scores'].argsort(descending=True, stable=True)[:self.limit]]

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Recall over all segments of all images."""
        labels, overlaps = (np.concatenate(values) for values in zip(*results))
        groups = {'': np.ones(len(labels), bool)}
        if self.seen is not None:
            groups |= {'_seen': self.seen[labels], '_unseen': ~self.seen[labels]}
        metrics: dict[str, float] = {}
        for suffix, chosen in groups.items():
            found = overlaps[chosen][:, None] >= np.array(OVERLAPS) - 1e-9
            rows = found.mean(0) * 100 if len(found) else np.full(len(OVERLAPS), np.nan)
            metrics |= {f'AR{suffix}': float(rows.mean()), f'R50{suffix}': float(rows[0]),
                        f'R75{suffix}': float(rows[5])}
        MMLogger.get_current_instance().info(', '.join(f'{key} {value:.2f}' for key, value in metrics.items()))
        return metrics
