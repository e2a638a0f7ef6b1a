"""Test-time pictures: predictions beside ground truth, written while the metrics are computed."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from frozenmm.registry import HOOKS
from frozenmm.visualization.detections import Boxes, beside_truth


@HOOKS.register_module()
class BesideTruthHook(Hook):
    """Draws the first images of a test run.

    The test pipeline must load annotations after resizing, as mmdet's does, so that boxes are in pixels of the file.

    Args:
        folder: gets one PNG per image.
        count: number of images.
        score: predictions below it are not drawn.
        title: shown above the prediction.

    Raises:
        ValueError: a score outside 0..1.
    """

    def __init__(self, folder: str, count: int = 16, score: float = 0.3, title: str = '') -> None:
        if not 0 <= score <= 1:
            raise ValueError(f'score must be in 0..1, got {score}')
        self.folder = Path(folder)
        self.count = count
        self.score = score
        self.title = title
        self._drawn = 0

    def before_test(self, runner: Runner) -> None:
        """Start counting anew."""
        self._drawn = 0

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the images of a batch that are still due."""
        meta = runner.test_dataloader.dataset.metainfo
        for sample in (outputs or ())[:max(self.count - self._drawn, 0)]:
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            predicted = sample.pred_instances[sample.pred_instances.scores >= self.score].cpu()
            prediction = Boxes(predicted.bboxes.numpy(), predicted.labels.numpy(), predicted.scores.numpy())
            palette = meta.get('palette') or _palette(len(meta['classes']))
            sheet = beside_truth(image, _truth(sample), prediction, meta['classes'], palette, title=self.title)
            self.folder.mkdir(parents=True, exist_ok=True)
            mmcv.imwrite(sheet[..., ::-1], str(self.folder / f'{Path(sample.img_path).stem}.png'))
            self._drawn += 1


def _truth(sample: BaseDataElement) -> Boxes:
    if 'gt_instances' not in sample:
        raise ValueError('the test pipeline gives no ground truth to draw; put LoadAnnotations(with_bbox=True) after Resize')
    boxes = sample.gt_instances.bboxes
    boxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    return Boxes(boxes.cpu().numpy(), sample.gt_instances.labels.cpu().numpy())


def _palette(count: int) -> list[tuple[int, int, int]]:
    """Evenly spread hues for data sets without a palette of their own."""
    angles = np.arange(count) * 2.399963  # golden angle: neighbours differ most
    return [tuple(int(127 + 110 * np.cos(angle + shift)) for shift in (0.0, 2.094, 4.189)) for angle in angles]
