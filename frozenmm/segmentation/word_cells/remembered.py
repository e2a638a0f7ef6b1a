"""Regions of a picture beside examples of classes: like one, and liker to it than to what surrounds the examples."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.conse import head_map
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.segmentation.word_cells.evidence import cells_of
from frozenmm.structures import TowerFeatures

HEAD_CHANNELS = 1280
STEEPNESS, CONSTANT = 40.0, -2.0
"""From the gap between similarities to the logit that a region is the class, see docs/vocabulary.md."""
SURROUNDINGS = 3
"""The most similar ones whose mean counts."""
ALONE = 0.365
"""In place of surroundings where no example has any: 995 of 1000 pairs of segments of different classes, of different
training pictures of coco_mini, are less similar."""


def region_vectors(tower: Any, norm: nn.Module, views: Sequence[tuple[TowerFeatures, tuple[int, int]]],
                   masks: Tensor) -> Tensor:
    """What the tower sees in regions of one picture, the mean over views.

    Args:
        tower: an `EfficientNetLiteTower`.
        norm: of the cells, see `CellHead`.
        views: features of the picture, and its size in pixels there.
        masks: (R, h, w), how much of each pixel belongs to the region.

    Returns:
        (R, C) of length 1: ImageNet's last features and the cells, either of equal weight.
    """
    parts: dict[int, list[Tensor]] = {32: [], 16: []}
    for features, size in views:
        maps = {32: tower.run(head_map, features.map('res5')), 16: norm(cells_of(features))}
        for stride, found in maps.items():
            height, width = (min(whole, max(1, round(side / stride)))
                             for side, whole in zip(size, found.shape[-2:]))
            share = F.interpolate(masks[None].to(found), (height, width), mode='area')[0].flatten(1)
            share = share / share.sum(1, keepdim=True).clamp(min=1e-9)
            parts[stride].append(share @ found[0, :, :height, :width].flatten(1).T)
    means = [F.normalize(torch.stack(part).mean(0), dim=-1) for part in parts.values()]
    return F.normalize(torch.cat(means, 1), dim=-1)


class CellMemory:
    """A memory of examples beside the words of a `WordCellSegmentor`.

    A region is the class of an example to which it is more similar than to the surroundings of all examples: the gap
    between both similarities gives a probability. As the two opinions on words, one that is sure is enough.

    Source: nearest neighbours of region features as in RetCLIP (arXiv 2601.12779); the surroundings are ours.

    Args:
        memory: of vectors of `region_vectors`.
    """

    def __init__(self, memory: ClassMemory) -> None:
        self.memory = memory
        self._around: tuple[tuple[int, int], Tensor] | None = None

    def __call__(self, probabilities: Tensor, regions: Tensor, vectors: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Probabilities of words (K, h, w) with what the examples say about regions (h, w) of vectors (R, C)."""
        return 1 - (1 - probabilities) * (1 - self.scores(vectors, vocabulary)[:, regions])

    def scores(self, vectors: Tensor, vocabulary: Vocabulary) -> Tensor:
        """(K, R) probabilities of the classes for vectors (R, C), by examples alone; 0 for classes without."""
        stored, vectors = self.memory.examples(), vectors.cpu()
        found = torch.zeros(len(vocabulary), len(vectors))
        rows = {index: mine for index, entry in enumerate(vocabulary) if (mine := stored.of_words(entry.words))}
        if not rows:
            return found
        similarity, around = vectors @ stored.vectors.T, self._surroundings(stored.state)
        beside = torch.tensor(ALONE)
        if len(around):
            beside = (vectors @ around.T).topk(min(SURROUNDINGS, len(around)), 1).values.mean(1)
        for index, mine in rows.items():
            found[index] = (STEEPNESS * (similarity[:, mine].amax(1) - beside) + CONSTANT).sigmoid()
        return found

    def _surroundings(self, state: tuple[int, int]) -> Tensor:
        if self._around is None or self._around[0] != state:
            self._around = state, self.memory.surroundings()
        return self._around[1]
