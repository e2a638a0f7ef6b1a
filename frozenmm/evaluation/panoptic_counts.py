"""Matching of panoptic segments, and PQ, SQ and RQ from the matches.

Source: Kirillov et al., "Panoptic Segmentation", CVPR 2019, sections 4.1 and 4.2, with the rules for void and crowd
regions of COCO's evaluation.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from frozenmm.errors import UserError


@dataclass
class PanopticCounts:
    """Matches per class.

    Attributes:
        iou: (K,) float64, sum of the IoU of matched pairs.
        matched: (K,) int64, pairs with IoU > 0.5.
        extra: (K,) int64, predicted segments without partner (false positives).
        missed: (K,) int64, annotated segments without partner (false negatives).
    """

    iou: np.ndarray
    matched: np.ndarray
    extra: np.ndarray
    missed: np.ndarray

    @classmethod
    def zeros(cls, num_classes: int) -> PanopticCounts:
        """No segment at all."""
        return cls(np.zeros(num_classes), *(np.zeros(num_classes, np.int64) for _ in range(3)))

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        return PanopticCounts(self.iou + other.iou, self.matched + other.matched, self.extra + other.extra,
                              self.missed + other.missed)


def count_segments(truth: np.ndarray, truth_classes: Mapping[int, int], predicted: np.ndarray,
                   predicted_classes: Mapping[int, int], num_classes: int, *, crowds: Mapping[int, int] | None = None,
                   compat: bool = False) -> PanopticCounts:
    """Match the segments of one image.

    A predicted and an annotated segment of the same class match when their IoU exceeds 0.5; void pixels do not count in
    the union. A predicted segment without partner is no error when more than half of it lies on void pixels and crowds
    of its class.

    Args:
        truth: (H, W) segment ids; whatever is neither in `truth_classes` nor in `crowds` is void.
        truth_classes: segment id -> class 0..K-1.
        predicted: (H, W) segment ids; whatever is not in `predicted_classes` is void.
        predicted_classes: segment id -> class 0..K-1.
        num_classes: K.
        crowds: id -> class of annotated crowd regions, which match nothing and are never missed.
        compat: as panopticapi, which of several crowds of a class in one image remembers the last one only, and takes
            what lies on the others for errors.

    Raises:
        UserError: sizes differ.
    """
    if truth.shape != predicted.shape:
        raise UserError(f'the prediction is {predicted.shape[0]}x{predicted.shape[1]} pixels, the annotation '
                        f'{truth.shape[0]}x{truth.shape[1]}; predict at original size (rescale=True)')
    crowds = dict(crowds or {})
    rows, row_of = _numbered(truth, [*truth_classes, *crowds])
    columns, column_of = _numbered(predicted, list(predicted_classes))
    overlap = np.bincount(row_of * (len(columns) + 1) + column_of, minlength=(len(rows) + 1) * (len(columns) + 1))
    overlap = overlap.reshape(len(rows) + 1, len(columns) + 1)  # the last row and column are void
    classes_of_rows = np.array([truth_classes.get(row, -1) for row in rows], np.int64)
    forgiving = {row: kind for kind, row in {kind: row for row, kind in crowds.items()}.items()} if compat else crowds
    crowd_classes = np.array([forgiving.get(row, -1) if row not in truth_classes else -1 for row in rows], np.int64)
    classes_of_columns = np.array([predicted_classes[column] for column in columns], np.int64)
    areas, void = overlap.sum(0)[:-1], overlap[-1, :-1]
    union = overlap.sum(1)[:-1, None] + (areas - void)[None] - overlap[:-1, :-1]
    iou = overlap[:-1, :-1] / np.maximum(union, 1)
    same = (classes_of_rows[:, None] == classes_of_columns) & (iou > 0.5)
    forgiven = void + (overlap[:-1, :-1] * (crowd_classes[:, None] == classes_of_columns)).sum(0)
    missed = ~same.any(1) & (classes_of_rows >= 0)
    extra = ~same.any(0) & (areas > 0) & (2 * forgiven <= areas)
    row, column = same.nonzero()

    def per_class(classes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(classes, weights, minlength=num_classes)

    return PanopticCounts(per_class(classes_of_rows[row], iou[row, column]), per_class(classes_of_rows[row]),
                          per_class(classes_of_columns[extra]), per_class(classes_of_rows[missed]))


def _numbered(ids: np.ndarray, known: list[int]) -> tuple[list[int], np.ndarray]:
    """Known ids in ascending order, and (H*W,) the place of each pixel's id among them; `len(known)` for all others."""
    ordered = np.array(sorted(set(known)), np.int64)
    flat = ids.reshape(-1).astype(np.int64)
    if not len(ordered):
        return [], np.zeros(flat.shape, np.int64)
    places = np.searchsorted(ordered, flat).clip(max=len(ordered) - 1)
    return ordered.tolist(), np.where(ordered[places] == flat, places, len(ordered))


def quality(counts: PanopticCounts, chosen: np.ndarray | None = None) -> dict[str, float]:
    """PQ, SQ and RQ in percent, means over classes.

    A class without a single segment, neither annotated nor predicted, does not take part. SQ of a class without any
    match is 0, as in COCO's evaluation.

    Args:
        counts: of all images.
        chosen: (K,) bool, the classes to average; all by default.

    Returns:
        `PQ`, `SQ`, `RQ`, NaN if no class takes part, and their number `classes`.
    """
    weight = counts.matched + (counts.extra + counts.missed) / 2
    taking_part = weight > 0 if chosen is None else (weight > 0) & chosen
    if not taking_part.any():
        return {'PQ': float('nan'), 'SQ': float('nan'), 'RQ': float('nan'), 'classes': 0}
    iou, matched, weight = (values[taking_part] for values in (counts.iou, counts.matched, weight))
    return {'PQ': float(100 * (iou / weight).mean()), 'SQ': float(100 * (iou / np.maximum(matched, 1)).mean()),
            'RQ': float(100 * (matched / weight).mean()), 'classes': int(taking_part.sum())}
