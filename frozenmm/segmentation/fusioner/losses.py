"""The loss of Fusioner: binary cross-entropy per pixel and class, normalised per image; a Dice term as an option."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.registry import MODELS


@MODELS.register_module()
class FusionerBCELoss(nn.Module):
    """Sigmoid cross-entropy with ignored pixels.

    Args:
        compat: the official rule: the sum over classes and valid pixels is divided by the number of valid pixels only
            (so it grows with the number of classes), and an image whose pixels are all ignored trains "all background".
            By default it is divided by the number of classes too, and such an image gives 0.
        dice_weight: factor of a Dice term over the classes that an image shows, so that small ones count as much as
            large ones and their absence elsewhere does not drown them; 0, the paper's loss, leaves it out.
        loss_weight: factor of the result.

    Source: Fusioner (Ma et al., BMVC 2022); the per-image normalisation makes a batch equal the official loop.
    """

    def __init__(self, *, compat: bool = False, dice_weight: float = 0.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.compat = compat
        self.dice_weight = dice_weight
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, targets: Tensor, ignored: Tensor | None = None,
                class_valid: Tensor | None = None) -> Tensor:
        """The mean over images.

        Args:
            logits: (B, K, H, W).
            targets: (B, K, H, W), 0 or 1.
            ignored: (B, H, W) bool, pixels that do not count, for all classes; none by default (in compat mode the
                result is then the plain mean, also over classes).
            class_valid: (B, K) bool, classes that count (others are padding of a mixed batch); all by default.

        Returns:
            scalar float32.
        """
        logits, targets = logits.float(), targets.float()
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction='none')
        if class_valid is None:
            class_valid = torch.ones(loss.shape[:2], dtype=torch.bool, device=loss.device)
        dice = 0.0 if self.dice_weight == 0 else _dice(logits.sigmoid(), targets, ignored)
        loss = (loss * class_valid[:, :, None, None]).sum(1)
        classes = class_valid.sum(1).clamp(min=1)
        valid = torch.ones_like(loss, dtype=torch.bool) if ignored is None else ~ignored
        pixels = valid.flatten(1).sum(1)
        per_image = (loss * valid).flatten(1).sum(1) / pixels.clamp(min=1)
        if self.compat:
            everything = loss.flatten(1).mean(1) / classes
            per_image = everything if ignored is None else torch.where(pixels > 0, per_image, everything)
        else:
            per_image = per_image / classes
        return self.loss_weight * (per_image.mean() + self.dice_weight * dice)


def _dice(probabilities: Tensor, targets: Tensor, ignored: Tensor | None) -> Tensor:
    """Mean over images of 1 - Dice, itself the mean over the classes with a pixel; (B, K, H, W) each, scalar out."""
    if ignored is not None:
        probabilities, targets = (value * ~ignored[:, None] for value in (probabilities, targets))
    inside, area, wanted = ((value.flatten(2).sum(2)) for value in (probabilities * targets, probabilities, targets))
    shown = wanted > 0
    distance = (1 - (2 * inside + 1) / (area + wanted + 1)) * shown
    return (distance.sum(1) / shown.sum(1).clamp(min=1)).mean()
