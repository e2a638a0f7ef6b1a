"""Test-time pictures: predictions beside ground truth, written while the metrics are computed."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from frozenmm.errors import UserError
from frozenmm.registry import HOOKS
from frozenmm.visualization.depth import draw_depth
from frozenmm.visualization.detections import Boxes, beside_truth, spread_palette, surest
from frozenmm.visualization.segment_map import label_values, segment_map
from frozenmm.visualization.segments import Region, draw_segments

_WIDTH = 480
"""Of a picture with segments, in pixels."""


@HOOKS.register_module()
class BesideTruthHook(Hook):
    """Draws the first images of a test or validation run: boxes, or segments or depth where the model predicts maps.

    For boxes the test pipeline must load annotations after resizing, as mmdet's does, so that they are in pixels of the
    file.

    Args:
        folder: gets one PNG per image.
        count: number of images.
        score: predictions below it are not drawn. None: of each image as many boxes as are annotated, the surest that
            do not overlap; so a detector that is sure of nothing yet shows what it would say.
        title: heading of the prediction.

    Attributes:
        seen: (image file, truth, prediction) of every image with boxes drawn in the last run.
        drawn: number of images drawn in the last run.

    Raises:
        UserError: a score outside 0..1.
    """

    def __init__(self, folder: str, count: int = 16, score: float | None = 0.3,
                 title: str = 'prediction') -> None:
        if score is not None and not 0 <= score <= 1:
            raise UserError(f'score must be in 0..1, got {score}')
        self.folder = Path(folder)
        self.count = count
        self.score = score
        self.title = title
        self.seen: list[tuple[str, Boxes, Boxes]] = []
        self.drawn = 0

    def before_test(self, runner: Runner) -> None:
        """Start anew."""
        self.seen, self.drawn = [], 0

    def before_val(self, runner: Runner) -> None:
        """Start anew."""
        self.before_test(runner)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                       outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the images of a batch that are still due."""
        self._draw(runner.val_dataloader.dataset.metainfo, outputs or ())

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the images of a batch that are still due."""
        self._draw(runner.test_dataloader.dataset.metainfo, outputs or ())

    def _draw(self, meta: Mapping[str, Any], samples: Sequence[BaseDataElement]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for sample in samples[:max(self.count - self.drawn, 0)]:
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            if 'pred_depth_map' in sample:
                sheet = _depth(image, sample)
            else:
                sheet = self._segments(image, sample, meta) if _has_map(sample) else self._boxes(image, sample, meta)
            mmcv.imwrite(sheet[..., ::-1], str(self.folder / f'{Path(sample.img_path).stem}.png'))
            self.drawn += 1

    def _boxes(self, image: np.ndarray, sample: BaseDataElement, meta: Mapping[str, Any]) -> np.ndarray:
        truth, prediction = _truth(sample), _prediction(sample, self.score or 0.0)
        if self.score is None:
            prediction = surest(prediction, len(truth.labels))
        palette = meta.get('palette') or spread_palette(len(meta['classes']))
        self.seen.append((sample.img_path, truth, prediction))
        return beside_truth(image, truth, {self.title: prediction}, meta['classes'], palette)

    def _segments(self, image: np.ndarray, sample: BaseDataElement, meta: Mapping[str, Any]) -> np.ndarray:
        """Annotated classes at the left, where the sample has them, predicted segments at the right."""
        classes = sample.get('classes') or meta['classes']
        ids, segments = segment_map(sample)
        regions = [Region(info['id'], info['category_id'], info['score']) for info in segments
                   if info['score'] is None or info['score'] >= (self.score or 0.0)]
        sheets = [draw_segments(image, ids, regions, classes, width=_WIDTH)]
        truth = sample.get('gt_sem_seg')
        if truth is not None:
            labels = label_values(truth)
            if labels.shape != ids.shape:
                labels = mmcv.imresize(labels.astype(np.int32), ids.shape[::-1], interpolation='nearest')
            known = [int(label) for label in np.unique(labels) if label < len(classes)]
            sheets.insert(0, draw_segments(image, labels + 1, [Region(label + 1, label) for label in known], classes,
                                           width=_WIDTH))
        height = max(sheet.shape[0] for sheet in sheets)
        padded = [np.pad(sheet, ((0, height - sheet.shape[0]), (0, 0), (0, 0)), constant_values=255)
                  for sheet in sheets]
        return np.concatenate(padded, 1)


def _depth(image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
    """The picture beside its predicted depth, and beside the measured one where the sample has it."""
    found = [sample.get(key) for key in ('pred_depth_map', 'gt_depth_map') if key in sample]
    maps = [depth.data[0].float().cpu().numpy() for depth in found]
    pictures = [mmcv.imresize(image, values.shape[::-1]) for values in maps]
    # 0 is no measurement
    sheets = [draw_depth(picture, np.where(values > 0, values, np.nan), nearer_is_larger=False, width=_WIDTH)
              for picture, values in zip(pictures, maps)]
    return np.concatenate([sheet[:min(len(other) for other in sheets)] for sheet in sheets], 1)


def _has_map(sample: BaseDataElement) -> bool:
    return 'pred_panoptic_seg' in sample or 'pred_sem_seg' in sample


def _prediction(sample: BaseDataElement, score: float) -> Boxes:
    kept = sample.pred_instances[sample.pred_instances.scores >= score].cpu()
    return Boxes(kept.bboxes.numpy(), kept.labels.numpy(), kept.scores.numpy())


def _truth(sample: BaseDataElement) -> Boxes:
    if 'gt_instances' not in sample:
        raise UserError('the test pipeline gives no ground truth to draw; put LoadAnnotations(with_bbox=True) after '
                        'Resize')
    boxes = sample.gt_instances.bboxes
    boxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    return Boxes(boxes.cpu().numpy(), sample.gt_instances.labels.cpu().numpy())
