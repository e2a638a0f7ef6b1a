"""Position tables for other grids than the one that a network was trained on."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

OFFSET = 0.1
"""What DINO, and after it SCLIP, NACLIP and ProxyCLIP, add to the number of cells before they divide by the old one."""


def resized_positions(table: Tensor, side: int, grid: tuple[int, int], *, rule: str = 'factor',
                      compat: bool = False) -> Tensor:
    """A CLIP ViT's position table for a grid.

    Args:
        table: (1 + side * side, D), the class token first.
        side: of the grid that the table is made for.
        grid: rows and columns wanted.
        rule: `'factor'`: bicubic by the factor (cells + 0.1) / side, which also maps the coordinates (DINO, SCLIP,
            NACLIP, ProxyCLIP, Trident); `'size'`: bicubic to the size (MaskCLIP).
        compat: as SCLIP's code: a grid with as many cells as the table is taken for the same grid.

    Returns:
        (1 + rows * columns, D), dtype of `table`.
    """
    if grid == (side, side) or (compat and grid[0] * grid[1] == side * side):
        return table
    cells = table[1:].float().view(1, side, side, -1).permute(0, 3, 1, 2)
    if rule == 'factor':
        factor = ((grid[0] + OFFSET) / side, (grid[1] + OFFSET) / side)
        cells = F.interpolate(cells, scale_factor=factor, mode='bicubic', align_corners=False)
    else:
        cells = F.interpolate(cells, grid, mode='bicubic', align_corners=False)
    return torch.cat([table[:1], cells.flatten(2)[0].t().to(table)])
