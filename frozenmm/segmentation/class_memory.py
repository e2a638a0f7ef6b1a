"""What a memory of examples says about regions, and how much that counts beside the words."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.segmentation.near_examples import Near, NearExamples, near_pairs

NEIGHBOURS = (1, 3, 5)
WEIGHTS = (0.0, 2.0, 4.0, 8.0, 12.0)
BETWEEN = 0.995
"""Share of the pairs of examples of different classes that are less similar than the threshold."""
MOST_TO_FIT = 2000
_NEVER = -2.0  # below any cosine


@dataclass(frozen=True)
class MemoryWeights:
    """How similarity to examples becomes logits.

    Attributes:
        neighbours: k; the nearest examples of a class whose mean similarity counts.
        threshold: similarity up to which an example says nothing.
        weight: logits that an example gives to a region like itself.
    """

    neighbours: int = 1
    threshold: float = 0.5
    weight: float = 12.0


class RegionMemory:
    """A memory beside a vocabulary: logits of the classes that have examples, added to those of the words.

    Source: the idea of Tip-Adapter (ECCV 2022) and RetCLIP (arXiv 2601.12779), logits of examples added to those of
    text. Theirs is an exponential of the similarity, which is never 0 and here gave much of the background to classes
    with examples; ours is 0 up to the similarity that different classes have, and linear from there. Weight and k are
    those that name the examples best, each by the others (leave one out). All follows from the examples and the words
    alone, so the same memory gives the same results.

    Args:
        memory: of the tower whose vectors come.
        text: log probabilities (N, K) of the words for vectors (N, C), as they count beside the memory.
        sharpness: power that the probabilities of both together are raised to, see `with_void`.

    Attributes:
        weights: those in use since the last call of `logits`.
    """

    def __init__(self, memory: ClassMemory, text: Callable[[Tensor], Tensor], sharpness: float = 1.0) -> None:
        self.memory, self.text, self.sharpness = memory, text, sharpness
        self.weights = MemoryWeights()
        self._known: tuple[object, NearExamples, Tensor] | None = None

    def logits(self, vectors: Tensor, vocabulary: Vocabulary, seen: Tensor | None = None) -> Tensor | None:
        """What to add to the log probabilities of classes.

        Args:
            vectors: (B, Q, C) of regions, of any length.
            vocabulary: the K classes.
            seen: (K,) which of them were trained, on which `text` may depend.

        Returns:
            (B, Q, K), 0 for classes without example; None where no class has one.
        """
        examples, classes = self._of(vocabulary, seen, vectors.device)
        if not len(classes):
            return None
        unit = F.normalize(vectors.float(), dim=-1).flatten(0, 1)
        counts = classes.bincount(minlength=len(vocabulary))
        near = affinities(examples(unit), classes, counts, self.weights)
        return self.weights.weight * near.unflatten(0, vectors.shape[:2])

    def _of(self, vocabulary: Vocabulary, seen: Tensor | None, device: torch.device
            ) -> tuple[NearExamples, Tensor]:
        """The N examples of the classes, and the class (N,) of each."""
        stored = self.memory.examples()
        trained = None if seen is None else tuple(seen.tolist())
        key = (stored.state, vocabulary.words, tuple(vocabulary.counts), trained, device)
        if self._known is None or self._known[0] != key:
            rows = [(row, index) for index, entry in enumerate(vocabulary) for row in stored.of_words(entry.words)]
            chosen = torch.tensor([row for row, _ in rows], dtype=torch.long)
            classes = torch.tensor([index for _, index in rows], dtype=torch.long)
            vectors = stored.vectors[chosen]
            self.weights = fitted_weights(vectors, classes, self.text, self.sharpness, stored.lengths[chosen])
            self._known = key, NearExamples(vectors.to(device), self.weights.threshold), classes.to(device)
        return self._known[1:]


def affinities(near: Near, classes: Tensor, counts: Tensor, weights: MemoryWeights) -> Tensor:
    """The mean over the k nearest examples of each class of what they say: 1 for a region like them, 0 for most others.

    An example says 0 up to the threshold of similarity, and from there a linear part of 1; so only few need a look.

    Args:
        near: pairs above the threshold of Q regions and the N examples that take part.
        classes: (N,) int64.
        counts: (K,) or (Q, K) examples of each class that take part; where there are fewer than k, all count.
        weights: k and the threshold.

    Returns:
        (Q, K) float32; 0 for classes without example.
    """
    num_classes = counts.shape[-1]
    value = (near.cosine - weights.threshold) / (1 - weights.threshold)
    group = near.region * num_classes + classes[near.example]
    order = value.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    group, value = group[order], value[order]
    rank = torch.arange(len(group), device=group.device) - torch.searchsorted(group, group)
    found = value.new_zeros(near.count * num_classes)
    for place in range(weights.neighbours):  # no group stands twice in a place, so the sum is the same every time
        found[group[rank == place]] += value[rank == place]
    return found.view(-1, num_classes) / counts.clamp(1, weights.neighbours)


@torch.no_grad()
def fitted_weights(vectors: Tensor, classes: Tensor, text: Callable[[Tensor], Tensor],
                   sharpness: float = 1.0, lengths: Tensor | None = None) -> MemoryWeights:
    """The weights under which examples (N, C) of unit length are named best, each by the others and the words.

    An example counts if its class (N,) has another one. What one class, or one example a class, cannot say is as
    `MemoryWeights` has it. `text` and `sharpness`: see `RegionMemory`; `lengths` (N, 1): of the vectors as `text` takes
    them.
    """
    lengths = torch.ones(len(vectors), 1) if lengths is None else lengths
    if len(classes) > MOST_TO_FIT:  # evenly from all, the same ones every time
        chosen = torch.linspace(0, len(classes) - 1, MOST_TO_FIT).long()
        vectors, classes, lengths = vectors[chosen], classes[chosen], lengths[chosen]
    similarity = (vectors @ vectors.T).fill_diagonal_(_NEVER)
    between = similarity[classes[:, None] != classes]
    if not len(between):
        return MemoryWeights()
    place = min(len(between), 1 + int(BETWEEN * len(between)))
    usual = MemoryWeights(threshold=min(0.95, float(between.kthvalue(place).values)))
    counts = classes.bincount()[classes]
    counted = counts > 1
    if len(classes[counted].unique()) < 2:
        return usual
    words = text(vectors * lengths).cpu()
    others = classes.bincount(minlength=words.shape[-1]) - F.one_hot(classes, words.shape[-1])
    losses: dict[MemoryWeights, float] = {}
    pairs = near_pairs(similarity, usual.threshold)
    for neighbours in NEIGHBOURS:
        near = affinities(pairs, classes, others, MemoryWeights(neighbours, usual.threshold))
        for weight in WEIGHTS:
            logits = sharpness * (words + weight * near)
            loss = F.cross_entropy(logits[counted], classes[counted], reduction='none') / counts[counted]
            losses[MemoryWeights(neighbours, usual.threshold, weight)] = float(loss.sum())
    return min(losses, key=losses.__getitem__)
