"""The loss of Fusioner: binary cross-entropy per pixel and class, normalised per image."""
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
        loss_weight: factor of the result.

    Source: Fusioner (Ma et al., BMVC 2022); the per-image normalisation makes a batch equal the official loop.
    """

    def __init__(self, *, compat: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.compat = compat
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
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction='none')
        if class_valid is None:
            class_valid = torch.ones(loss.shape[:2], dtype=torch.bool, device=loss.device)
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
        return self.loss_weight * per_image.mean()
