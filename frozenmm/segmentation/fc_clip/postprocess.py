"""From class probabilities and mask logits to semantic, panoptic and instance results, all from one forward pass."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.ops.mask_ensemble import (
    InstanceMasks,
    MaskGeometry,
    PanopticMap,
    SemanticMap,
    mask_ensemble_instance,
    mask_ensemble_panoptic,
    mask_ensemble_semantic,
    unpack_masks,
)

MASK_TASKS = ('semantic', 'panoptic', 'instance', 'proposals')
SEMANTIC_ORDERS = ('auto', 'masks', 'scores')


@dataclass
class MaskResults:
    """The results of one image at output size; None for tasks that are off.

    Attributes:
        semantic, panoptic, instance: see `frozenmm.ops`.
        segment_scores: one per panoptic segment, that of its best query.
        proposals: (N, H, W) bool, the masks of all queries whatever their class, for recall.
    """

    semantic: SemanticMap | None = None
    panoptic: PanopticMap | None = None
    instance: InstanceMasks | None = None
    proposals: Tensor | None = None
    segment_scores: list[float] | None = None


class MaskPostprocessor:
    """The third part of mask classification, on `frozenmm.ops`: no mask ever exists at output size as float.

    Args:
        tasks: which of `'semantic'`, `'panoptic'`, `'instance'`, `'proposals'` to compute.
        score_threshold: queries at or below this score take no part in the panoptic result (FC-CLIP 0,
            Mask2Former 0.8).
        overlap_threshold: least share of a mask that must be left to its query in the panoptic result.
        top_k: pairs of query and class that are considered for instances.
        semantic_order: `'masks'` resizes mask logits, then scores; `'scores'` scores at padded size and resizes the
            score maps; `'auto'` does as the official code: `'scores'` if semantic is the only task, else `'masks'`.
        class_scores: keep all semantic score maps, K floats per pixel, beside the label map.
    """

    def __init__(self, tasks: Sequence[str] = MASK_TASKS[:3], *, score_threshold: float = 0.0,
                 overlap_threshold: float = 0.8, top_k: int = 100, semantic_order: str = 'auto',
                 class_scores: bool = False) -> None:
        unknown = [task for task in tasks if task not in MASK_TASKS]
        if unknown or not tasks:
            raise UserError(f'tasks must be some of {list(MASK_TASKS)}, got {list(tasks)}')
        if semantic_order not in SEMANTIC_ORDERS:
            raise UserError(f'semantic_order must be one of {list(SEMANTIC_ORDERS)}, got {semantic_order!r}')
        self.tasks = tuple(tasks)
        self.score_threshold = score_threshold
        self.overlap_threshold = overlap_threshold
        self.top_k = top_k
        if semantic_order == 'auto':
            semantic_order = 'scores' if self.tasks == ('semantic',) else 'masks'
        self.semantic_order = cast(Literal['masks', 'scores'], semantic_order)
        self.class_scores = class_scores

    def __call__(self, log_probs: Tensor, mask_logits: Tensor, geometry: MaskGeometry,
                 thing_classes: Sequence[int], *, tasks: Sequence[str] | None = None) -> MaskResults:
        """The results of one image.

        Args:
            log_probs: (Q, K+1), void last; need not be normalised.
            mask_logits: (Q, h, w).
            geometry: how the masks' grid maps to the output.
            thing_classes: indices of the classes that have instances.
            tasks: do these in place of the configured ones.
        """
        tasks = self.tasks if tasks is None else tasks
        probabilities = log_probs.softmax(-1)
        results = MaskResults()
        if 'semantic' in tasks:
            results.semantic = self.semantic(probabilities[:, :-1], mask_logits, geometry)
        if 'panoptic' in tasks:
            results.panoptic = mask_ensemble_panoptic(
                probabilities, mask_logits, geometry, thing_classes=thing_classes,
                score_threshold=self.score_threshold, overlap_threshold=self.overlap_threshold)
            results.segment_scores = segment_scores(results.panoptic, probabilities)
        if 'instance' in tasks:
            results.instance = mask_ensemble_instance(probabilities[:, :-1], mask_logits, geometry, top_k=self.top_k,
                                                      thing_classes=thing_classes)
        if 'proposals' in tasks:
            results.proposals = all_masks(mask_logits, geometry)
        return results

    def semantic(self, probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry) -> SemanticMap:
        """Label map from probabilities (Q, K) without void and mask logits (Q, h, w)."""
        return mask_ensemble_semantic(probabilities, mask_logits, geometry, return_scores=self.class_scores,
                                      order=self.semantic_order)


def all_masks(mask_logits: Tensor, geometry: MaskGeometry) -> Tensor:
    """(Q, H, W) bool at output size: where each query's logit (Q, h, w) is > 0."""
    count = len(mask_logits)
    masks = mask_ensemble_instance(mask_logits.new_ones(count, 1), mask_logits, geometry, top_k=count)
    return unpack_masks(masks.bits, masks.size[1])


def segment_scores(panoptic: PanopticMap, probabilities: Tensor) -> list[float]:
    """Score of each segment: the highest class probability (Q, K+1) among its queries."""
    scores = probabilities.amax(-1)
    best = scores.new_zeros(len(panoptic.segments) + 1)
    best = best.scatter_reduce(0, panoptic.segment_of_query.to(scores.device).long(), scores, 'amax')
    return best[1:].tolist()
