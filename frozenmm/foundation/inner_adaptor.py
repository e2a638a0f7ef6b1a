"""Trained copies of frozen blocks behind them, a set for every task; off, the tower is what it was."""
from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.inside_blocks import Hook, TowerWithParts, transformer_blocks
from frozenmm.foundation.lookup import choice
from frozenmm.registry import MODELS


class InnerLayer(nn.Module):
    """A trained copy of a frozen block: x + gate * (copy(x) - x), the gate 0 at the start; without gate copy(x)."""

    def __init__(self, block: nn.Module, *, gated: bool) -> None:
        super().__init__()
        self.block = copy.deepcopy(block).requires_grad_(True)
        self.gate = nn.Parameter(torch.zeros(())) if gated else None

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """Tokens to tokens of one shape; `rest` is what the frozen block was given beside them."""
        inner = self.block(x, *rest)
        return inner if self.gate is None else x + self.gate * (inner - x)


@MODELS.register_module()
class InnerAdaptor(TowerWithParts):
    """A frozen ViT whose chosen blocks are followed by trained copies of themselves.

    `task` says whose copies run: the first task's at the start; None runs the frozen blocks alone, whose output is then
    that of the tower itself, bit for bit.

    Args:
        tower: config of an image tower with transformer blocks, or a built one.
        after: the blocks, counted from 0, that get a copy behind them.
        tasks: names of the tasks, each with copies of its own.
        gated: start at the frozen output, see `InnerLayer`; False starts with the blocks applied twice, as their paper
            initialises its interaction layers from the layers before them.
        **options: arguments of the tower where its config does not name them.

    Raises:
        UserError: no transformer blocks, or there is no such block.

    Source: Inner-Adaptor Architecture (Wang et al., 2024), trained copies of an LLM's layers inside it that text-only
    input leaves out. Theirs is a language model; here the inputs that leave them out are those of another task.
    """

    def __init__(self, tower: Mapping[str, Any] | ImageTower, after: Sequence[int], *,
                 tasks: Sequence[str] = ('main', ), gated: bool = True, **options: object) -> None:
        super().__init__(tower, **options)
        blocks = transformer_blocks(self)
        if not after or any(not 0 <= block < len(blocks) for block in after) or len(set(after)) < len(after):
            raise UserError(f'after must name different blocks from 0 to {len(blocks) - 1}, got {list(after)}')
        if not tasks:
            raise UserError('InnerAdaptor needs the name of at least one task')
        self.after = tuple(sorted(after))
        self.layers = nn.ModuleDict({task: nn.ModuleList(InnerLayer(blocks[block], gated=gated)
                                                         for block in self.after) for task in tasks})
        self._task: str | None = next(iter(self.layers))

    @property
    def task(self) -> str | None:
        """Whose copies run; None: nobody's."""
        return self._task

    @task.setter
    def task(self, name: str | None) -> None:
        self._task = None if name is None else choice('task', name, list(self.layers))

    def hooks(self, network: nn.Module) -> list[Hook]:
        """See `TowerWithParts.hooks`."""
        if self._task is None:
            return []
        blocks = transformer_blocks(self)

        def behind(layer: nn.Module) -> Callable[..., Any]:
            return lambda block, given, output: layer(output, *given[1:])

        layers = cast(nn.ModuleList, self.layers[self._task])
        return [(blocks[block], behind(layer), False) for block, layer in zip(self.after, layers)]
