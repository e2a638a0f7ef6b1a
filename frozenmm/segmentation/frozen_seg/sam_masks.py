"""SAM's automatic masks as an input: prepared once per image, stored small, read back at image size."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError

LARGEST = 50  # official: only the 50 largest masks of an image are used


@dataclass
class SAMMasks:
    """The automatic masks of one image.

    Attributes:
        logits: (M, h, w) mask logits over the whole image, at any resolution.
        size: (height, width) of the image in pixels.
        predicted_iou: (M,) float32, SAM's own guess of each mask's quality; None where unknown.
    """

    logits: Tensor
    size: tuple[int, int]
    predicted_iou: Tensor | None = None

    def __post_init__(self) -> None:
        if self.logits.dim() != 3 or not self.logits.is_floating_point():
            raise UserError('SAM mask logits must be floating point (M, h, w), got '
                            f'{self.logits.dtype} {tuple(self.logits.shape)}')
        if self.predicted_iou is not None and len(self.predicted_iou) != len(self.logits):
            raise UserError(f'{len(self.logits)} SAM masks but {len(self.predicted_iou)} predicted IoUs')

    def full(self) -> Tensor:
        """(M, H, W) float32 logits at image size, resized bilinearly."""
        if len(self.logits) == 0:
            return self.logits.new_zeros(0, *self.size, dtype=torch.float32)
        if tuple(self.logits.shape[-2:]) == self.size:
            return self.logits.float()
        return F.interpolate(self.logits[:, None].float(), size=self.size, mode='bilinear', align_corners=False)[:, 0]

    def largest(self, count: int = LARGEST) -> SAMMasks:
        """The `count` largest masks by area, largest first; the official choice."""
        order = (self.logits > 0).sum((1, 2)).argsort(descending=True, stable=True)[:count]
        scores = None if self.predicted_iou is None else self.predicted_iou[order]
        return SAMMasks(self.logits[order], self.size, scores)

    def select(self, choice: str, count: int = LARGEST) -> SAMMasks:
        """The `'largest'` or the `'best'` masks."""
        check_choice(choice)
        return self.largest(count) if choice == 'largest' else self.best(count)

    def best(self, count: int = LARGEST) -> SAMMasks:
        """The `count` masks with the highest predicted IoU.

        Raises:
            UserError: the predicted IoUs are not known.
        """
        if self.predicted_iou is None:
            raise UserError('these SAM masks carry no predicted IoU; use `largest`, or prepare them again')
        order = self.predicted_iou.argsort(descending=True, stable=True)[:count]
        return SAMMasks(self.logits[order], self.size, self.predicted_iou[order])


def check_choice(choice: str) -> None:
    """Refuse a choice that is none."""
    if choice not in ('largest', 'best'):
        raise UserError(f"choice must be 'largest' or 'best', got {choice!r}")


def masks_on_map(logits: Tensor, map_size: tuple[int, int], *, image: tuple[int, int],
                 padded: tuple[int, int]) -> Tensor:
    """SAM mask logits on the grid of a feature map that covers a padded image.

    Args:
        logits: (M, H, W) over the image without padding.
        map_size: (h, w) of the feature map.
        image: (height, width) of the image's part of the padded input.
        padded: (height, width) of the padded input, which the map covers.

    Returns:
        (M, h, w); strongly negative where the map shows padding.
    """
    axes = []
    for cells, shown, whole in zip(map_size, image, padded):
        axes.append((torch.arange(cells, device=logits.device, dtype=torch.float32) + 0.5) * (whole / cells / shown))
    inside = (axes[0] < 1)[:, None] & (axes[1] < 1)
    points = torch.stack([axes[1].expand(map_size), axes[0][:, None].expand(map_size)], -1)
    sampled = F.grid_sample(logits[None].float(), 2 * points[None] - 1, mode='bilinear', padding_mode='border',
                            align_corners=False)[0]
    return torch.where(inside, sampled, torch.finfo(sampled.dtype).min)


def masks_on_map_compat(logits: Tensor, map_size: tuple[int, int], divisor: int) -> Tensor:
    """The official mapping: nearest resize to the map, zero padding to a multiple of `divisor`.

    Parity: mask pooling then resizes the padded stack back to the map, which squeezes the masks to the top left, and
    the unpadded image is stretched over the padded map. Golden case `eval_end_to_end__misaligned_semantic`.

    Args:
        logits: (M, H, W).
        map_size: (h, w) of the feature map.
        divisor: the size divisibility of the image batch.

    Returns:
        (M, h', w') with h', w' the next multiples of `divisor`.
    """
    resized = F.interpolate(logits[:, None].float(), size=map_size, mode='nearest')[:, 0]
    return F.pad(resized, (0, -map_size[1] % divisor, 0, -map_size[0] % divisor))
