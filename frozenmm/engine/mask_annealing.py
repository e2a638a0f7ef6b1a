"""Masked attention that fades during training, so that the final network needs none."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.registry import HOOKS


def mask_probabilities(step: int, start: Sequence[int], end: Sequence[int], power: float = 0.9) -> Tensor:
    """How often masked attention is used before each block.

    Args:
        step: iterations done.
        start: (blocks,) steps up to which the probability is 1.
        end: (blocks,) steps from which it is 0.
        power: of the fall between them, (1 - progress) ** power.

    Returns:
        (blocks,) float32 in 0..1.
    """
    first, last = (torch.tensor(steps, dtype=torch.float64) for steps in (start, end))
    progress = ((step - first) / (last - first)).clamp(0, 1)
    return ((1 - progress)**power).float()


@HOOKS.register_module()
class MaskAnnealingHook(Hook):
    """Sets `attn_mask_probs` of a model's plain mask decoder before every training iteration.

    Args:
        start: steps at which the probability of each block begins to fall, counted in iterations.
        end: steps at which it is 0.
        power: see `mask_probabilities`.

    Raises:
        UserError: lists of different length, or an end that is not after its start.
    """

    def __init__(self, start: Sequence[int], end: Sequence[int], power: float = 0.9) -> None:
        if len(start) != len(end) or any(stop <= begin for begin, stop in zip(start, end)):
            raise UserError(f'every block needs a start and a later end, got start={list(start)} and end={list(end)}')
        self.start, self.end, self.power = list(start), list(end), power

    def before_train(self, runner: Runner) -> None:
        """Check that there is a decoder with as many blocks.

        Raises:
            UserError: none, or another number of blocks.
        """
        blocks = len(self._buffer(runner))
        if blocks != len(self.start):
            raise UserError(f'MaskAnnealingHook has steps for {len(self.start)} blocks, but the decoder has {blocks}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Write the probabilities of this iteration."""
        self._buffer(runner).copy_(mask_probabilities(runner.iter, self.start, self.end, self.power))

    @staticmethod
    def _buffer(runner: Runner) -> Tensor:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for module in model.modules():
            buffer = getattr(module, 'attn_mask_probs', None)
            if isinstance(buffer, Tensor):
                return buffer
        raise UserError('MaskAnnealingHook needs a model with a PlainMaskDecoder; take the hook out of custom_hooks')
