"""Set losses of mask classification: class, mask and dice, on the predictions of every decoder layer."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import choice
from frozenmm.segmentation.mask2former.mask_factors import MaskFactors, masks_of
from frozenmm.segmentation.mask2former.matcher import ClassMatcher, HungarianMatcher
from frozenmm.segmentation.mask2former.points import PointSampler, sample_points

MATCHINGS = ('hungarian', 'class')


@dataclass
class MaskTargets:
    """The annotations of one image.

    Attributes:
        labels: (N,) int64 in 0..K-1.
        masks: (N, H, W) bool or 0..1, at the size of the padded batch.
    """

    labels: Tensor
    masks: Tensor


class SetCriterion(nn.Module):
    """Losses of matched queries, always in float32.

    Source: Mask2Former section 3.3; weights as in its official configuration, which FC-CLIP keeps.

    Args:
        class_weight: of the cross entropy.
        mask_weight: of the binary cross entropy at points.
        dice_weight: of the dice loss at points.
        void_weight: of queries without annotation in the cross entropy's weighted mean.
        num_points, oversample_ratio, importance_ratio: see `PointSampler`.
        matching: `'hungarian'`, or `'class'`: query k stands for class k (`ClassMatcher`).
    """

    def __init__(self, *, class_weight: float = 2.0, mask_weight: float = 5.0, dice_weight: float = 5.0,
                 void_weight: float = 0.1, num_points: int = 12544, oversample_ratio: float = 3.0,
                 importance_ratio: float = 0.75, matching: str = 'hungarian') -> None:
        super().__init__()
        self.weights = dict(ce=class_weight, mask=mask_weight, dice=dice_weight)
        self.void_weight = void_weight
        self.matcher: HungarianMatcher | ClassMatcher = ClassMatcher()
        if choice('matching', matching, MATCHINGS) == 'hungarian':
            self.matcher = HungarianMatcher(class_weight=class_weight, mask_weight=mask_weight, dice_weight=dice_weight)
        self.sampler = PointSampler(num_points, oversample_ratio=oversample_ratio, importance_ratio=importance_ratio)

    def forward(self, class_logits: Sequence[Tensor], mask_logits: Sequence[Tensor | MaskFactors],
                targets: Sequence[MaskTargets]) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            class_logits: one (B, Q, K+1) per prediction layer, void last; the last layer last.
            mask_logits: one (B, Q, h, w) per prediction layer, or its factors; then masks are made at points and of
                matched queries only.
            targets: annotations of the B images.

        Returns:
            `loss_ce`, `loss_mask`, `loss_dice` of the last layer and `d0.loss_ce`, ... of the earlier ones, each a
            scalar with its weight applied; their sum is the loss.

        Raises:
            ValueError: labels outside 0..K-1, numbers that do not fit, or costs that are not finite.
        """
        losses = {}
        for layer, values in enumerate(self.unweighted(class_logits, mask_logits, targets)):
            prefix = '' if layer == len(class_logits) - 1 else f'd{layer}.'
            losses.update({f'{prefix}loss_{key}': value * self.weights[key] for key, value in values.items()})
        return losses

    def unweighted(self, class_logits: Sequence[Tensor], mask_logits: Sequence[Tensor | MaskFactors],
                   targets: Sequence[MaskTargets]) -> list[dict[str, Tensor]]:
        """Per prediction layer `ce`, `mask` and `dice` without their weights; arguments and errors as `forward`."""
        self._check(class_logits, targets)
        device = class_logits[-1].device
        count = torch.tensor(float(sum(len(target.labels) for target in targets)), device=device)
        if get_world_size() > 1:
            all_reduce(count, op='mean')
        count = count.clamp(min=1)
        with torch.autocast(device.type, enabled=False):
            return [self._layer(layer, logits.float(), masks, targets, count)
                    for layer, (logits, masks) in enumerate(zip(class_logits, mask_logits))]

    def _layer(self, layer: int, class_logits: Tensor, mask_logits: Tensor | MaskFactors,
               targets: Sequence[MaskTargets], count: Tensor) -> dict[str, Tensor]:
        labels, masks = [target.labels for target in targets], [target.masks for target in targets]
        points = self.sampler.matching(layer, len(targets), class_logits.device)
        pairs = self.matcher(class_logits, mask_logits, labels, masks, points)
        losses = dict(ce=self._class_loss(class_logits, labels, pairs))
        predicted = torch.cat([masks_of(mask_logits, image, queries) for image, (queries, _) in enumerate(pairs)])
        if len(predicted) == 0:
            nothing = predicted.sum()
            return losses | dict(mask=nothing, dice=nothing)
        points = self.sampler.loss(layer, predicted.detach())
        matched = torch.cat([mask[chosen] for mask, (_, chosen) in zip(masks, pairs)])
        target = sample_points(matched[:, None].float(), points)[:, 0]
        logits = sample_points(predicted[:, None], points)[:, 0]
        losses['mask'] = F.binary_cross_entropy_with_logits(logits, target, reduction='none').mean(1).sum() / count
        losses['dice'] = dice_loss(logits, target).sum() / count
        return losses

    def _class_loss(self, class_logits: Tensor, labels: Sequence[Tensor],
                    pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        void = class_logits.shape[-1] - 1
        target = torch.full(class_logits.shape[:2], void, dtype=torch.int64, device=class_logits.device)
        for row, image_labels, (queries, chosen) in zip(target, labels, pairs):
            row[queries] = image_labels[chosen]
        weight = class_logits.new_ones(void + 1)
        weight[-1] = self.void_weight
        return F.cross_entropy(class_logits.transpose(1, 2), target, weight)

    def _check(self, class_logits: Sequence[Tensor], targets: Sequence[MaskTargets]) -> None:
        classes = class_logits[-1].shape[-1] - 1
        if len(targets) != len(class_logits[-1]):
            raise ValueError(f'{len(targets)} annotated images for a batch of {len(class_logits[-1])}')
        for index, target in enumerate(targets):
            if len(target.labels) != len(target.masks):
                raise ValueError(f'image {index} has {len(target.labels)} labels but {len(target.masks)} masks')
        labels = torch.cat([target.labels for target in targets])
        message = (f'annotations hold a label outside 0..{classes - 1}; check that the training vocabulary is that of '
                   'the data set')
        fits = ((labels >= 0) & (labels < classes)).all()
        if labels.device.type == 'cuda':
            torch._assert_async(fits, message)  # no host synchronisation
        elif not fits:
            raise UserError(message)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss (N,) of mask logits and targets (N, ...), with one added above and below the line.

    >>> dice_loss(torch.tensor([[20.0, -20.0]]), torch.tensor([[1.0, 0.0]])).round().tolist()
    [0.0]
    """
    inside, target = logits.sigmoid().flatten(1), target.flatten(1)
    return 1 - (2 * (inside * target).sum(1) + 1) / (inside.sum(1) + target.sum(1) + 1)
