"""Semantic maps from query masks and SAM masks together: SAM masks vote for classes that were never trained."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.ops.mask_ensemble import MaskGeometry, SemanticMap, mask_ensemble_semantic

Order = Literal['masks', 'scores']
_GROUP_BYTES = 256 * 2**20


def kept_masks(sam_probabilities: Tensor, seen: Tensor, threshold: float = 0.5) -> Tensor:
    """Which SAM masks may vote: (M,) bool, where some unseen class scores above the threshold.

    Args:
        sam_probabilities: (M, K) without void.
        seen: (K,) bool.
        threshold: strict.
    """
    return (sam_probabilities * ~seen).amax(1) > threshold


@dataclass(frozen=True)
class SAMVotes:
    """SAM's masks of an image and how they vote.

    Attributes:
        logits: (M, H, W) mask logits over the whole image without padding, of any size.
        probabilities: (M, K) of the masks, without void.
        epsilon: their share for unseen classes.
        threshold: see `kept_masks`.
        compat: scale unseen classes of the queries by 1 - epsilon even where no SAM mask is kept, as the official code
            does.
    """

    logits: Tensor
    probabilities: Tensor
    epsilon: float = 0.2
    threshold: float = 0.5
    compat: bool = True

    def __post_init__(self) -> None:
        if len(self.logits) != len(self.probabilities):
            raise ValueError(f'{len(self.logits)} SAM masks but {len(self.probabilities)} rows of probabilities')


def proposal_ensemble(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, *, seen: Tensor,
                      votes: SAMVotes | None = None, order: Order = 'masks',
                      return_scores: bool = False) -> SemanticMap:
    """Label map of one image from query masks and SAM masks.

    Seen classes score as without SAM masks. An unseen class scores (1 - epsilon) of that plus epsilon times the sum of
    its probability and mask over the kept SAM masks. Source: FrozenSeg section 3.3 and its code.

    Args:
        probabilities: (Q, K) of the queries, without void.
        mask_logits: (Q, h, w) of the queries.
        geometry: how the queries' grid maps to the output.
        seen: (K,) bool.
        votes: SAM's masks; None for none at all.
        order: `'masks'` or `'scores'`, see `mask_ensemble_semantic`.
        return_scores: keep the K score maps.

    Returns:
        As `mask_ensemble_semantic`.
    """
    if votes is None or len(votes.logits) == 0:
        return mask_ensemble_semantic(probabilities, mask_logits, geometry, return_scores=return_scores, order=order)
    kept = kept_masks(votes.probabilities, seen, votes.threshold).nonzero()[:, 0]
    if len(kept) or votes.compat:
        probabilities = probabilities * torch.where(seen, 1.0, 1 - votes.epsilon)
    if len(kept) == 0:
        return mask_ensemble_semantic(probabilities, mask_logits, geometry, return_scores=return_scores, order=order)
    weights = votes.probabilities[kept] * ~seen * votes.epsilon
    return _with_votes(probabilities, mask_logits, geometry, weights, votes.logits[kept], order, return_scores)


def _with_votes(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, weights: Tensor, sam_logits: Tensor,
                order: Order, return_scores: bool) -> SemanticMap:
    """Sum of both kinds of masks, a group of classes at a time, so that memory stays bounded."""
    size = geometry.image if order == 'scores' else geometry.output
    merged = MaskGeometry(geometry.padded, geometry.image, size)
    if tuple(sam_logits.shape[-2:]) != size:
        sam_logits = F.interpolate(sam_logits[:, None], size=size, mode='bilinear', align_corners=False)[:, 0]
    votes = sam_logits.float().sigmoid().flatten(1)
    pixels = max(size[0] * size[1], geometry.output[0] * geometry.output[1])
    group = max(1, _GROUP_BYTES // (8 * pixels))
    scores = mask_logits.new_full(geometry.output, -torch.inf)
    labels = torch.zeros(geometry.output, dtype=torch.int64, device=mask_logits.device)
    kept = []
    for first in range(0, probabilities.shape[1], group):
        columns = probabilities[:, first:first + group].contiguous()
        maps = class_scores(columns, mask_logits, merged)
        maps = maps + (weights[:, first:first + group].T @ votes).view(-1, *size)
        if size != geometry.output:
            maps = F.interpolate(maps[None], size=geometry.output, mode='bilinear', align_corners=False)[0]
        best, index = maps.max(0)
        better = best > scores
        labels = torch.where(better, index + first, labels)
        scores = torch.where(better, best, scores)
        if return_scores:
            kept.append(maps)
    return SemanticMap(labels, scores, torch.cat(kept) if return_scores else None)


def class_scores(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry) -> Tensor:
    """(K, H, W) score maps from probabilities (Q, K) and mask logits (Q, h, w)."""
    scores = mask_ensemble_semantic(probabilities, mask_logits, geometry, return_scores=True).class_scores
    return cast(Tensor, scores)  # asked for, so there
