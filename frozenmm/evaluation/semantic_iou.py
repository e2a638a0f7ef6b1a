"""Mean IoU of semantic label maps, for seen and unseen classes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.evaluation.seen_classes import seen_split
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import METRICS


def label_counts(predicted: Tensor, truth: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and annotated pixels of every class in one image.

    Args:
        predicted: (H, W) labels.
        truth: (H, W) labels; pixels outside 0..K-1 are left out.
        num_classes: K.

    Returns:
        (K,), (K,) and (K,) int64.

    Raises:
        UserError: sizes differ.
    """
    if predicted.shape != truth.shape:
        raise UserError(f'the prediction has the size {tuple(predicted.shape)}, the annotation {tuple(truth.shape)}; '
                        'load annotations after resizing, and predict at original size')
    truth = truth.long()
    valid = (truth >= 0) & (truth < num_classes)
    truth, predicted = truth[valid], predicted[valid].long()
    predicted = torch.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)

    def histogram(labels: Tensor) -> Tensor:
        return torch.bincount(labels, minlength=num_classes + 1)[:num_classes]

    both, annotated = histogram(predicted[predicted == truth]), histogram(truth)
    return both, histogram(predicted) + annotated - both, annotated


@METRICS.register_module()
class SemanticIoU(BaseMetric):
    """Mean over classes of intersection over union, all images together.

    Reads `pred_sem_seg` and `gt_sem_seg`, of mmdet (`sem_seg`) or mmseg (`data`), each (1, H, W).

    Args:
        vocabulary: the classes that the model predicts, in the data set's order; by default its `METAINFO`.
        train_vocabulary: adds results for classes of `vocabulary` that share a word with it (seen) and for all others.
        collect_device, prefix: see mmengine's `BaseMetric`.

    Results in percent: `mIoU`, `mIoU_seen`, `mIoU_unseen`, and `fwIoU`, the mean weighted with the annotated pixels of
    each class. A class that occurs neither in annotations nor in predictions takes no part; NaN where no class does.
    """

    default_prefix = 'semantic'

    def __init__(self, vocabulary: VocabularySource | None = None, *, train_vocabulary: VocabularySource | None = None,
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.vocabulary = None if vocabulary is None else Vocabulary.read(vocabulary)
        self.seen = seen_split(vocabulary, train_vocabulary, 'SemanticIoU')

    @property
    def num_classes(self) -> int:
        """K; UserError if nothing names the classes, or vocabulary and data set differ in their number."""
        named = len((self.dataset_meta or {}).get('classes', ()))
        if self.vocabulary is None:
            if not named:
                raise UserError('SemanticIoU needs a vocabulary: the data set has no METAINFO with classes')
            return named
        if named not in (0, len(self.vocabulary)):
            raise UserError(f'the data set labels {named} classes, but {self.vocabulary.name} has '
                            f'{len(self.vocabulary)}; give the data set the same vocabulary')
        return len(self.vocabulary)

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Count the pixels of each image."""
        for sample in data_samples:
            for key in ('pred_sem_seg', 'gt_sem_seg'):
                if key not in sample:
                    raise UserError(f'SemanticIoU found no `{key}` in a data sample; the model\'s tasks need '
                                    '\'semantic\', and the pipeline annotations with_seg=True')
            predicted, truth = (_map(sample[key]) for key in ('pred_sem_seg', 'gt_sem_seg'))
            counts = label_counts(predicted, truth.to(predicted.device), self.num_classes)
            self.results.append(tuple(count.cpu().numpy() for count in counts))

    def compute_metrics(self, results: list[tuple[np.ndarray, ...]]) -> dict[str, float]:
        """Mean IoU over all images."""
        intersection, union, annotated = (np.sum([result[part] for result in results], axis=0) for part in range(3))
        groups = {'': np.ones(len(union), bool)}
        if self.seen is not None:
            groups |= {'_seen': self.seen, '_unseen': ~self.seen}
        metrics = {}
        for suffix, chosen in groups.items():
            used = chosen & (union > 0)
            metrics[f'mIoU{suffix}'] = float(100 * (intersection[used] / union[used]).mean()) if used.any() \
                else float('nan')
        metrics['fwIoU'] = float(100 * (annotated * intersection / np.maximum(union, 1)).sum() / annotated.sum()) \
            if annotated.any() else float('nan')
        MMLogger.get_current_instance().info(', '.join(f'{key} {value:.2f}' for key, value in metrics.items()))
        return metrics


def _map(field: Mapping) -> Tensor:
    """(H, W) labels of mmdet's or mmseg's field."""
    return (field['sem_seg'] if 'sem_seg' in field else field['data']).squeeze(0)
