"""mIoU and FB-IoU over episodes of named classes, the measure of few-shot and zero-shot segmentation."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.registry import METRICS


class EpisodicCounts:
    """Intersections and unions of foreground and background per class, over all episodes.

    Args:
        num_classes: size of the class table, background included (21 for PASCAL, 81 for COCO).
    """

    def __init__(self, num_classes: int) -> None:
        self.intersection = torch.zeros(2, num_classes, dtype=torch.int64)
        self.union = torch.zeros(2, num_classes, dtype=torch.int64)

    def add(self, predictions: Tensor, targets: Tensor, ignored: Tensor, class_ids: Sequence[int]) -> None:
        """Count one episode.

        Args:
            predictions: (K, H, W) bool, one mask per named class.
            targets: (K, H, W) bool.
            ignored: (H, W) bool, pixels that do not count.
            class_ids: K indices in the class table. A class without any target pixel in the episode is skipped.
        """
        valid = ~ignored.cpu()
        for prediction, target, class_id in zip(predictions.cpu().bool(), targets.cpu().bool(), class_ids):
            if not target.any():
                continue
            for row, (p, t) in enumerate(((~prediction, ~target), (prediction, target))):
                self.intersection[row, class_id] += (p & t & valid).sum()
                self.union[row, class_id] += ((p | t) & valid).sum()

    def scores(self, class_ids: Sequence[int] | None = None) -> dict[str, float]:
        """Mean IoU and FB-IoU as fractions over the given classes (all by default) that were ever seen; NaN if none."""
        chosen = self.union[1] > 0
        if class_ids is not None:
            wanted = torch.zeros_like(chosen)
            wanted[list(class_ids)] = True
            chosen &= wanted
        if not chosen.any():
            return {'mIoU': float('nan'), 'FB-IoU': float('nan')}
        intersection, union = self.intersection[:, chosen].double(), self.union[:, chosen].double()
        return {
            'mIoU': float((intersection[1] / union[1]).mean()),
            'FB-IoU': float((intersection.sum(1) / union.sum(1)).mean()),
        }


def decide(scores: Tensor, threshold: float = 0.5) -> Tensor:
    """One label per pixel: background where no score is above the threshold, else the best class.

    Args:
        scores: (..., K, H, W) probabilities per class.
        threshold: score of the background; a tie goes to the background, between classes to the lower index.

    Returns:
        (..., H, W) int64, 0 for background, k + 1 for class k. Source: Fusioner, test-time decision.
    """
    best, label = scores.max(-3)
    return torch.where(best > threshold, label + 1, torch.zeros_like(label))


@METRICS.register_module()
class EpisodicIoUMetric(BaseMetric):
    """Mean IoU and FB-IoU of episodes, with seen and unseen classes apart.

    Each data sample carries `class_ids` (K indices in the class table, 0 is background), `gt_sem_seg` with values
    0 (background), 1..K (the named classes) and `ignore_index`, and the prediction `pred_sem_seg` in the same values.

    Args:
        num_classes: size of the class table, background included.
        unseen: class indices that training never named; adds rows `seen/...` and `unseen/...`.
        ignore_index: target value of pixels that do not count.
        prefix: of the reported names.
        collect_device: `'cpu'` or `'gpu'`, see mmengine.
    """

    def __init__(self, num_classes: int, unseen: Sequence[int] = (), *, ignore_index: int = 255,
                 prefix: str | None = None, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        outside = [index for index in unseen if not 0 < index < num_classes]
        if outside:
            raise UserError(f'unseen classes must be 1..{num_classes - 1} (0 is background), got {outside}')
        self.num_classes = num_classes
        self.unseen = tuple(unseen)
        self.ignore_index = ignore_index

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Count the episodes of a batch."""
        for sample in data_samples:
            target = torch.as_tensor(sample['gt_sem_seg']['data']).squeeze()
            prediction = torch.as_tensor(sample['pred_sem_seg']['data']).squeeze()
            class_ids = [int(value) for value in np.asarray(sample['class_ids'])]
            labels = torch.arange(1, len(class_ids) + 1)[:, None, None]
            counts = EpisodicCounts(self.num_classes)
            counts.add(prediction.cpu() == labels, target.cpu() == labels, target == self.ignore_index, class_ids)
            self.results.append((counts.intersection, counts.union))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores in percent over all, seen and unseen classes."""
        total = EpisodicCounts(self.num_classes)
        for intersection, union in results:
            total.intersection += intersection
            total.union += union
        seen = [index for index in range(1, self.num_classes) if index not in self.unseen]
        groups = {'': None} if not self.unseen else {'': None, 'seen/': seen, 'unseen/': self.unseen}
        return {group + name: 100 * value for group, ids in groups.items() for name, value in total.scores(ids).items()}
