"""Which of many examples are more similar to a region than a threshold, mostly without a look at them."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 20_000
"""Examples up to which all are compared in full."""
DIRECTIONS = 64
SAMPLE = 2000
KEPT = 0.99
"""Share of the similar pairs of the sample that the few directions find."""
WORTH = 0.05
"""Share of the examples, looked at in full, up to which the few directions save time."""
_SINGLE = 8  # regions up to which looking some examples up is faster than comparing all at once


@dataclass(frozen=True)
class Near:
    """Pairs of a region and an example that are more similar than a threshold.

    Attributes:
        count: Q regions.
        region: (M,) int64.
        example: (M,) int64.
        cosine: (M,) float32.
    """

    count: int
    region: Tensor
    example: Tensor
    cosine: Tensor


def near_pairs(similarity: Tensor, threshold: float) -> Near:
    """The pairs in a table (Q, N) of cosines that are above the threshold."""
    region, example = (similarity > threshold).nonzero(as_tuple=True)
    return Near(len(similarity), region, example, similarity[region, example].float())


class NearExamples:
    """Finds the examples that are more similar to a region than a threshold.

    Up to `FEW` examples all are compared; of more, in bfloat16, whose cosines are off by 0.004 at most.
    For a few regions, the examples' parts along the directions in which a sample of them is longest come first there:
    an example is compared in full only if these say that it may be similar, by a margin that 99 of 100 similar pairs of
    the sample keep; what is lost is hardly above the threshold. Where that would spare too little, and for many
    regions and on a GPU, all are compared.

    Source: the idea of a short code first and an exact look at the best, as Jegou et al., "Searching in one billion
    vectors: re-rank with source coding", ICASSP 2011; the code here is a projection.

    Args:
        vectors: (N, C) of unit length, float32.
        threshold: cosine.

    Attributes:
        basis: (C, D) directions; None where all are compared.
    """

    def __init__(self, vectors: Tensor, threshold: float) -> None:
        self.vectors, self.threshold = vectors, threshold
        self.basis: Tensor | None = None
        if len(vectors) <= FEW:
            return
        self.vectors = vectors.bfloat16()
        if vectors.shape[1] <= 2 * DIRECTIONS or vectors.device.type != 'cpu':
            return
        sample = vectors[torch.linspace(0, len(vectors) - 1, SAMPLE).long()]
        basis = torch.linalg.eigh(sample.T @ sample)[1][:, -DIRECTIONS:].contiguous()
        short = (sample @ basis).bfloat16()
        similarity, hinted = sample @ sample.T, (short @ short.T).float()
        similar = (similarity > threshold).fill_diagonal_(False)
        if not similar.any():
            return
        place = max(1, int((1 - KEPT) * int(similar.sum())))
        self.least = float(hinted[similar].kthvalue(place).values)
        if float((hinted >= self.least).float().mean()) <= WORTH:
            self.basis, self.short = basis.bfloat16(), (vectors @ basis).bfloat16()

    def __call__(self, regions: Tensor) -> Near:
        """The pairs above the threshold of regions (Q, C) of unit length."""
        regions = regions.to(self.vectors)
        if self.basis is None or not 0 < len(regions) <= _SINGLE:
            return near_pairs(regions @ self.vectors.T, self.threshold)
        hinted = (regions @ self.basis) @ self.short.T >= self.least
        found = []
        for row, region in enumerate(regions):
            example = hinted[row].nonzero()[:, 0]
            cosine = region[None] @ self.vectors[example].T
            near = near_pairs(cosine, self.threshold)
            found.append((near.region + row, example[near.example], near.cosine))
        return Near(len(regions), *(torch.cat(values) for values in zip(*found)))
