"""Semantic maps from query masks and SAM masks together: SAM masks vote for classes that were never trained."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.ops.mask_ensemble import MaskGeometry, SemanticMap, mask_ensemble_semantic

_GROUP_BYTES = 256 * 2**20


def kept_masks(sam_probabilities: Tensor, seen: Tensor, threshold: float = 0.5) -> Tensor:
    """Which SAM masks may vote: (M,) bool, where some unseen class scores above the threshold.

    Args:
        sam_probabilities: (M, K) without void.
        seen: (K,) bool.
        threshold: strict.
    """
    return (sam_probabilities * ~seen).amax(1) > threshold


def proposal_ensemble(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, *, seen: Tensor,
                      sam_logits: Tensor | None = None, sam_probabilities: Tensor | None = None, epsilon: float = 0.2,
                      threshold: float = 0.5, order: str = 'masks', return_scores: bool = False,
                      scale_always: bool = True) -> SemanticMap:
    """Label map of one image from query masks and SAM masks.

    Seen classes score as without SAM masks. An unseen class scores (1 - epsilon) of that plus epsilon times the sum of
    its probability and mask over the kept SAM masks. Source: FrozenSeg section 3.3 and its code.

    Args:
        probabilities: (Q, K) of the queries, without void.
        mask_logits: (Q, h, w) of the queries.
        geometry: how the queries' grid maps to the output.
        seen: (K,) bool.
        sam_logits: (M, H, W) mask logits over the whole image without padding, of any size; None for none at all.
        sam_probabilities: (M, K) of the SAM masks, without void.
        epsilon: share of the SAM masks for unseen classes.
        threshold: see `kept_masks`.
        order: `'masks'` or `'scores'`, see `mask_ensemble_semantic`.
        return_scores: keep the K score maps.
        scale_always: scale unseen classes by 1 - epsilon even where no SAM mask is kept, as the official code does.

    Returns:
        As `mask_ensemble_semantic`.
    """
    if sam_logits is None or sam_probabilities is None or len(sam_logits) == 0:
        return mask_ensemble_semantic(probabilities, mask_logits, geometry, return_scores=return_scores, order=order)
    if len(sam_logits) != len(sam_probabilities):
        raise ValueError(f'{len(sam_logits)} SAM masks but {len(sam_probabilities)} rows of probabilities')
    kept = kept_masks(sam_probabilities, seen, threshold).nonzero()[:, 0]
    if len(kept) or scale_always:
        probabilities = probabilities * torch.where(seen, 1.0, 1 - epsilon)
    if len(kept) == 0:
        return mask_ensemble_semantic(probabilities, mask_logits, geometry, return_scores=return_scores, order=order)
    weights = sam_probabilities[kept] * ~seen * epsilon
    return _with_votes(probabilities, mask_logits, geometry, weights, sam_logits[kept], order, return_scores)


def _with_votes(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, weights: Tensor, sam_logits: Tensor,
                order: str, return_scores: bool) -> SemanticMap:
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
        maps = mask_ensemble_semantic(columns, mask_logits, merged, return_scores=True).class_scores
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
