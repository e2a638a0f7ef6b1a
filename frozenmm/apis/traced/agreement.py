"""How far the results of an exported model are from those of the model itself."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def largest_difference(found: Mapping[str, Tensor], expected: Any, size: tuple[int, int], *, classes: int) -> float:
    """The largest difference between the outputs of a graph for one picture and a data sample of mmdet.

    Args:
        found: outputs by name, without the axis of the batch.
        expected: `pred_instances`, `pred_panoptic_seg` and `pred_sem_seg` at the size of the graph's input.
        size: (height, width) of the input.
        classes: number of classes, which panoptic maps of mmdet have where there is no segment.

    Returns:
        The largest of: differences of scores in rank order, distances of boxes of equal label and score in units of
        the picture's longer side, and shares of pixels that differ. Infinite where the numbers of results differ.
    """
    differences = []
    if 'scores' in found:
        differences.append(_instances(found, expected.pred_instances, max(size)))
    if 'segments' in found:
        owner = found['segments']
        labels = torch.where(owner >= 0, found['segment_labels'][owner.clamp(min=0)], classes)
        segments = expected.pred_panoptic_seg.sem_seg[0].to(labels)
        offset = int(expected.metainfo.get('instance_offset', 1000))
        differences.append((labels != segments % offset).float().mean().item())
        if owner.unique().numel() != segments.unique().numel():
            differences.append(_fewest_pixels(owner, segments))
    if 'semantic' in found:
        differences.append((found['semantic'] != expected.pred_sem_seg.sem_seg[0]).float().mean().item())
    return largest(differences)


def largest(differences: Iterable[float]) -> float:
    """The largest of some numbers; infinite where one is none, which Python's `max` passes over."""
    return max(float('inf') if math.isnan(value) else value for value in differences)


def _fewest_pixels(*maps: Tensor) -> float:
    """The share of pixels of the smallest segment of any map: what must differ where their numbers do."""
    return min(int(values.unique(return_counts=True)[1].min()) for values in maps) / maps[0].numel()


def _instances(found: Mapping[str, Tensor], expected: Any, side: int) -> float:
    named = found['labels'] >= 0
    scores, order = found['scores'][named].sort(descending=True)
    known, places = expected.scores.sort(descending=True)
    if len(scores) != len(known):
        return float('inf')
    if not len(scores):
        return 0.0
    difference = (scores - known).abs().max().item()
    labels, boxes = found['labels'][named][order], found['boxes'][named][order]
    # results of equal score may stand in any order, so each is compared with those of its label and score
    alike = (labels[:, None] == expected.labels[places]) & ((scores[:, None] - known).abs() <= difference + 1e-6)
    distance = (boxes[:, None] - expected.bboxes[places]).abs().amax(-1) / side
    if 'masks' in found:
        masks = found['masks'][named][order]
        distance = torch.maximum(distance, torch.stack(
            [(mask != expected.masks[places]).flatten(1).float().mean(1) for mask in masks]))
    nearest = torch.where(alike, distance, float('inf')).amin(1)
    return largest((difference, nearest.max().item()))
