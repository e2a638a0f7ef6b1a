"""COCO mask AP, for seen and unseen classes."""
from __future__ import annotations

import numpy as np
from mmdet.evaluation import CocoMetric

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import METRICS


@METRICS.register_module()
class SplitCocoMetric(CocoMetric):
    """`mmdet.CocoMetric` for data sets of things and stuff; also averages AP over seen and over unseen classes.

    Labels are those of the data set. Its things may stand anywhere among its classes, and in any order. Their
    categories are the data set's `category_ids`, as `CocoPanoptic` gives them, else the categories of their names.

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
            raise UserError('SplitCocoMetric needs ann_file, the instance annotations (instances_*.json)')
        if len(self.metrics) != 1:
            raise UserError(f'SplitCocoMetric takes one metric at a time, got {self.metrics}; list it once for each')
        self.vocabulary = Vocabulary.read(vocabulary)
        self.seen = self.vocabulary.seen_mask(Vocabulary.read(train_vocabulary)).numpy()
        self.keep_classes = classwise

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The results of `mmdet.CocoMetric` and both means."""
        # in the order of their numbers, in which pycocotools counts them
        things = dict(sorted(self._things().items(), key=lambda item: item[1]))
        self.cat_ids = list(things.values())
        names = [self._coco_api.load_cats(number)[0]['name'] for number in self.cat_ids]
        place = np.full(len(self.vocabulary), -1)
        place[list(things)] = np.arange(len(things))
        metrics = super().compute_metrics([(truth, _relabelled(found, place)) for truth, found in results])
        precisions = {name: metrics.get(f'{name}_precision', float('nan')) for name in names}
        if not self.keep_classes:
            for name in names:
                metrics.pop(f'{name}_precision', None)
        seen = self.seen[list(things)]
        for label, chosen in ('seen', seen), ('unseen', ~seen):
            values = np.array(list(precisions.values()))[chosen]
            values = values[~np.isnan(values)]
            metrics[f'{self.metrics[0]}_mAP_{label}'] = float(values.mean()) if len(values) else float('nan')
        return metrics

    def _things(self) -> dict[int, int]:
        """Label -> category id of the classes that have instances."""
        meta = self.dataset_meta
        classes = list(meta['classes'])
        if len(classes) != len(self.vocabulary):
            raise UserError(f'the data set labels {len(classes)} classes, but {self.vocabulary.name} has '
                            f'{len(self.vocabulary)}; give the data set the same vocabulary')
        things = set(meta.get('thing_classes', classes))
        labels = [label for label, name in enumerate(classes) if name in things]
        if 'category_ids' in meta:
            numbers = {label: meta['category_ids'][label] for label in labels}
        else:
            by_name = {category['name']: number for number, category in self._coco_api.cats.items()}
            numbers = {label: by_name.get(classes[label]) for label in labels}
        unknown = [classes[label] for label, number in numbers.items() if number not in self._coco_api.cats]
        if unknown:
            raise UserError(f'the instance annotations have no category {unknown[0]!r} ({len(unknown)} classes lack)')
        return numbers


def _relabelled(found: dict, place: np.ndarray) -> dict:
    """One image's predictions with labels among the things; those of stuff are dropped."""
    labels = place[found['labels']]
    kept = np.flatnonzero(labels >= 0)
    changed = {key: value[kept] if isinstance(value, np.ndarray) else [value[index] for index in kept]
               for key, value in found.items() if key != 'img_id'}
    return {**changed, 'img_id': found['img_id'], 'labels': labels[kept]}
