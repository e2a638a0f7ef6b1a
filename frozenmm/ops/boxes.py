"""Boxes that suppress each other: overlaps, and non-maximum suppression in the forms that mmcv has.

Boxes are (x1, y1, x2, y2). `offset` is 0, or 1 where coordinates are indices of pixels; it is added to widths and
heights. The sweep over sorted boxes is the operator `frozenmm::nms_sorted`, with a kernel for CPUs; everything else is
plain torch.
"""
from __future__ import annotations

import torch
from torch import Tensor

from frozenmm.ops.mask_library import define_op

_BLOCK = 512
"""Boxes that are compared with all others at a time, so that no N x N matrix is needed."""


def overlaps(boxes: Tensor, others: Tensor, *, offset: float = 0, of_first: bool = False) -> Tensor:
    """Intersection over union, or over the area of the first box; NaN where that is 0.

    Args:
        boxes: (..., 4).
        others: (..., 4), broadcast against `boxes`.
        offset: 0 or 1.
        of_first: divide by the area of `boxes` instead of the union.

    Returns:
        The broadcast leading axes.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    u1, v1, u2, v2 = others.unbind(-1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1) + offset).clamp_(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1) + offset).clamp_(min=0)
    shared = width.mul_(height)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    whole = area if of_first else area + (u2 - u1 + offset) * (v2 - v1 + offset) - shared
    return shared / whole


def _survivors(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Which of N sorted boxes stay, (N,) bool, from the whole N x N matrix.

    Whether a box stays depends on earlier ones only, so the rule "stays unless one that stays beats it" is repeated
    until nothing changes: after k rounds the first k boxes are right. Nothing here waits for a GPU but the comparison.
    """
    beats = (overlaps(boxes[:, None], boxes[None], offset=offset) > iou_threshold).triu_(1)
    stays = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while True:
        after = ~(beats & stays[:, None]).any(0)
        if torch.equal(after, stays):
            return stays
        stays = after


def _nms_definition(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    left = torch.arange(len(boxes), device=boxes.device)
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        block = block[_survivors(boxes[block], iou_threshold, offset)]
        keep[block] = True
        if len(left):
            beaten = overlaps(boxes[block][:, None], boxes[left][None], offset=offset) > iou_threshold
            left = left[~beaten.any(0)]
    return keep


def _nms_fake(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    return boxes.new_empty(boxes.shape[0], dtype=torch.bool)


define_op('nms_sorted(Tensor boxes, float iou_threshold, int offset) -> Tensor', _nms_definition, _nms_fake)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the boxes that greedy non-maximum suppression keeps, by falling score.

    Args:
        boxes: (N, 4), floating point; half precision is computed in float32.
        scores: (N,); equal ones keep their order.
        iou_threshold: boxes that overlap a kept one by more than this are dropped.
        offset: 0 or 1.

    Returns:
        (M,) int64.
    """
    order = scores.argsort(descending=True, stable=True)
    real = boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()
    return order[torch.ops.frozenmm.nms_sorted(real[order].contiguous(), float(iou_threshold), int(offset))]


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Soft non-maximum suppression: overlapping boxes lose score instead of going.

    Args:
        boxes: (N, 4) on the CPU.
        scores: (N,); of equal ones the first is taken first.
        dets: (N, 5); its first M rows are filled with the kept boxes and the scores that they were taken with.
        iou_threshold: from this overlap on, methods 0 and 1 act.
        sigma: width of method 2.
        min_score: boxes that fall below it are dropped; the first box that is taken stays whatever its score.
        method: 0 drops a box, 1 multiplies its score by 1 - overlap, 2 by exp(-overlap^2 / sigma).
        offset: 0 or 1.

    Returns:
        (M,) int64 indices in the order of taking.

    Source: Bodla et al., Soft-NMS (ICCV 2017), equations 2 and 3.
    """
    boxes, scores = boxes.detach(), scores.detach().clone()
    left = torch.arange(len(boxes))
    taken: list[Tensor] = []
    while len(left):
        at = int(scores[left].argmax())
        best, left = left[at], torch.cat([left[:at], left[at + 1:]])
        dets[len(taken), :4], dets[len(taken), 4] = boxes[best], scores[best]
        taken.append(best)
        overlap = overlaps(boxes[best], boxes[left], offset=offset)
        if method == 2:
            scores[left] *= (-overlap.square() / sigma).exp()
        else:
            lost = 1 - overlap if method == 1 else torch.zeros_like(overlap)
            scores[left] *= torch.where(overlap >= iou_threshold, lost, 1.0)
        left = left[~(scores[left] < min_score)]
    return torch.stack(taken) if taken else left


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each that is kept, and those that it suppresses (from an overlap of `iou_threshold` on).

    Args:
        dets: (N, 5), boxes and scores.
        iou_threshold: smallest overlap inside a group.

    Returns:
        Indices, in each group and of the groups by falling score.
    """
    left, groups = dets[:, 4].argsort(descending=True, stable=True), []
    while len(left):
        first, left = left[0], left[1:]
        joins = overlaps(dets[first, :4], dets[left, :4]) >= iou_threshold
        groups.append([int(first), *left[joins].tolist()])
        left = left[~joins]
    return groups


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Fill `ious` with the overlaps of boxes.

    Args:
        bboxes1: (N, 4).
        bboxes2: (M, 4).
        ious: (N, M), or (N,) for pairs.
        mode: 0 divides by the union, 1 by the area of the first box.
        aligned: compare pairs; then M is N.
        offset: 0 or 1.
    """
    first, second = (bboxes1, bboxes2) if aligned else (bboxes1[:, None], bboxes2[None])
    ious.copy_(overlaps(first, second, offset=offset, of_first=mode == 1))
