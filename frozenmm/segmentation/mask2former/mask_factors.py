"""Mask logits that are not multiplied out, and what the losses take from masks of either form."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.segmentation.mask2former.points import sample_points


@dataclass
class MaskFactors:
    """Mask logits as embeddings times features.

    Resizing, sampling at points and the product over channels are linear and commute, so losses at points never hold
    the masks of all queries.

    Attributes:
        embeddings: (B, Q, C).
        features: (B, C, h, w).
    """

    embeddings: Tensor
    features: Tensor

    def dense(self) -> Tensor:
        """(B, Q, h, w)."""
        return torch.einsum('bqc,bchw->bqhw', self.embeddings, self.features)

    def resized(self, size: tuple[int, int]) -> Tensor:
        """(B, Q, *size), bilinear."""
        features = F.interpolate(self.features, size, mode='bilinear', align_corners=False)
        return torch.einsum('bqc,bchw->bqhw', self.embeddings, features)


def masks_at(masks: Tensor | MaskFactors, image: int, points: Tensor) -> Tensor:
    """Float32 logits (Q, P) of all masks of one image at points (1, P, 2), see `sample_points`."""
    if isinstance(masks, Tensor):
        return sample_points(masks[image][None].float(), points)[0]
    return masks.embeddings[image].float() @ sample_points(masks.features[image][None].float(), points)[0]


def masks_of(masks: Tensor | MaskFactors, image: int, queries: Tensor) -> Tensor:
    """Float32 logits (N, h, w) of the queries (N,) of one image."""
    if isinstance(masks, Tensor):
        return masks[image, queries].float()
    return torch.einsum('nc,chw->nhw', masks.embeddings[image, queries].float(), masks.features[image].float())
