"""Test-time pictures: predictions beside ground truth, written while the metrics are computed."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from frozenmm.registry import HOOKS
from frozenmm.visualization.detections import Boxes, beside_truth, spread_palette


@HOOKS.register_module()
class BesideTruthHook(Hook):
    """Draws the first images of a test run.

    The test pipeline must load annotations after resizing, as mmdet's does, so that boxes are in pixels of the file.

    Args:
        folder: gets one PNG per image.
        count: number of images.
        score: predictions below it are not drawn.
        title: heading of the prediction.

    Attributes:
        seen: (image file, truth, prediction) of every image drawn in the last run.

    Raises:
        ValueError: a score outside 0..1.
    """

    def __init__(self, folder: str, count: int = 16, score: float = 0.3, title: str = 'prediction') -> None:
        if not 0 <= score <= 1:
            raise ValueError(f'score must be in 0..1, got {score}')
        self.folder = Path(folder)
        self.count = count
        self.score = score
        self.title = title
        self.seen: list[tuple[str, Boxes, Boxes]] = []

    def before_test(self, runner: Runner) -> None:
        """Start anew."""
        self.seen = []

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the images of a batch that are still due."""
        meta = runner.test_dataloader.dataset.metainfo
        self.folder.mkdir(parents=True, exist_ok=True)
        palette = meta.get('palette') or spread_palette(len(meta['classes']))
        for sample in (outputs or ())[:max(self.count - len(self.seen), 0)]:
            path, truth, prediction = sample.img_path, _truth(sample), _prediction(sample, self.score)
            image = mmcv.imread(path, channel_order='rgb')
            sheet = beside_truth(image, truth, {self.title: prediction}, meta['classes'], palette)
            mmcv.imwrite(sheet[..., ::-1], str(self.folder / f'{Path(path).stem}.png'))
            self.seen.append((path, truth, prediction))


def _prediction(sample: BaseDataElement, score: float) -> Boxes:
    kept = sample.pred_instances[sample.pred_instances.scores >= score].cpu()
    return Boxes(kept.bboxes.numpy(), kept.labels.numpy(), kept.scores.numpy())


def _truth(sample: BaseDataElement) -> Boxes:
    if 'gt_instances' not in sample:
        raise ValueError('the test pipeline gives no ground truth to draw; put LoadAnnotations(with_bbox=True) after '
                         'Resize')
    boxes = sample.gt_instances.bboxes
    boxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
    return Boxes(boxes.cpu().numpy(), sample.gt_instances.labels.cpu().numpy())
