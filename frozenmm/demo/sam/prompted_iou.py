"""How well masks answer prompts."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from frozenmm.registry import METRICS

OVERLAPS = ('point_best', 'point_chosen', 'box')


@METRICS.register_module()
class PromptedIoU(BaseMetric):
    """Mean IoU in percent of the masks that points and boxes get.

    Reads the results of `DemoSAM.predict`. `point_best` is the best of a point's three masks, `point_chosen` the one
    with the highest predicted IoU; `correlation` is that of predicted and true IoU over all masks of points.

    Args:
        collect_device, prefix: see mmengine's `BaseMetric`.
    """

    default_prefix = 'prompt'

    def process(self, data_batch: object, data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Keep the overlaps of each image."""
        self.results.extend({key: value.cpu() for key, value in sample.items()} for sample in data_samples)

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """Means over all prompts."""
        joined = {key: torch.cat([result[key] for result in results]).double() for key in results[0]}
        metrics = {key: 100 * float(joined[key].mean()) for key in OVERLAPS}
        metrics['correlation'] = float(torch.corrcoef(torch.stack([joined['predicted'], joined['true']]))[0, 1])
        MMLogger.get_current_instance().info(', '.join(f'{key} {value:.2f}' for key, value in metrics.items()))
        return metrics
