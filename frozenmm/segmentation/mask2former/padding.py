"""Which cells of a feature map show padding instead of image."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Padding:
    """The padding of a batch, at any resolution.

    The official code lets padding take part in attention and pooling; its weights were trained so. Models trained anew
    may leave it out.

    Args:
        sizes: height and width of each of the B images, in pixels; pairs or (B, 2).
        canvas: height and width of the padded batch, which the maps cover.
        device: where the masks lie.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]] | Tensor, canvas: tuple[int, int],
                 device: torch.device) -> None:
        self.sizes = torch.as_tensor(sizes, dtype=torch.float32, device=device)
        self.canvas = canvas

    def at(self, size: tuple[int, int]) -> Tensor:
        """(B, 1, h, w) bool: cells whose centre lies outside the image."""
        axes = [(torch.arange(cells, device=self.sizes.device) + 0.5) * (whole / cells)
                for cells, whole in zip(size, self.canvas)]
        rows, columns = axes[0] >= self.sizes[:, :1], axes[1] >= self.sizes[:, 1:]
        return rows[:, None, :, None] | columns[:, None, None, :]

    def cut(self, mask_logits: Tensor) -> Tensor:
        """Mask logits (B, Q, h, w), strongly negative in the padding and without gradient there."""
        return mask_logits.masked_fill(self.at((mask_logits.shape[-2], mask_logits.shape[-1])), -1e4)
