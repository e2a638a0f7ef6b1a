"""How well masks of phrases fit: cIoU over all phrases together, mIoU over each, and the share above thresholds."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from frozenmm.errors import UserError
from frozenmm.registry import METRICS


@METRICS.register_module()
class ReferringIoU(BaseMetric):
    """Reads `pred_phrase_masks` and `gt_phrase_masks` (N, H, W).

    Args:
        collect_device: see mmengine.
        prefix: see mmengine.

    Results in percent: `cIoU`, intersections over unions summed over all phrases; `mIoU`, the mean over phrases; and
    `P@0.5`, `P@0.7`, `P@0.9`, the phrases of at least that IoU. A phrase without pixels in truth and prediction is 1.
    """

    default_prefix = 'referring'
    THRESHOLDS = (0.5, 0.7, 0.9)

    def __init__(self, *, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Count the pixels of every phrase."""
        for sample in data_samples:
            if 'pred_phrase_masks' not in sample or 'gt_phrase_masks' not in sample:
                raise UserError('ReferringIoU found no `pred_phrase_masks` or `gt_phrase_masks` in a data sample; it '
                                'scores frozenmm.FrozenLMMGrounder on frozenmm.PhraseMasks')
            predicted, truth = (sample[key]['data'].bool() for key in ('pred_phrase_masks', 'gt_phrase_masks'))
            truth = truth.to(predicted.device)
            both, either = (predicted & truth).flatten(1).sum(1), (predicted | truth).flatten(1).sum(1)
            self.results += list(zip(both.tolist(), either.tolist()))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        """The measures over all phrases.

        Raises:
            UserError: there was no phrase.
        """
        if not results:
            raise UserError('no phrase was scored; the data set is empty')
        both, either = np.asarray(results, dtype=np.float64).T
        iou = np.where(either > 0, both / np.maximum(either, 1), 1.0)
        return {'cIoU': float(100 * both.sum() / max(either.sum(), 1)), 'mIoU': float(100 * iou.mean()),
                **{f'P@{threshold}': float(100 * (iou >= threshold).mean()) for threshold in self.THRESHOLDS}}
