"""`BestCheckpointHook`: MMEngine's checkpoints, and the best one by the metric that a task is judged by."""
from __future__ import annotations

import re
from collections.abc import Mapping

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from frozenmm.registry import HOOKS

_GREATER = (r'(^|[/_])PQ$', r'(^|[/_])segm_mAP$', r'(^|[/_])bbox_mAP$', r'(^|/)mIoU$', r'(^|[/_])m?AP$', r'(^|/)AR@',
            r'Recall', r'(^|/)a1$', r'(^|/)delta', r'acc', r'mDice')
_LESS = (r'abs_?rel', r'rmse', r'silog', r'loss', r'error')


def main_metric(metrics: Mapping[str, float]) -> tuple[str, str] | None:
    """Name and rule (`'greater'` or `'less'`) of the metric that a task is judged by, or None where none is known.

    >>> main_metric({'aAcc': 90.0, 'mIoU': 50.0}), main_metric({'abs_rel': 0.1, 'a1': 0.9}), main_metric({'x': 1.0})
    (('mIoU', 'greater'), ('abs_rel', 'less'), None)
    """
    patterns = [(pattern, 'greater') for pattern in _GREATER[:6]]
    patterns += [(pattern, 'less') for pattern in _LESS] + [(pattern, 'greater') for pattern in _GREATER[6:]]
    return next(((name, rule) for pattern, rule in patterns for name in metrics
                 if re.search(pattern, name, re.IGNORECASE)), None)


@HOOKS.register_module()
class BestCheckpointHook(CheckpointHook):
    """MMEngine's `CheckpointHook`; `save_best='auto'` finds the metric by its name, and does without if it cannot.

    MMEngine takes the first metric of a validation and ends the training where it does not know its direction.
    """

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float] | None) -> None:
        if self.save_best and 'auto' in self.key_indicators:
            found = main_metric(metrics or {})
            if found is None:
                return
            name, rule = found
            self._init_rule([rule], [name])
            metrics = {name: (metrics or {})[name]}
        super()._save_best_checkpoint(runner, metrics)
