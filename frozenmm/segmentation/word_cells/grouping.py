"""From probabilities of words at every pixel to segments: regions of one look take the word that fits them best."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frozenmm.compat import require


@dataclass(frozen=True)
class Grouping:
    """How pixels become segments.

    Attributes:
        side: long side of the grid on which it is done, in pixels.
        scale: of the regions, see skimage's `felzenszwalb`; likewise smallest, in pixels of the grid.
        smallest: see scale.
        floor: probability that a region needs to take a word.
        relative: share of the picture's best region for a thing that another one needs to belong to it.
        least_area: share of the picture that a segment has at least.
    """

    side: int = 320
    scale: float = 200.0
    smallest: int = 100
    floor: float = 0.25
    relative: float = 0.5
    least_area: float = 0.005

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) for a picture of this size."""
        scale = self.side / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def regions(self, picture: Tensor) -> Tensor:
        """(h, w) int64 numbers of regions of one look in a picture (3, h, w), RGB 0..255.

        Source: Felzenszwalb and Huttenlocher, IJCV 2004, by scikit-image.
        """
        grouping = require('skimage.segmentation', 'the grouping of pixels')
        pixels = picture.clamp(0, 255).permute(1, 2, 0).cpu().numpy().astype(np.uint8)
        return torch.from_numpy(grouping.felzenszwalb(
            pixels, scale=self.scale, sigma=0.8, min_size=self.smallest).astype(np.int64))

    def segments(self, probabilities: Tensor, regions: Tensor, things: Tensor) -> list[tuple[int, Tensor]]:
        """Index of the word and (h, w) bool mask of every segment; they do not overlap.

        Args:
            probabilities: (K, h, w).
            regions: (h, w) of `regions`.
            things: (K,) bool; of these, every connected part is a segment.
        """
        measure = require('skimage.measure', 'the grouping of pixels')
        means = region_means(probabilities, regions)
        enough = torch.where(things[:, None], (self.relative * means.amax(1, keepdim=True)).clamp(min=self.floor),
                             self.floor)
        best, words = torch.where(means >= enough, means, -1.0).max(0)
        owner = torch.where(best > 0, words, -1)[regions]
        found = []
        for word in owner[owner >= 0].unique().tolist():
            mask = owner == word
            parts = [mask]
            if things[word]:
                numbers = torch.from_numpy(measure.label(mask.numpy(), connectivity=1))
                parts = [numbers == number for number in range(1, int(numbers.max()) + 1)]
            found += [(word, part) for part in parts if float(part.float().mean()) >= self.least_area]
        return found


def region_means(values: Tensor, regions: Tensor) -> Tensor:
    """(K, R) means of values (K, h, w) over R regions numbered in (h, w)."""
    rows = regions.flatten()
    count = int(rows.max()) + 1
    sums = values.new_zeros(len(values), count).index_add_(1, rows, values.flatten(1))
    return sums / torch.bincount(rows, minlength=count).clamp(min=1)
