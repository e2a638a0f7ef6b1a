"""Several class tokens in one forward of a ViT: each sees one cell of a pyramid over the patches (Frozen-DETR).

Order inside the transformer: cells first (2x2 row by row, then 3x3, ...), then the ordinary class token, then the
patches. Cell tokens see themselves and the patches of their cell; all others see everything but cell tokens, so they
are what they would be without them.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.image_tower import TOKEN_COUNTS


def pyramid_cells(grid: tuple[int, int], num_tokens: int, device: torch.device | None = None) -> Tensor:
    """Which patches the image tokens stand for.

    Args:
        grid: rows and columns of patches.
        num_tokens: 1, 5, 14 or 30.
        device: of the result.

    Returns:
        (T, rows * columns) bool, whole image first. Cells are those of adaptive pooling: equal and disjoint where
        k divides the grid (the official case), overlapping by at most one patch where it does not.

    Raises:
        ValueError: another number of tokens.
    """
    if not TOKEN_COUNTS.get(num_tokens):
        raise ValueError(f'num_tokens must be one of {[count for count in TOKEN_COUNTS if count]}, got {num_tokens}')
    cells = []
    for k in range(1, TOKEN_COUNTS[num_tokens] + 1):
        rows, columns = (_spans(side, k, device) for side in grid)
        cells.append((rows[:, None, :, None] & columns[None, :, None, :]).reshape(k * k, -1))
    return torch.cat(cells)


def _spans(side: int, k: int, device: torch.device | None) -> Tensor:
    """(k, side) bool: cell i spans floor(i * side / k) up to ceil((i + 1) * side / k)."""
    index, cell = torch.arange(side, device=device), torch.arange(k, device=device)[:, None]
    return (index >= cell * side // k) & (index < ((cell + 1) * side + k - 1) // k)


def multi_token_mask(grid: int | tuple[int, int], num_tokens: int) -> Tensor:
    """The attention mask of the whole sequence; True where a query (row) may not attend.

    Args:
        grid: side of a square patch grid, or (rows, columns).
        num_tokens: 1, 5, 14 or 30.

    Returns:
        (T + N, T + N) bool in the order inside the transformer: cell tokens, class token, patches.
    """
    grid = (grid, grid) if isinstance(grid, int) else grid
    cells = pyramid_cells(grid, num_tokens)[1:]
    extra = num_tokens - 1
    length = num_tokens + cells.shape[1]
    mask = torch.zeros(length, length, dtype=torch.bool)
    mask[:, :extra] = True
    mask[:extra] = True
    mask[:extra, :extra].fill_diagonal_(False)
    mask[:extra, num_tokens:] = ~cells
    return mask


def cell_rows(grid: tuple[int, int], num_tokens: int, prefix: int = 1,
              device: torch.device | None = None) -> Tensor | None:
    """What the cell tokens may attend to; None if there are none (one image token).

    Args:
        grid: rows and columns of patches.
        num_tokens: T: 1, 5, 14 or 30.
        prefix: number of tokens between cell tokens and patches (class token, registers).
        device: of the result, which is built there.

    Returns:
        (T-1, T-1 + prefix + N) bool, True where a cell token may attend.
    """
    if num_tokens == 1:
        return None
    cells = pyramid_cells(grid, num_tokens, device)[1:]
    own = torch.eye(len(cells), dtype=torch.bool, device=device)
    return torch.cat([own, own.new_zeros(len(cells), prefix), cells], 1)


def through(blocks: Iterable[nn.Module], x: Tensor, *arguments: object,
            taps: Collection[int] = ()) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a token sequence through blocks.

    Args:
        blocks: called with the sequence and `arguments`, each gives the sequence for the next.
        x: (B, L, C).
        arguments: the same for every block.
        taps: blocks, counted from 0, whose output is kept.

    Returns:
        The last output, and those kept as `'tap5'`, ...
    """
    kept = {}
    for index, block in enumerate(blocks):
        x = block(x, *arguments)
        if index in taps:
            kept[f'tap{index}'] = x
    return x, kept


def attend(query: Tensor, key: Tensor, value: Tensor, cells: Tensor | None = None) -> Tensor:
    """Attention under `multi_token_mask`, in two parts, so that the large one needs no mask (and runs as flash).

    Args:
        query: (B, heads, L, channels): cell tokens, class token, registers, patches.
        key: likewise.
        value: likewise.
        cells: (T-1, L) of `cell_rows`.

    Returns:
        The shape of `query`.
    """
    if cells is None:
        return F.scaled_dot_product_attention(query, key, value)
    extra = len(cells)
    main = F.scaled_dot_product_attention(query[:, :, extra:], key[:, :, extra:], value[:, :, extra:])
    few = F.scaled_dot_product_attention(query[:, :, :extra], key, value, attn_mask=cells)
    return torch.cat([few, main], 2)
