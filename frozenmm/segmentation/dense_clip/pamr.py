"""Pixel-adaptive refinement: a map takes on the edges of the image by repeated averaging over similar neighbours."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError


@dataclass(frozen=True)
class PAMR:
    """Pixel-adaptive refinement.

    Attributes:
        steps: how often neighbours are averaged.
        dilations: distances of the 8 neighbours, in pixels.

    Source: Araslanov and Roth, *Single-Stage Semantic Segmentation from Image Labels*, section 3.3, in the form that
    SCLIP, NACLIP, ProxyCLIP and Trident share.
    """

    steps: int = 10
    dilations: Sequence[int] = (8, 16)

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.dilations or min(self.dilations) < 1:
            raise UserError(f'pamr needs steps and dilations of 1 or more, got steps={self.steps} and '
                            f'dilations={list(self.dilations)}')

    def __call__(self, image: Tensor, maps: Tensor) -> Tensor:
        """Refined maps.

        Args:
            image: (1, 3, H, W), in any normalisation.
            maps: (1, C, h, w), resized to the image with aligned corners.

        Returns:
            (1, C, H, W).
        """
        size = (image.shape[-2], image.shape[-1])
        maps = F.interpolate(maps, size, mode='bilinear', align_corners=True)
        affinity = self._affinity(image)
        for _ in range(self.steps):
            total = torch.zeros_like(maps)
            for weight, neighbour in zip(affinity, self._neighbours(maps)):
                total.addcmul_(weight, neighbour)
            maps = total
        return maps

    def _affinity(self, image: Tensor) -> Tensor:
        """(8 * dilations, 1, 1, H, W), summing to 1."""
        neighbours = torch.stack(self._neighbours(image))
        # Parity: the centre counts once per dilation in the deviation
        centres = image.expand(len(self.dilations), *image.shape)
        deviation = torch.cat([neighbours, centres]).std(0)
        distance = (neighbours - image).abs() / (1e-8 + 0.1 * deviation)
        return (-distance.mean(2, keepdim=True)).softmax(0)

    def _neighbours(self, x: Tensor) -> list[Tensor]:
        """Views of the 8 neighbours at every distance, borders repeated."""
        height, width = x.shape[-2:]
        views = []
        for distance in self.dilations:
            padded = F.pad(x, (distance,) * 4, mode='replicate')
            views += [padded[..., row:row + height, column:column + width]
                      for row in (0, distance, 2 * distance) for column in (0, distance, 2 * distance)
                      if (row, column) != (distance, distance)]
        return views
