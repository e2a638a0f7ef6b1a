"""What the blocks of a frozen transformer change, and which of them can be left out at which error."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower, RawFeatures
from frozenmm.foundation.inside_blocks import Hook, TowerWithParts, hooked, transformer_blocks
from frozenmm.registry import MODELS


@dataclass(frozen=True)
class SkipRow:
    """What a tower without some blocks costs and gives.

    Attributes:
        blocks: that are left out.
        error: |map - whole map| / |whole map| of the last map.
        cosine: mean cosine of its cells with those of the whole tower.
        seconds: median of a forward pass; `share` of the whole tower's.
        share: see above.
    """

    blocks: tuple[int, ...]
    error: float
    cosine: float
    seconds: float
    share: float


@MODELS.register_module()
class SkippingTower(TowerWithParts):
    """A frozen ViT without some of its blocks, for speed; `frozenmm analyse layers` says which and at what error.

    Args:
        tower: config of an image tower with transformer blocks, or a built one.
        skip: blocks, counted from 0, that are left out.
        **options: arguments of the tower where its config does not name them.

    Raises:
        UserError: no transformer blocks, there is no such block, or none is left.
    """

    def __init__(self, tower: Mapping[str, Any] | ImageTower, skip: Collection[int], **options: object) -> None:
        super().__init__(tower, **options)
        self._found = len(transformer_blocks(self))
        self.skip = skip  # type: ignore[assignment]

    @property
    def skip(self) -> tuple[int, ...]:
        """The blocks that are left out."""
        return self._skip

    @skip.setter
    def skip(self, blocks: Collection[int]) -> None:
        chosen = tuple(sorted(set(blocks)))
        if any(not 0 <= block < self._found for block in chosen) or len(chosen) == self._found:
            raise UserError(f'skip must leave out some of the blocks 0 to {self._found - 1}, got {list(blocks)}')
        self._skip = chosen

    def hooks(self, network: nn.Module) -> list[Hook]:
        """None: blocks are replaced, not listened to."""
        return []

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`."""
        blocks, mine = transformer_blocks(self), threading.get_ident()
        with ExitStack() as held:
            for block in (blocks[index] for index in self.skip):
                whole = block.forward

                def forward(x: Tensor, *rest: Any, whole: Callable[..., Any] = whole) -> Any:
                    return x if threading.get_ident() == mine else whole(x, *rest)

                block.forward = forward  # an attribute of this block, over its class's method
                held.callback(block.__dict__.pop, 'forward')
            return super().extract(network, pixels, num_tokens)


@torch.no_grad()
def block_tokens(tower: ImageTower, images: Tensor) -> list[Tensor]:
    """The tokens (B, N, C) before the first block and after each, of images (B, 3, H, W) in 0..255."""
    kept: list[Tensor] = []

    def keep(block: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        for value in (given[0], output) if not kept else (output, ):
            kept.append(value.detach().flatten(1, -2).float())

    with hooked((block, keep, False) for block in transformer_blocks(tower)):
        tower(images)
    return kept


def block_cosines(tokens: Sequence[Tensor]) -> list[float]:
    """Mean cosine of every token before and after each block: near 1 where a block changes little.

    Source: Implicit Multimodal Alignment (Shukor & Cord, NeurIPS 2024), whose measure between consecutive layers it is.
    """
    return [float(F.cosine_similarity(before, after, dim=-1).mean()) for before, after in zip(tokens, tokens[1:])]


def modality_cosines(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[float]:
    """Cosine of the mean tokens of two inputs after each block, e.g. of pictures of two kinds, or pictures and texts.

    Source: Implicit Multimodal Alignment, where they are the image and text tokens of one language model.

    Raises:
        UserError: the two have different widths or numbers of blocks.
    """
    if len(first) != len(second) or first[0].shape[-1] != second[0].shape[-1]:
        raise UserError(f'two inputs are compared in one space: {len(first)} layers of width {first[0].shape[-1]} '
                        f'and {len(second)} of width {second[0].shape[-1]} are two')
    means = [[tokens.flatten(0, -2).mean(0) for tokens in layers] for layers in (first, second)]
    return [float(F.cosine_similarity(a, b, dim=0)) for a, b in zip(*means)]


@torch.no_grad()
def skip_table(tower: ImageTower, images: Tensor, counts: Sequence[int], *, repeats: int = 5) -> list[SkipRow]:
    """Speed against error when the blocks that change least are left out; the first row is the whole tower.

    Args:
        tower: with transformer blocks.
        images: (B, 3, H, W) in 0..255.
        counts: numbers of blocks to leave out.
        repeats: forward passes of each, in turn, of which the median time counts.

    Raises:
        UserError: no transformer blocks, or a count that leaves none.
    """
    cosines = block_cosines(block_tokens(tower, images))
    order = sorted(range(len(cosines)), key=lambda block: -cosines[block])
    if any(not 0 <= count < len(order) for count in counts):
        raise UserError(f'{tower.name} has {len(order)} blocks, of which 0 to {len(order) - 1} can be left out; got '
                        f'{list(counts)}')
    skipping = SkippingTower(tower, ())
    sets = [(), *(tuple(sorted(order[:count])) for count in counts if count)]
    maps: list[Tensor] = []
    seconds: list[list[float]] = [[] for _ in sets]
    for turn in range(repeats + 1):  # the first is not timed
        for place, skipping.skip in enumerate(sets):
            start = time.perf_counter()
            found = skipping(images).map()
            if images.device.type == 'cuda':
                torch.cuda.synchronize()
            if turn:
                seconds[place].append(time.perf_counter() - start)
            else:
                maps.append(found)
    whole, medians = maps[0], [sorted(values)[len(values) // 2] for values in seconds]
    return [SkipRow(blocks, float((found - whole).norm() / whole.norm().clamp(min=1e-12)),
                    float(F.cosine_similarity(found, whole, dim=1).mean()), median, median / medians[0])
            for blocks, found, median in zip(sets, maps, medians)]
