"""One-to-one assignment of predicted masks to annotated ones."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.segmentation.mask2former.mask_factors import MaskFactors, masks_at
from frozenmm.segmentation.mask2former.points import sample_points


@torch.no_grad()
def matching_costs(class_logits: Tensor, mask_points: Tensor, labels: Tensor, target_points: Tensor, *,
                   class_weight: float, mask_weight: float, dice_weight: float) -> Tensor:
    """Cost of assigning each query of an image to each of its annotations.

    Args:
        class_logits: (Q, K+1), void last.
        mask_points: (Q, P) mask logits at P points.
        labels: (N,) int64 classes of the annotations.
        target_points: (N, P) in 0..1, the annotated masks at the same points.
        class_weight: of minus the probability of the annotation's class.
        mask_weight: of the mean binary cross entropy.
        dice_weight: of the dice loss.

    Returns:
        (Q, N) float32.
    """
    probability = class_logits.float().softmax(-1)[:, labels]
    logits, targets = mask_points.float(), target_points.float()
    # BCE(x, t) = softplus(x) - x t, summed over points
    entropy = (F.softplus(logits).sum(1)[:, None] - logits @ targets.T) / logits.shape[1]
    inside = logits.sigmoid()
    dice = 1 - (2 * inside @ targets.T + 1) / (inside.sum(1)[:, None] + targets.sum(1)[None] + 1)
    return mask_weight * entropy - class_weight * probability + dice_weight * dice


class ClassMatcher:
    """Query k stands for class k: nothing to search, for semantic maps, where a class has one segment at most.

    Such queries learn in few iterations; the number of queries is that of the classes.
    """

    def __call__(self, class_logits: Tensor, mask_logits: Tensor | MaskFactors, labels: Sequence[Tensor],
                 masks: Sequence[Tensor], points: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs of query and annotation; arguments as those of `HungarianMatcher`.

        Raises:
            UserError: a class with two segments, or without a query.
        """
        queries = class_logits.shape[1]
        if queries < class_logits.shape[2] - 1:
            raise UserError(f'matching by class needs a query for each of the {class_logits.shape[2] - 1} classes; the '
                            f'decoder has num_queries={queries}')
        if any(len(image.unique()) < len(image) for image in labels):
            raise UserError('matching by class needs at most one segment per class; for instances use '
                            'matching=\'hungarian\'')
        return [(image.sort().values, image.argsort()) for image in labels]


class HungarianMatcher:
    """Assigns queries to annotations at the least total cost, masks compared at random points.

    Source: Mask2Former section 3.3 (12544 uniform points, shared by all masks of an image).

    Args:
        class_weight: weight of the class term.
        mask_weight: weight of the binary cross entropy.
        dice_weight: weight of the dice term.
    """

    def __init__(self, *, class_weight: float = 2.0, mask_weight: float = 5.0, dice_weight: float = 5.0) -> None:
        self.weights = dict(class_weight=class_weight, mask_weight=mask_weight, dice_weight=dice_weight)

    @torch.no_grad()
    def __call__(self, class_logits: Tensor, mask_logits: Tensor | MaskFactors, labels: Sequence[Tensor],
                 masks: Sequence[Tensor], points: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs of query and annotation for each image.

        Args:
            class_logits: (B, Q, K+1).
            mask_logits: (B, Q, h, w), or its factors.
            labels: B tensors (N_i,) int64.
            masks: B tensors (N_i, H, W), bool or 0..1.
            points: (B, P, 2) float, x and y in 0..1.

        Returns:
            B pairs of int64 tensors (query indices ascending, annotation indices), on the device of the logits.

        Raises:
            ValueError: NaN or infinite costs, i.e. the training has diverged.
        """
        costs = []
        for image, (image_labels, image_masks) in enumerate(zip(labels, masks)):
            place = points[image:image + 1]
            predicted = masks_at(mask_logits, image, place)
            target = sample_points(image_masks[None].float(), place)[0]
            costs.append(matching_costs(class_logits[image], predicted, image_labels, target, **self.weights))
        # one copy to the host for the whole batch
        queries = class_logits.shape[1]
        flat = torch.cat([cost.flatten() for cost in costs]).cpu()
        if not torch.isfinite(flat).all():
            raise ValueError('the matching costs contain NaN or infinity: the predictions have diverged; lower the '
                             'learning rate or look at the gradient clipping and the annotations')
        pairs = []
        for part in flat.split([cost.numel() for cost in costs]):
            rows, columns = linear_sum_assignment(part.view(queries, -1).numpy()) if part.numel() else ([], [])
            pairs.append((torch.as_tensor(rows, dtype=torch.int64, device=class_logits.device),
                          torch.as_tensor(columns, dtype=torch.int64, device=class_logits.device)))
        return pairs
