"""Checkpoints of a training that a kill or a full disk cannot take away."""
from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from frozenmm.compat.checkpoint import UnsafeCheckpoint, load_checkpoint_file
from frozenmm.compat.files import remove_abandoned_parts, write_whole
from frozenmm.errors import UserError
from frozenmm.registry import HOOKS

_LEAST = 2
_BACKEND = 'frozenmm_whole'
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


class _WholeFiles(LocalBackend):
    """MMEngine's local files, but written as a whole or not at all, and removed when that has succeeded."""

    def __init__(self) -> None:
        self._outdated: list[str] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file; it is on the disk before it has its name."""
        write_whole(filepath, obj, durable=True)

    def remove(self, filepath: str | Path) -> None:
        """Remember a file to be removed."""
        self._outdated.append(str(filepath))

    def remove_outdated(self) -> None:
        """Remove what `remove` has named."""
        while self._outdated:
            Path(self._outdated.pop()).unlink(missing_ok=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's `CheckpointHook` that removes an old checkpoint only when the new one is whole.

    Takes the arguments of `CheckpointHook`. With `save_best='auto'` the metric is found by its name, and done without
    if it cannot be; MMEngine takes the first one and ends the training where it does not know its direction. At least
    two checkpoints are kept: one is of no use when it is damaged. The tools put this hook in the place of
    `CheckpointHook`.
    """

    max_keep_ckpts: int
    backend_args: dict | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if 0 < self.max_keep_ckpts < _LEAST:
            print_log(f'max_keep_ckpts={self.max_keep_ckpts}: {_LEAST} checkpoints are kept all the same, so that a '
                      'damaged one costs little', logger='current')
            self.max_keep_ckpts = _LEAST

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; what killed processes left half-written in it goes."""
        if self.backend_args is None and self.file_client_args is None and '://' not in (self.out_dir or ''):
            register_backend(_BACKEND, _WholeFiles, force=True)
            self.backend_args = dict(backend=_BACKEND)
        super().before_train(runner)
        if isinstance(self.file_backend, _WholeFiles):
            remove_abandoned_parts(Path(self.out_dir))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float] | None) -> None:
        if self.save_best and 'auto' in self.key_indicators:
            found = main_metric(metrics or {})
            if found is None:
                return
            name, rule = found
            self._init_rule([rule], [name])
            metrics = {name: (metrics or {})[name]}
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        if isinstance(self.file_backend, _WholeFiles):
            self.file_backend.remove_outdated()


def use_safe_checkpoints(cfg: Config) -> None:
    """Put `SafeCheckpointHook` in the place of `CheckpointHook`, in place."""
    hooks = cfg.setdefault('default_hooks', {}) or {}
    hook = hooks.get('checkpoint', dict(type='CheckpointHook'))
    if hook is not None and hook.get('type') in ('CheckpointHook', CheckpointHook):
        cfg.default_hooks = {**hooks, 'checkpoint': {**hook, 'type': 'frozenmm.SafeCheckpointHook'}}


def latest_whole_checkpoint(folder: str | Path, *, trusted: bool = False) -> Path | None:
    """The newest checkpoint of a work folder that opens; None if it has none at all.

    Args:
        folder: the work folder.
        trusted: see `load_checkpoint_file`.

    Raises:
        UnsafeCheckpoint: the newest one needs trust.
        UserError: there are some, but none opens.
    """
    paths = [path for path in Path(folder).glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+', path.stem)]
    reasons = []
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        try:
            load_checkpoint_file(path, trusted=trusted)
        except UnsafeCheckpoint:
            raise
        except UserError as error:
            reasons.append(str(error))
            continue
        if reasons:
            print_log(f'{"; ".join(reasons)}: the training goes on from {path}', logger='current',
                      level=logging.WARNING)
        return path
    if reasons:
        raise UserError(f'no checkpoint in {Path(folder).absolute()} opens ({"; ".join(reasons)}); train without '
                        '--resume, in another work folder')
    return None
