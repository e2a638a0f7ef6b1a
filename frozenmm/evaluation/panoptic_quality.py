"""Panoptic quality of mmdet models, without panopticapi; for things and stuff, seen and unseen classes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from frozenmm.datasets.panoptic_files import (
    Category,
    PanopticImage,
    match_categories,
    read_panoptic_file,
    read_panoptic_map,
)
from frozenmm.errors import UserError
from frozenmm.evaluation.panoptic_counts import PanopticCounts, count_segments, quality
from frozenmm.evaluation.seen_classes import seen_split
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import METRICS

INSTANCE_OFFSET = 1000  # mmdet's: a panoptic pixel is class + offset * instance


@METRICS.register_module()
class PanopticQuality(BaseMetric):
    """PQ, SQ and RQ as in COCO's panoptic evaluation.

    Reads `pred_panoptic_seg.sem_seg` (1, H, W) in mmdet's encoding, of our models and of mmdet's, at the annotation's
    size, and the image's `img_id`. The metainfo `instance_offset` of a data sample is respected.

    Args:
        ann_file: COCO panoptic JSON.
        seg_prefix: folder of its PNG maps.
        vocabulary: the classes that the model predicts, in its order; by default those of the data set. Annotated
            segments of other classes count as void.
        train_vocabulary: adds results for classes of `vocabulary` that share a word with it (seen) and for all others
            (unseen).
        classwise: log a line per class.
        compat: count several crowds of a class in one image as panopticapi does, see `count_segments`; PQ is then the
            official one, a little below ours.
        collect_device, prefix: see mmengine's `BaseMetric`.

    Results in percent: `PQ`, `SQ`, `RQ`, and the same with `_things`, `_stuff`, `_seen`, `_unseen`. A class that occurs
    neither in annotations nor in predictions takes no part; NaN where no class does.
    """

    default_prefix = 'panoptic'

    def __init__(self, ann_file: str, seg_prefix: str, *, vocabulary: VocabularySource | None = None,
                 train_vocabulary: VocabularySource | None = None, classwise: bool = False, compat: bool = False,
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.seg_prefix = Path(seg_prefix)
        self.vocabulary = None if vocabulary is None else Vocabulary.read(vocabulary)
        self.seen = seen_split(vocabulary, train_vocabulary, 'PanopticQuality')
        self.classwise = classwise
        self.compat = compat
        content = read_panoptic_file(ann_file)
        self.categories = content.categories
        self.images = {image.id: image for image in content.images}
        self._labels: dict[int, int] | None = None
        self._shown: list[Category] = []

    @property
    def classes(self) -> Vocabulary:
        """The classes that the model predicts.

        Raises:
            UserError: neither a vocabulary nor a data set that names them.
        """
        if self.vocabulary is not None:
            return self.vocabulary
        if not self.dataset_meta or 'classes' not in self.dataset_meta:
            raise UserError('PanopticQuality needs a vocabulary: the data set has no METAINFO with classes')
        return Vocabulary.read({'classes': self.dataset_meta['classes']}, allow_duplicates=True)

    @property
    def labels(self) -> dict[int, int]:
        """Category id -> class index, for the classes that the model predicts."""
        if self._labels is None:
            self._shown = match_categories(self.classes, self.categories)
            self._labels = {category.id: index for index, category in enumerate(self._shown)}
        return self._labels

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Match the segments of each image."""
        for sample in data_samples:
            if 'pred_panoptic_seg' not in sample:
                raise UserError('PanopticQuality found no `pred_panoptic_seg` in a prediction; add \'panoptic\' to '
                                'the tasks of the model\'s post-processing')
            image = self.images.get(sample['img_id'])
            if image is None:
                raise UserError(f'image {sample["img_id"]} has no annotation in {self.ann_file}; is it the file of '
                                'another split?')
            predicted = sample['pred_panoptic_seg']['sem_seg'].squeeze(0).cpu().numpy()
            self.results.append(self._count(image, predicted, sample.get('instance_offset', INSTANCE_OFFSET)))

    def _count(self, image: PanopticImage, predicted: np.ndarray, offset: int) -> PanopticCounts:
        labels = self.labels
        listed = {segment.id for segment in image.segments}
        truth = read_panoptic_map(self.seg_prefix / image.map_name, listed)
        strange = set(np.unique(truth).tolist()) - listed - {0}
        if strange:
            raise UserError(f'the map {self.seg_prefix / image.map_name} holds the segments {sorted(strange)[:3]}, '
                            f'which {self.ann_file} does not list; do both belong together?')
        known = [segment for segment in image.segments if segment.category_id in labels]
        # whatever is no class of the model is void, as mmdet writes it
        classes = {value: value % offset for value in np.unique(predicted).tolist() if 0 <= value % offset < len(labels)
                   and value >= 0}
        return count_segments(
            truth, {segment.id: labels[segment.category_id] for segment in known if not segment.is_crowd}, predicted,
            classes, len(labels),
            crowds={segment.id: labels[segment.category_id] for segment in known if segment.is_crowd},
            compat=self.compat)

    def compute_metrics(self, results: list[PanopticCounts]) -> dict[str, float]:
        """PQ, SQ and RQ over all images."""
        counts = sum(results, PanopticCounts.zeros(len(self.labels)))
        things = np.array([category.isthing for category in self._shown], bool)
        groups = {'': np.ones_like(things), '_things': things, '_stuff': ~things}
        if self.seen is not None:
            groups |= {'_seen': self.seen, '_unseen': ~self.seen}
        logger = MMLogger.get_current_instance()
        metrics: dict[str, float] = {}
        for suffix, chosen in groups.items():
            values = quality(counts, chosen)
            metrics |= {f'{key}{suffix}': values[key] for key in ('PQ', 'SQ', 'RQ')}
            logger.info(f'{suffix.strip("_") or "all":>8}: PQ {values["PQ"]:.2f}  SQ {values["SQ"]:.2f}  '
                        f'RQ {values["RQ"]:.2f}  over {values["classes"]} classes')
        if self.classwise:
            for index, name in enumerate(self.classes.names):
                values = quality(counts, np.arange(len(things)) == index)
                if values['classes']:
                    logger.info(f'{name}: PQ {values["PQ"]:.2f}  matched {counts.matched[index]}  extra '
                                f'{counts.extra[index]}  missed {counts.missed[index]}')
        return metrics
