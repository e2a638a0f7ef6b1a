"""Quality focal loss on a random part of the classes, for data whose images are annotated for some classes only.

Source: Zhou et al., "Probabilistic two-stage detection" (arXiv 2103.07461) on the federated loss; Li et al.,
"Generalized Focal Loss" (2020) on its elements. Frozen-DETR's LVIS models train with both.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor
from torch.nn import functional as F

from frozenmm.errors import UserError, reading
from frozenmm.registry import MODELS


def image_counts(ann_file: str | Path, without: Sequence[str] = ()) -> Tensor:
    """Images (K,) float32 in which every category of LVIS occurs, by ascending id; 0 for the frequencies `without`.

    Args:
        ann_file: `lvis_v1_train.json`.
        without: of `'r'`, `'c'` and `'f'`.
    """
    path = Path(ann_file)
    with reading(path, 'an annotation file of LVIS v1', 'give lvis_v1_train.json'):
        categories = sorted(json.loads(path.read_text(encoding='utf-8'))['categories'], key=lambda entry: entry['id'])
        return torch.tensor([0.0 if entry['frequency'] in without else float(entry['image_count'])
                             for entry in categories])


@MODELS.register_module()
class FederatedQualityFocalLoss(QualityFocalLoss):
    """mmdet's quality focal loss for the classes that occur and for random others.

    Every call draws anew: classes that are no target, without replacement, in proportion to a power of the number of
    their images, until there are `num_classes` in all. The other classes do not count.

    Args:
        counts: images of every class, or the annotation file that says so.
        num_classes: classes that count in a call; more where more occur.
        power: of the counts.
        without: frequencies of LVIS (`'r'`, `'c'`, `'f'`) that are never drawn, `['r']` for an open vocabulary.
        compat: as the official code, count the background among the targets, so that one class less is drawn.
        kwargs: arguments of `mmdet.QualityFocalLoss`.

    Raises:
        UserError: counts that are negative, or no class that may be drawn.
    """

    counts: Tensor

    def __init__(self, counts: str | Path | Sequence[float], *, num_classes: int = 50, power: float = 0.5,
                 without: Sequence[str] = (), compat: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        values = image_counts(counts, without) if isinstance(counts, str | Path) else torch.as_tensor(
            counts, dtype=torch.float32)
        if (values < 0).any() or not values.any():
            raise UserError('counts must say in how many images each class occurs, 0 or more and not 0 for all, got '
                            f'{values.tolist()[:5]} ...')
        self.register_buffer('counts', values, persistent=False)
        self.num_classes, self.power, self.compat = num_classes, power, compat

    def drawn_classes(self, labels: Tensor) -> Tensor:
        """(K,) bool, classes that count.

        Args:
            labels: (N,) the targets, K for background.
        """
        total = len(self.counts)
        background = bool((labels == total).any())
        chosen = torch.zeros(total, dtype=torch.bool, device=labels.device)
        chosen[labels[labels < total].unique()] = True
        weights = self.counts.to(labels.device).pow(self.power).masked_fill(chosen, 0)
        # 0 to a power of 0 is 1, but who has no image is not drawn
        weights = weights.masked_fill(self.counts.to(labels.device) == 0, 0)
        wanted = self.num_classes - int(chosen.sum()) - int(self.compat and background)
        wanted = min(wanted, int((weights > 0).sum()))
        if wanted > 0:
            chosen[torch.multinomial(weights, wanted)] = True
        return chosen

    def forward(self, pred: Tensor, target: tuple[Tensor, Tensor], weight: Tensor | None = None,
                avg_factor: float | Tensor | None = None, reduction_override: str | None = None) -> Tensor:
        """The loss.

        Args:
            pred: (N, K) logits.
            target: (N,) labels, K for background, and (N,) qualities in 0..1, the overlap of matched boxes.
            weight: (N,) or None.
            avg_factor: divides the sum.
            reduction_override: instead of `reduction`.
        """
        labels, quality = target
        if pred.shape[1] != len(self.counts):
            raise UserError(f'the loss has the image counts of {len(self.counts)} classes, but the head has '
                            f'{pred.shape[1]}; give counts for its classes')
        goal = torch.zeros_like(pred)
        positive = (labels < pred.shape[1]).nonzero()[:, 0]
        goal[positive, labels[positive]] = quality[positive].to(pred.dtype)
        loss = F.binary_cross_entropy_with_logits(pred, goal, reduction='none')
        loss = loss * (goal - pred.sigmoid()).abs().pow(self.beta) * self.drawn_classes(labels)
        return self.loss_weight * weight_reduce_loss(loss.sum(1), weight, reduction_override or self.reduction,
                                                     avg_factor)
