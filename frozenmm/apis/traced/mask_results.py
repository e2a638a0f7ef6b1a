"""Results of mask classification as a graph of fixed shapes: what `frozenmm.ops` and mmdet do with loops and lists."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskRules:
    """How masks and classes become results.

    Attributes:
        tasks: some of `'panoptic'`, `'instance'`, `'semantic'`.
        things: indices of the classes that have instances.
        score_threshold: queries at or below it take no part in the panoptic result.
        overlap_threshold: least share of a mask that must be left to its query.
        top_k: pairs of query and class that are considered for instances.
        inside_only: a segment is what of its pixels lies inside the mask; else all that it owns (mmdet).
    """

    tasks: tuple[str, ...]
    things: tuple[int, ...]
    score_threshold: float
    overlap_threshold: float
    top_k: int
    inside_only: bool

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the results, in the order of `results`."""
        names = {'panoptic': ('segments', 'segment_labels', 'segment_scores'),
                 'instance': ('boxes', 'scores', 'labels', 'masks'), 'semantic': ('semantic', )}
        return tuple(name for task in self.tasks for name in names[task])

    def results(self, probabilities: Tensor, mask_logits: Tensor) -> tuple[Tensor, ...]:
        """Results of all tasks.

        Args:
            probabilities: (B, Q, K+1), void last.
            mask_logits: (B, Q, H, W) at the size of the picture.

        Returns:
            For `'panoptic'` segments (B, H, W) int64, the query that a pixel belongs to, -1 for none; the labels
            (B, Q) int64 of the queries, -1 for those without a segment, and their scores (B, Q). For `'instance'`
            boxes (B, N, 4) xyxy, scores (B, N), labels (B, N), -1 where the class is no thing, and masks (B, N, H, W)
            bool. For `'semantic'` labels (B, H, W).
        """
        makers = {'panoptic': self._panoptic, 'instance': self._instance, 'semantic': _semantic}
        return tuple(value for task in self.tasks for value in makers[task](probabilities, mask_logits))

    def _is_thing(self, labels: Tensor, classes: int) -> Tensor:
        table = [index in self.things for index in range(classes)]
        return torch.tensor(table, device=labels.device)[labels.clamp(0, classes - 1)]

    def _panoptic(self, probabilities: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, void = probabilities.shape[1], probabilities.shape[2] - 1
        scores, labels = probabilities.max(-1)
        part = (labels != void) & (scores > self.score_threshold)
        products = torch.where(part[..., None, None], scores[..., None, None] * mask_logits.sigmoid(), -1.0)
        best, owner = products.max(1)
        inside = (mask_logits >= 0) & part[..., None, None]
        places = torch.arange(queries, device=owner.device)[None, :, None, None]
        owned = (owner[:, None] == places) & (best >= 0)[:, None]
        areas = [mask.flatten(2).to(torch.float32).sum(-1) for mask in (owned, inside, owned & inside)]
        kept = part & (areas[0] > 0) & (areas[1] > 0) & (areas[0] >= self.overlap_threshold * areas[1])
        if self.inside_only:
            kept, owned = kept & (areas[2] > 0), owned & inside
        labels = torch.where(kept, labels, -1)
        shown = (owned & kept[..., None, None]).any(1)
        # a query of stuff shows as the first one of its class
        same = (labels[:, :, None] == labels[:, None]) & kept[:, None] & ~self._is_thing(labels, void)[:, :, None]
        same = same | torch.eye(queries, dtype=torch.bool, device=same.device)
        first = same.to(torch.int64).argmax(-1)
        named = first.gather(1, owner.flatten(1)).reshape_as(owner)
        return torch.where(shown, named, -1), labels, torch.where(kept, scores, 0.0)

    def _instance(self, probabilities: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        classes = probabilities.shape[2] - 1
        count = min(self.top_k, probabilities.shape[1] * classes)
        chosen, pairs = probabilities[..., :-1].flatten(1).topk(count, 1)
        labels, queries = pairs % classes, pairs // classes
        height, width = mask_logits.shape[-2:]
        logits = mask_logits.gather(1, queries[..., None, None].expand(-1, -1, height, width))
        masks = logits > 0
        inside = masks.to(torch.float32)
        sums = (logits.sigmoid() * inside).flatten(2).sum(-1)
        scores = chosen * sums / (inside.flatten(2).sum(-1) + 1e-6)
        labels = torch.where(self._is_thing(labels, classes), labels, -1)
        return _boxes(masks), scores, labels, masks


def _semantic(probabilities: Tensor, mask_logits: Tensor) -> tuple[Tensor]:
    return (torch.einsum('bqk,bqhw->bkhw', probabilities[..., :-1], mask_logits.sigmoid()).argmax(1), )


def _boxes(masks: Tensor) -> Tensor:
    """(B, N, 4) half-open boxes of masks (B, N, H, W); zeros for empty ones."""
    spans = []
    for axis, size in ((2, masks.shape[3]), (3, masks.shape[2])):  # columns, then rows
        filled = masks.any(axis)
        places = torch.arange(size, device=masks.device)
        first = torch.where(filled, places, size).amin(-1)
        end = torch.where(filled, places + 1, 0).amax(-1)
        spans.append((torch.minimum(first, end), end))
    (x0, x1), (y0, y1) = spans
    return torch.stack([x0, y0, x1, y1], -1).to(torch.float32)


def mmdet_rules(test_cfg: dict, things: Sequence[int]) -> MaskRules:
    """Those of mmdet's `MaskFormerFusionHead`."""
    tasks = [task for task, default in (('panoptic', True), ('instance', False))
             if test_cfg.get(f'{task}_on', default)]
    return MaskRules(tuple(tasks), tuple(things), test_cfg.get('object_mask_thr', 0.8), test_cfg.get('iou_thr', 0.8),
                     test_cfg.get('max_per_image', 100), test_cfg.get('filter_low_score', False))
