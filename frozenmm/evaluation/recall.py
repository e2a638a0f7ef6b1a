"""Class-agnostic recall of predicted masks on semantic annotations, for seen and unseen classes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import METRICS

THRESHOLDS = (0.5, 0.75, 0.9)


def mask_recall(annotation: Tensor, masks: Tensor, num_classes: int, *, ignore_index: int = 255,
                thresholds: Sequence[float] = THRESHOLDS) -> tuple[Tensor, Tensor]:
    """Which classes of an image some mask covers.

    The region of a class is compared whole, not by instance; ignored pixels count in the union. Source: FrozenSeg,
    official `SemSegSeenUnseenRecallEvaluator`.

    Args:
        annotation: (H, W) class indices.
        masks: (N, H, W) bool, predicted masks whatever their class.
        num_classes: K.
        ignore_index: value of pixels without annotation; anything outside 0..K-1 is ignored as well.
        thresholds: T overlaps, strict.

    Returns:
        (K,) bool, classes present; (K, T) bool, classes for which some mask's IoU exceeds each threshold.

    Raises:
        UserError: sizes differ.
    """
    if masks.dim() != 3 or masks.shape[1:] != annotation.shape:
        raise UserError(f'masks must have shape (N, {annotation.shape[0]}, {annotation.shape[1]}) as the annotation '
                        f'has {tuple(annotation.shape)}, got {tuple(masks.shape)}; predict masks at annotation size')
    flat = annotation.flatten().long()
    known = (flat >= 0) & (flat < num_classes) & (flat != ignore_index)
    index = torch.where(known, flat, num_classes)
    areas = torch.bincount(index, minlength=num_classes + 1)[:-1].double()
    inside = masks.flatten(1)
    overlaps = torch.stack([torch.bincount(index[mask], minlength=num_classes + 1)[:-1] for mask in inside]).double() \
        if len(masks) else areas.new_zeros(0, num_classes)
    union = inside.sum(1).double()[:, None] + areas - overlaps
    best = (overlaps / union.clamp(min=1)).amax(0) if len(masks) else torch.zeros_like(areas)
    found = best[:, None] > torch.tensor(thresholds, dtype=best.dtype, device=best.device)
    return areas > 0, found


@METRICS.register_module()
class MaskRecallMetric(BaseMetric):
    """Recall of class-agnostic mask proposals, split into seen and unseen classes.

    Reads `pred_proposals.masks` (N, H, W) bool of a data sample (models write it when their `tasks` contain
    `'proposals'`) and `gt_sem_seg.sem_seg` (1, H, W), in mmseg `gt_sem_seg.data`.

    Args:
        vocabulary: the data set's classes; by default its `METAINFO`.
        train_vocabulary: decides which classes are seen.
        ignore_index: value of pixels without annotation.
        thresholds: IoU thresholds, strict.
        collect_device, prefix: see mmengine's `BaseMetric`.

    Results are percentages `S_Recall@IoU=0.50`, `U_Recall@IoU=0.50`, ...; NaN where no such class occurs.
    """

    default_prefix = 'recall'

    def __init__(self, train_vocabulary: VocabularySource, vocabulary: VocabularySource | None = None, *,
                 ignore_index: int = 255, thresholds: Sequence[float] = THRESHOLDS, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.train_vocabulary = Vocabulary.read(train_vocabulary)
        self.vocabulary = None if vocabulary is None else Vocabulary.read(vocabulary)
        self.ignore_index = ignore_index
        self.thresholds = tuple(thresholds)

    @property
    def _classes(self) -> Vocabulary:
        if self.vocabulary is not None:
            return self.vocabulary
        if not self.dataset_meta or 'classes' not in self.dataset_meta:
            raise UserError('MaskRecallMetric needs a vocabulary: the data set has no METAINFO with classes')
        return Vocabulary.read(self.dataset_meta)

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Count the classes of each image."""
        count = len(self._classes)
        for sample in data_samples:
            if 'pred_proposals' not in sample:
                raise UserError('MaskRecallMetric found no `pred_proposals` in a prediction; add \'proposals\' to the '
                                'tasks of the model\'s post-processing')
            masks = sample['pred_proposals']['masks']
            maps = sample['gt_sem_seg']
            annotation = (maps['sem_seg'] if 'sem_seg' in maps else maps['data']).squeeze(0).to(masks.device)
            present, found = mask_recall(annotation, masks, count, ignore_index=self.ignore_index,
                                         thresholds=self.thresholds)
            self.results.append((present.cpu().numpy(), found.cpu().numpy()))

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Recall per threshold over all images."""
        seen = self._classes.seen_mask(self.train_vocabulary).numpy()
        metrics = {}
        for letter, chosen in ('S', seen), ('U', ~seen):
            labels = sum(int((present & chosen).sum()) for present, _ in results)
            for column, threshold in enumerate(self.thresholds):
                hits = sum(int((found[:, column] & present & chosen).sum()) for present, found in results)
                metrics[f'{letter}_Recall@IoU={threshold:.2f}'] = 100 * hits / labels if labels else float('nan')
        MMLogger.get_current_instance().info(', '.join(f'{key} {value:.2f}' for key, value in metrics.items()))
        return metrics
