"""Semantic label maps straight from low-resolution mask logits."""
from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.errors import UserError

from .mask_bands import logit_bands, rows_per_band
from .mask_geometry import MaskGeometry
from .mask_library import check_same, checked_map, define_op

Order = Literal['masks', 'scores']


class SemanticMap(NamedTuple):
    """Result of `mask_ensemble_semantic`.

    Attributes:
        labels: (H, W) int64 class indices.
        scores: (H, W) float32, the winning class's score.
        class_scores: (K, H, W) float32 if they were asked for, else None.
    """

    labels: Tensor
    scores: Tensor
    class_scores: Tensor | None


def mask_ensemble_semantic(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, *,
                           return_scores: bool = False, order: Order = 'masks') -> SemanticMap:
    """Label map of one image: `argmax_k sum_q probabilities[q, k] * sigmoid(mask_q)`.

    Neither the Q masks nor, unless asked for, the K score maps ever exist at output size.

    Rules: of equal scores the lowest class index wins. Where an output pixel's logits contain NaN, its label is 0 and
    its score NaN. Infinite logits count as 1e30 with their sign. `probabilities` must be finite; rows need not sum to
    1, so that columns may be scaled and further masks appended as rows (they must share the logits' size).

    Args:
        probabilities: (Q, K) class weights of each query, with or without void as the caller decides.
        mask_logits: (Q, h, w) mask logits on the network's grid.
        geometry: how the grid maps to the output.
        return_scores: whether to return all K score maps; they take 4*K*H*W bytes.
        order: `'masks'` resizes mask logits to the output, then scores; `'scores'` scores at padded size and resizes
            the K score maps, in groups of classes. The sigmoid lies between, so the two differ slightly.

    Returns:
        `SemanticMap`.

    Raises:
        TypeError, ValueError: an argument has a wrong kind, shape, device or value; the text names it.

    Source: FC-CLIP, official test-time order with `sem_seg_postprocess_before_inference` true (`'masks'`) and false
    (`'scores'`).
    """
    name = 'mask_ensemble_semantic'
    probabilities = checked_map(name, 'probabilities', probabilities, '(Q, K)')
    mask_logits = checked_map(name, 'mask_logits', mask_logits, '(Q, h, w)')
    check_same(name, ('probabilities', probabilities), ('mask_logits', mask_logits))
    if order == 'scores':
        return _score_order(probabilities, mask_logits, geometry, return_scores)
    if order != 'masks':
        raise UserError(f"mask_ensemble_semantic: order must be 'masks' or 'scores', got {order!r}.")
    labels, scores, class_scores = torch.ops.frozenmm.mask_ensemble_semantic(
        probabilities, mask_logits, geometry.padded, geometry.image, geometry.output, return_scores)
    return SemanticMap(labels, scores, class_scores if return_scores else None)


def _score_order(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry, return_scores: bool
                 ) -> SemanticMap:
    """Scores at padded size, cut and resized; groups of classes bound the memory, a running maximum joins them."""
    classes = probabilities.shape[1]
    pixels = geometry.image[0] * geometry.image[1] + geometry.output[0] * geometry.output[1]
    group = rows_per_band(pixels)
    scores = mask_logits.new_full(geometry.output, -torch.inf)
    labels = torch.zeros(geometry.output, dtype=torch.int64, device=mask_logits.device)
    kept = []
    for first in range(0, classes, group):
        columns = probabilities[:, first:first + group].contiguous()
        _, _, maps = torch.ops.frozenmm.mask_ensemble_semantic(
            columns, mask_logits, geometry.padded, geometry.image, geometry.image, True)
        if geometry.image != geometry.output:
            maps = F.interpolate(maps[None], size=geometry.output, mode='bilinear', align_corners=False)[0]
        best, index = maps.max(dim=0)
        # written so that a NaN score in the first group stays, as all classes of such a pixel are NaN
        better = best > scores if first else torch.ones_like(best, dtype=torch.bool)
        scores = torch.where(better, best, scores)
        labels = torch.where(better, index + first, labels)
        if return_scores:
            kept.append(maps)
    return SemanticMap(labels, scores, torch.cat(kept) if return_scores else None)


def semantic_definition(probabilities: Tensor, mask_logits: Tensor, padded: list[int], image: list[int],
                        output: list[int], class_scores: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Plain torch path of `frozenmm::mask_ensemble_semantic`, in bands of output rows.

    Args:
        probabilities: (Q, K) float32.
        mask_logits: (Q, h, w) float32.
        padded: see `MaskGeometry`, likewise the next two.
        image: at most `padded`.
        output: (H, W).
        class_scores: whether the third result is wanted.

    Returns:
        labels (H, W), scores (H, W) and class scores (K, H, W), or (0, H, W) where they are not wanted.
    """
    classes = probabilities.shape[1]
    weights = probabilities.t().contiguous()
    labels = torch.empty(tuple(output), dtype=torch.int64, device=mask_logits.device)
    scores = mask_logits.new_empty(tuple(output))
    maps = mask_logits.new_empty((classes if class_scores else 0, *output))
    for first, end, logits in logit_bands(mask_logits, padded, image, output, classes):
        band = torch.mm(weights, logits.sigmoid_().flatten(1)).view(classes, end - first, output[1])
        torch.max(band, dim=0, out=(scores[first:end], labels[first:end]))
        if class_scores:
            maps[:, first:end] = band
    return labels, scores, maps


def _semantic_fake(probabilities: Tensor, mask_logits: Tensor, padded: list[int], image: list[int],
                   output: list[int], class_scores: bool) -> tuple[Tensor, Tensor, Tensor]:
    return (mask_logits.new_empty(tuple(output), dtype=torch.int64), mask_logits.new_empty(tuple(output)),
            mask_logits.new_empty((probabilities.shape[1] if class_scores else 0, *output)))


define_op('mask_ensemble_semantic(Tensor probabilities, Tensor mask_logits, int[] padded, int[] image, int[] output, '
          'bool class_scores) -> (Tensor, Tensor, Tensor)', semantic_definition, _semantic_fake)
