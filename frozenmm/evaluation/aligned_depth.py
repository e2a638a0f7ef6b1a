"""Depth errors of predictions that are known up to scale, scale and shift, or smooth factors."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.evaluation.depth import ALIGNMENTS, VALID_FROM, align_depth, depth_errors
from frozenmm.foundation.local_lines import fit_local_lines
from frozenmm.registry import METRICS

METHODS = (*ALIGNMENTS, 'lwlr')


@METRICS.register_module()
class AlignedDepthMetric(BaseMetric):
    """AbsRel, delta and the other measures of `depth_errors` after every image was aligned with its truth.

    Takes samples with `pred_depth_map` and `gt_depth_map`, as mmseg's depth models give them.

    Args:
        alignments: among `'none'`, `'median_scale'`, `'lsq_scale'`, `'lsq_scale_shift'` and `'lwlr'`. The last bends
            the prediction to `lwlr_points` measured pixels, drawn on a fixed seed, and is scored on the others.
        min_depth: nearer truth does not count.
        max_depth: farther truth does not count.
        lwlr_points: of the last alignment.
        measures: names of measures to report, all by default.
        collect_device: see mmengine.
        prefix: see mmengine.

    Raises:
        UserError: unknown alignment or measure.
    """

    default_prefix = 'depth'
    MEASURES = ('abs_rel', 'sq_rel', 'rmse', 'log_rmse', 'log10', 'delta1', 'delta2', 'delta3', 'silog')

    def __init__(self, alignments: Sequence[str] = ('median_scale', 'lsq_scale_shift', 'lwlr'), *,
                 min_depth: float = 0.0, max_depth: float = float('inf'), lwlr_points: int = 100,
                 measures: Sequence[str] | None = None, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        for kind, given, known in (('alignment', alignments, METHODS), ('measure', measures or (), self.MEASURES)):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise UserError(f'unknown {kind} {unknown}; known are {list(known)}')
        if lwlr_points < 2:
            raise UserError(f'lwlr_points must be at least 2, got {lwlr_points}')
        self.alignments, self.measures = list(alignments), list(measures or self.MEASURES)
        self.min_depth, self.max_depth, self.lwlr_points = min_depth, max_depth, lwlr_points

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Score a batch; an image without measured depth in range does not count."""
        for sample in data_samples:
            truth = sample['gt_depth_map']['data'].squeeze(0).double()
            prediction = sample['pred_depth_map']['data'].squeeze(0).to(truth)
            if prediction.shape != truth.shape:
                raise UserError(f'the prediction has {tuple(prediction.shape)} pixels, the truth '
                                f'{tuple(truth.shape)}; depth is compared at the size of the original image, so load '
                                'the truth after the resize of the pipeline')
            valid = (truth > max(self.min_depth, VALID_FROM)) & (truth < self.max_depth)
            if int(valid.sum()) > self.lwlr_points:
                self.results.append({name: self._errors(prediction, truth, valid, name) for name in self.alignments})

    def _errors(self, prediction: Tensor, truth: Tensor, valid: Tensor, method: str) -> dict[str, float]:
        if method != 'lwlr':
            return depth_errors(align_depth(prediction, truth, method=method, valid=valid), truth, valid=valid)
        pixels = valid.nonzero()
        chosen = np.random.default_rng(0).permutation(len(pixels))[:self.lwlr_points]
        pixels = pixels[torch.from_numpy(chosen).to(pixels.device)]
        aligned = fit_local_lines(prediction, pixels, truth[pixels[:, 0], pixels[:, 1]])
        left = valid.clone()
        left[pixels[:, 0], pixels[:, 1]] = False
        return depth_errors(aligned, truth, valid=left)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Means over the images, as `alignment/measure`.

        Raises:
            UserError: no image had enough measured depth.
        """
        if not results:
            raise UserError(f'no image had more than {self.lwlr_points} pixels of measured depth between '
                            f'{self.min_depth} and {self.max_depth}; look at depth_rescale_factor and the range')
        return {f'{name}/{measure}': float(np.mean([result[name][measure] for result in results]))
                for name in self.alignments for measure in self.measures}
