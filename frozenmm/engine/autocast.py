"""Mixed precision without a loss scale, on any device."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from frozenmm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An optimizer wrapper that computes the loss under bfloat16 autocast.

    bfloat16 has the range of float32 and needs no loss scale, so it also works on a CPU, where mmengine's
    `AmpOptimWrapper` refuses to run.

    Args:
        **kwargs: for `mmengine.optim.OptimWrapper`: `optimizer`, `accumulative_counts`, `clip_grad`.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast on the device of the model."""
        device = next(model.parameters()).device
        with super().optim_context(model), torch.autocast(device.type, dtype=torch.bfloat16):
            yield
