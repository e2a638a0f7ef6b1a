"""How probable each word is at each cell: what ImageNet taught the tower, and what a small trained head adds."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.conse import class_logits, head_map
from frozenmm.foundation.named_classes import classes_of, imagenet_classes
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.structures import TowerFeatures

MAPS = ('res3', 'res4', 'res5')
_LEAST = 1e-4  # of a probability, before its logit


def cells_of(features: TowerFeatures) -> Tensor:
    """(B, C, h, w): the maps res3, res4 and res5 side by side on the grid of res4."""
    fine, middle, coarse = (features.map(name) for name in MAPS)
    size = (middle.shape[-2], middle.shape[-1])
    return torch.cat([F.adaptive_avg_pool2d(fine, size), middle,
                      F.interpolate(coarse, size, mode='bilinear', align_corners=False)], 1)


class CellHead(nn.Module):
    """The trained part: class logits (B, K, h, w) of cells (B, C, h, w), by a perceptron of one hidden layer.

    Args:
        in_channels: C.
        num_classes: K.
        hidden: width between.
        drop: share of the hidden values that training leaves out; few pictures teach it.
    """

    def __init__(self, in_channels: int, num_classes: int, *, hidden: int = 256, drop: float = 0.7) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels, affine=False)
        self.inside = nn.Conv2d(in_channels, hidden, 1)
        self.outside = nn.Conv2d(hidden, num_classes, 1)
        self.drop = drop

    def forward(self, cells: Tensor) -> Tensor:
        """See the class."""
        seen = F.dropout(self.norm(cells), self.drop / 7, self.training)
        return self.outside(F.dropout(self.inside(seen).relu(), self.drop, self.training))


@dataclass(frozen=True)
class KnownWords:
    """The K words asked for, and the classes behind them.

    Attributes:
        imagenet: indices of ImageNet's classes for each word.
        trained: indices of the head's classes for each word.
        things: (K,) bool.
    """

    imagenet: tuple[tuple[int, ...], ...]
    trained: tuple[tuple[int, ...], ...]
    things: Tensor

    @classmethod
    def of(cls, vocabulary: Vocabulary, trained: Vocabulary) -> KnownWords:
        """The words of a vocabulary; what does not say is stuff where it means trained stuff, and a thing else."""
        objects, own = imagenet_classes(), classes_of(trained)
        known = [(objects.meant(entry.words), own.meant(entry.words), entry.isthing) for entry in vocabulary]
        things = [isthing if isthing is not None else not rows or any(trained[row].isthing is not False for row in rows)
                  for _, rows, isthing in known]
        return cls(tuple(rows for rows, _, _ in known), tuple(rows for _, rows, _ in known), torch.tensor(things))

    def known(self, index: int) -> bool:
        """Whether anyone has a class for a word."""
        return bool(self.imagenet[index] or self.trained[index])


@dataclass(frozen=True)
class Calibration:
    """From opinions to probabilities: weights of logistic regressions.

    Attributes:
        imagenet: weight of the logit of ImageNet's opinion on a pixel, and a constant.
        trained: likewise of the head's.
        segment: likewise of the mean probability of a segment's pixels.
    """

    imagenet: Sequence[float]
    trained: Sequence[float]
    segment: Sequence[float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        for name in 'imagenet', 'trained', 'segment':
            if len(getattr(self, name)) != 2:
                raise UserError(f'calibration.{name} must be a weight and a constant, got {getattr(self, name)}')

    def cells(self, taught: Tensor, learned: Tensor, words: KnownWords) -> Tensor:
        """(K, h, w) probabilities of words from both opinions (K, h, w); 0 for words that nobody knows.

        Where both know a word, one that is sure is enough: the head has seen few of the things, and says no to most.
        """
        found = torch.zeros_like(taught)
        for index in range(len(taught)):
            for part, known, weights in ((taught, words.imagenet, self.imagenet),
                                         (learned, words.trained, self.trained)):
                if known[index]:
                    found[index] += (1 - found[index]) * calibrated(part[index], weights)
        return found

    def score(self, probability: Tensor) -> float:
        """How often a segment is right whose pixels have this mean probability, ()."""
        return float(calibrated(probability, self.segment))


def calibrated(probability: Tensor, weights: Sequence[float]) -> Tensor:
    """A probability after a logistic regression on its logit: weight and constant."""
    return (weights[0] * logit(probability) + weights[1]).sigmoid()


def logit(probability: Tensor) -> Tensor:
    """The logit of a probability, of one that is not 0 or 1."""
    return probability.clamp(_LEAST, 1 - _LEAST).logit()


def opinions(tower: Any, head: CellHead, views: Sequence[TowerFeatures], words: KnownWords,
             sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What ImageNet and the head say, the mean over views of one picture.

    Args:
        tower: an `EfficientNetLiteTower`.
        head: trained.
        views: of one picture each, by scale.
        words: K of them.
        sizes: of the picture in pixels of each view.
        size: (h, w) of the result.

    Returns:
        (K, h, w) sums of ImageNet's posteriors over each word's classes; (K, h, w) likewise of the head's.
    """
    taught, learned = [], []
    for features, (height, width) in zip(views, sizes):
        cells = tower.run(head_map, features.map('res5')).permute(0, 2, 3, 1)
        posteriors = tower.run(class_logits, cells)[0].softmax(-1)
        taught.append(_resized(_sums(posteriors.permute(2, 0, 1), words.imagenet), (height / 32, width / 32), size))
        learned.append(_resized(head(cells_of(features))[0], (height / 16, width / 16), size))
    return torch.stack(taught).mean(0), _sums(torch.stack(learned).mean(0).softmax(0), words.trained)


def _sums(classes: Tensor, rows: Sequence[tuple[int, ...]]) -> Tensor:
    """(K, h, w) sums of class maps (C, h, w) over each word's classes."""
    return torch.stack([classes[list(indices)].sum(0) for indices in rows])


def _resized(maps: Tensor, shown: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Maps (C, h, w) at another size, without the padding beyond the cells that show image."""
    height, width = (min(whole, max(1, round(part))) for part, whole in zip(shown, maps.shape[-2:]))
    return F.interpolate(maps[None, :, :height, :width], size, mode='bilinear', align_corners=False)[0]
