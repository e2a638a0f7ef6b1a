"""What SAM's last block does with a picture: its attention and values."""
from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.compat import require
from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.image_towers.sam_vit import ImageEncoderViT, relative_table
from frozenmm.foundation.resample import resample
from frozenmm.segmentation.dense_clip.aggregation import SamCells
from frozenmm.structures import ImageStats

Size = tuple[int, int]


class SamReader:
    """Shows pictures to SAM's image encoder.

    Args:
        tower: a `SAMTower`.

    Raises:
        UserError: another tower, or one whose last block does not look at the whole picture.
    """

    def __init__(self, tower: ImageTower) -> None:
        network = tower.network
        if not isinstance(network, ImageEncoderViT):
            raise UserError(f"aggregation by SAM needs sam=dict(type='frozenmm.SAMPrompter', ...) with a ViT encoder, "
                            f'got {tower.name}')
        if len(network.blocks) - 1 not in network.global_attn_indexes:
            raise UserError(f'the last block of {tower.name} does not look at the whole picture')
        self.tower = tower
        self.patch: int = network.patch_size

    def place(self, picture: Tensor) -> tuple[Tensor, Size]:
        """SAM's input for a picture.

        Args:
            picture: (3, H, W) RGB, whole numbers in 0..255.

        Returns:
            (1, 3, side, side) normalised, and the height and width of it that show the picture.
        """
        side = self.tower.size
        height, width = picture.shape[-2:]
        scale = side / max(height, width)
        shown = (int(height * scale + 0.5), int(width * scale + 0.5))
        region = torch.tensor([[0, 0, width, height]], dtype=torch.float64, device=picture.device)
        pixels = resample(picture[None].float(), region, shown, torch.tensor([[height, width]], device=picture.device),
                          interpolation='bilinear', source=ImageStats(), target=self.tower.input.stats, quantise=True)
        return F.pad(pixels, (0, side - shown[1], 0, side - shown[0])), shown

    def cells(self, picture: Tensor) -> SamCells:
        """Attention and values of the cells that show a picture (3, H, W) RGB in 0..255."""
        pixels, shown = self.place(picture)
        grid = (shown[0] // self.patch, shown[1] // self.patch)
        attention, values = self.tower.run(lambda network, x: last_block(network, x, grid), pixels)
        return SamCells(attention, values, grid)


def last_block(network: Any, pixels: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """Attention (heads, M, M) and values (heads, M, d) of the last block, of the first cells of each row and column.

    Args:
        network: SAM's image encoder.
        pixels: (1, 3, h, w).
        grid: rows and columns that are wanted, M cells; attention sums to 1 over all cells, also the others.
    """
    encoder = cast(ImageEncoderViT, network)
    x = encoder.patch_embed(pixels)
    x = x + encoder.positions((int(x.shape[1]), int(x.shape[2])))
    for block in encoder.blocks[:-1]:
        x = block(x)
    last: Any = encoder.blocks[-1]
    rows, columns = x.shape[1:3]
    qkv = last.attn.qkv(last.norm1(x)).view(rows * columns, 3, last.attn.heads, -1).permute(1, 2, 0, 3)
    query, key, value = qkv.unbind(0)
    index = torch.arange(rows * columns, device=x.device).view(rows, columns)[:grid[0], :grid[1]].flatten()
    heads = []
    for head in range(last.attn.heads):
        one = query[head][index]
        logits = one * one.shape[-1] ** -0.5 @ key[head].T
        if last.attn.use_rel_pos:
            logits += relative_bias(last.attn, one.view(*grid, -1), (rows, columns))
        heads.append(logits.softmax(-1)[:, index])
    return torch.stack(heads), value[:, index]


def relative_bias(attn: Any, query: Tensor, side: Size) -> Tensor:
    """(M, side[0] * side[1]): what relative positions add, for queries (rows, columns, d) of the first M cells."""
    rows, columns = (relative_table(table, cells)[:count] for table, cells, count in
                     zip((attn.rel_pos_h, attn.rel_pos_w), side, query.shape[:2]))
    along = torch.einsum('hwc,hkc->hwk', query, rows)
    across = torch.einsum('hwc,wkc->hwk', query, columns)
    return (along[..., :, None] + across[..., None, :]).flatten(2).flatten(0, 1)


def rounded_picture(picture: Tensor, multiple: int) -> Tensor:
    """A picture (3, H, W) with whole numbers in 0..255, its sides up to a multiple, as OpenCV resizes bytes."""
    height, width = picture.shape[-2:]
    target = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    if target == (height, width):
        return picture
    bytes_ = picture.permute(1, 2, 0).to(torch.uint8).cpu().numpy()
    resized = require('cv2', 'resizing a picture for SAM').resize(bytes_, target[::-1])
    return torch.from_numpy(resized).permute(2, 0, 1).to(picture)
