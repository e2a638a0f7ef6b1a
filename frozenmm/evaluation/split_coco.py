"""COCO mask AP, for seen and unseen classes."""
from __future__ import annotations

import numpy as np
from mmdet.evaluation import CocoMetric

from frozenmm.evaluation.seen_classes import seen_split
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import METRICS


@METRICS.register_module()
class SplitCocoMetric(CocoMetric):
    """`mmdet.CocoMetric` that also averages AP over seen and over unseen classes.

    Labels are those of the data set, whose thing classes must come first, as in COCO panoptic and its parts.

    Args:
        vocabulary: the classes that the model predicts, in the data set's order.
        train_vocabulary: decides which of them are seen.
        classwise: keep the AP of every class among the results.
        **kwargs: for `mmdet.CocoMetric`: `ann_file`, `metric`, ...

    Adds `<metric>_mAP_seen` and `<metric>_mAP_unseen` (means of class APs rounded to 0.001, as mmdet gives them), NaN
    where no annotated class is left.
    """

    def __init__(self, vocabulary: VocabularySource, train_vocabulary: VocabularySource, *, classwise: bool = False,
                 **kwargs: object) -> None:
        super().__init__(classwise=True, **kwargs)
        if self._coco_api is None:
            raise ValueError('SplitCocoMetric needs ann_file, the instance annotations (instances_*.json)')
        if len(self.metrics) != 1:
            raise ValueError(f'SplitCocoMetric takes one metric at a time, got {self.metrics}; list it once for each')
        self.vocabulary = Vocabulary.read(vocabulary)
        self.seen = seen_split(self.vocabulary, train_vocabulary, 'SplitCocoMetric')
        self.keep_classes = classwise

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The results of `mmdet.CocoMetric` and both means."""
        things = self._things()
        self.cat_ids = [self._coco_api.get_cat_ids(cat_names=[name])[0] for name in things]
        metrics = super().compute_metrics(results)
        precisions = {name: metrics.get(f'{name}_precision', float('nan')) for name in things}
        if not self.keep_classes:
            for name in things:
                metrics.pop(f'{name}_precision', None)
        for label, seen in ('seen', True), ('unseen', False):
            values = np.array([value for name, value in precisions.items()
                               if self.seen[things.index(name)] == seen and not np.isnan(value)])
            metrics[f'{self.metrics[0]}_mAP_{label}'] = float(values.mean()) if len(values) else float('nan')
        return metrics

    def _things(self) -> list[str]:
        """Names of the classes that have instances."""
        classes = list(self.dataset_meta['classes'])
        if len(classes) != len(self.vocabulary):
            raise ValueError(f'the data set labels {len(classes)} classes, but {self.vocabulary.name} has '
                             f'{len(self.vocabulary)}; give the data set the same vocabulary')
        things = [name for name in self.dataset_meta.get('thing_classes', classes)]
        if classes[:len(things)] != things:
            raise ValueError('the thing classes of the data set must come first in its vocabulary, as labels count; '
                             f'got {classes[:len(things)][:3]}... for the things {things[:3]}...')
        unknown = [name for name in things if not self._coco_api.get_cat_ids(cat_names=[name])]
        if unknown:
            raise ValueError(f'the instance annotations have no category {unknown[0]!r} ({len(unknown)} classes lack)')
        return things
