"""From cosines of names to labels of classes."""
from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.segmentation.dense_clip.windows import CellMaps, Size


@dataclass(frozen=True)
class LabelRule:
    """How cosines become labels.

    Attributes:
        logit_scale: multiplies the cosines before the softmax over all names (also of synonyms, which so share mass).
        threshold: pixels whose best class is less probable become class 0; 0 never does.
        area_threshold: classes other than 0 that win at most this share of the pixels that are not of class 0 are
            dropped (SCLIP); None drops none.
        denoising: classes that are nowhere in the image more probable than this are dropped (RADSeg, MaskCLIP); 0 drops
            none.
        on_cells: the softmax is taken on the patch grid and probabilities are resized (RADSeg), instead of cosines.
        compat: as Trident's code, which takes the first Q - K + 1 of Q names for class 0 and each other one for a
            class, whatever their classes are.
    """

    logit_scale: float = 40.0
    threshold: float = 0.0
    area_threshold: float | None = None
    denoising: float = 0.0
    on_cells: bool = False
    compat: bool = False

    def __post_init__(self) -> None:
        if self.logit_scale <= 0:
            raise UserError(f'rule.logit_scale must be above 0, got {self.logit_scale}')
        for name in ('threshold', 'area_threshold', 'denoising'):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f'rule.{name} must lie in 0..1, got {value}')

    def probabilities(self, cosines: Tensor) -> Tensor:
        """Of names, (..., Q, H, W), summing to 1."""
        return (self.logit_scale * cosines.float()).softmax(-3)

    def classes(self, probabilities: Tensor, class_index: Tensor, num_classes: int) -> Tensor:
        """The best name of each class.

        Args:
            probabilities: (Q, H, W) of names.
            class_index: (Q,) int64 class of every name, in rising order.
            num_classes: K.

        Returns:
            (K, H, W), not summing to 1 where classes have several names.
        """
        if len(class_index) == num_classes:
            return probabilities
        if self.compat:
            first = len(class_index) - num_classes + 1
            return torch.cat([probabilities[:first].amax(0, keepdim=True), probabilities[first:]])
        index = class_index.to(probabilities.device)[:, None, None].expand_as(probabilities)
        best = probabilities.new_zeros(num_classes, *probabilities.shape[1:])
        return best.scatter_reduce(0, index, probabilities, 'amax')

    def on(self, cells: CellMaps, class_index: Tensor, num_classes: int, size: Size) -> Tensor:
        """(K, *size) probabilities of the classes, from cosines of names on cells."""
        if self.on_cells:
            names = replace(cells, maps=self.probabilities(cells.maps)).at(size)[0]
        else:
            names = self.probabilities(cells.at(size)[0])
        return self.classes(names, class_index, num_classes)

    def __call__(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of classes after the rule, and labels.

        Args:
            classes: (K, H, W) of `classes`.

        Returns:
            (K, H, W), and (1, H, W) int64 labels.
        """
        if self.denoising:
            classes = classes * (classes.amax((1, 2), keepdim=True) >= self.denoising)
        if self.area_threshold is not None and len(classes) > 1:
            areas = classes.argmax(0).flatten().bincount(minlength=len(classes))[1:]
            kept = areas > self.area_threshold * areas.sum()
            classes = torch.cat([classes[:1], classes[1:] * kept[:, None, None]])
        best, labels = classes.max(0, keepdim=True)
        return classes, labels.masked_fill(best < self.threshold, 0)


def drop_absent(logits: Tensor, threshold: float, *, scale: float = 100.0, dropped: float = -100.0) -> Tensor:
    """MaskCLIP's prompt denoising.

    Args:
        logits: (B, Q, h, w) cosines.
        threshold: names whose softmax is nowhere as high are dropped.
        scale: of the cosines in that softmax.
        dropped: logit that a dropped name gets.
    """
    highest = (scale * logits).softmax(1).amax((2, 3), keepdim=True)
    return torch.where(highest < threshold, dropped, logits)


def smooth_by_keys(logits: Tensor, keys: Tensor, threshold: float, *, scale: float = 100.0,
                   compat: bool = False) -> Tensor:
    """MaskCLIP's key smoothing: unsure cells take what cells with similar keys have.

    Args:
        logits: (B, Q, h, w) cosines.
        keys: (B, h*w, D) keys of the last block, through its output projection.
        threshold: cells whose best name has less probability are unsure.
        scale: of the cosines in the softmax.
        compat: as the official code, which normalises keys over the cells and not over the channels, keeps negative
            weights and does not let weights sum to 1.

    Returns:
        (B, Q, h, w): probabilities, with those of unsure cells replaced.
    """
    probabilities = (scale * logits).softmax(1).flatten(2)
    keys = F.normalize(keys, dim=1 if compat else 2)
    weights = keys @ keys.transpose(1, 2)
    if not compat:
        weights = weights.clamp(min=0)
        weights = weights / weights.sum(-1, keepdim=True)
    unsure = probabilities.amax(1, keepdim=True) < threshold
    smoothed = torch.where(unsure, probabilities @ weights.transpose(1, 2), probabilities)
    return smoothed.unflatten(2, (logits.shape[2], logits.shape[3]))
