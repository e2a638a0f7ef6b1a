"""What is in a result, one thing after the other: objects, segments, classes of a map; and what of it is kept."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from frozenmm.visualization.detections import caption
from frozenmm.visualization.segment_map import segment_map

MIN_SCORE = 0.3
"""Least score of boxes and instance masks in files and drawings, where nothing else is asked for."""


@dataclass(frozen=True)
class Found:
    """One object, one segment of a panoptic map, or the pixels of one class.

    Attributes:
        label: class index.
        score: 0..1; None for a class of a semantic map.
        box: x1, y1, x2, y2 in pixels of the picture; zeros where there is no pixel.
        mask: (H, W) bool; None for an object with a box alone.
        isthing: an object, or a region of stuff.
        id: of the segment in its map; 0 for what is in none.
        track: the object's number in its video; None where nothing tracks.
    """

    label: int
    score: float | None
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None
    isthing: bool = True
    id: int = 0
    track: int | None = None

    @property
    def size(self) -> float:
        """Its pixels, or the area of its box."""
        x1, y1, x2, y2 = self.box
        return float((x2 - x1) * (y2 - y1)) if self.mask is None else int(self.mask.sum())


def everything(sample: Any) -> list[Found]:
    """The objects of a sample with `pred_instances`, else its segments."""
    return objects(sample) if 'pred_instances' in sample else segments(sample)


def objects(sample: Any) -> list[Found]:
    """What `pred_instances` holds, in its order."""
    found = sample.pred_instances.cpu()
    masks = _masks(found)
    tracks = found.tracks.tolist() if 'tracks' in found else [-1] * len(found)
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), tracks)
    return [Found(label, score, tuple(box), None if masks is None else masks[index], track=None if track < 0 else track)
            for index, (label, score, box, track) in enumerate(rows)]


def segments(sample: Any) -> list[Found]:
    """The segments of `segment_map`, each with its pixels."""
    ids, infos = segment_map(sample)
    found = []
    for info in infos:
        mask = ids == info['id']
        found.append(Found(info['category_id'], info['score'], box_of(mask), mask, bool(info['isthing']), info['id'],
                           info.get('track')))
    return found


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 around the pixels of a mask (H, W); zeros if there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def kept(sample: Any, *, min_score: float | None = None, several_labels: bool = False) -> Any:
    """A copy of a sample without what scores too low.

    Args:
        sample: with `pred_instances`, panoptic or semantic maps.
        min_score: least score; by default `MIN_SCORE` for `pred_instances` and none for the segments of a panoptic map,
            which would get holes.
        several_labels: keep every label of a box, as a test counts them. Else the best label of each is kept, and no
            mask without a pixel and without a box.
    """
    copy = sample.new()
    if 'pred_instances' in sample:
        chosen = selected(sample.pred_instances, MIN_SCORE if min_score is None else min_score, several_labels)
        copy.pred_instances = sample.pred_instances[chosen]
    if 'segments_info' in sample and min_score is not None:
        copy.set_metainfo(dict(segments_info=[info for info in sample.segments_info if info['score'] >= min_score]))
    return copy


def selected(found: Any, min_score: float, several_labels: bool = False) -> Tensor:
    """(N,) bool, what `kept` keeps of `pred_instances`."""
    chosen = found.scores >= min_score
    return chosen if several_labels else chosen & chosen.new_tensor(_one_label_each(found))


def left_out(sample: Any, min_score: float | None) -> str:
    """What `kept` leaves out for its score, in words; empty for nothing."""
    counts = {}
    if 'pred_instances' in sample:
        kind = 'mask' if 'masks' in sample.pred_instances else 'box'
        counts[kind] = int((sample.pred_instances.scores < (MIN_SCORE if min_score is None else min_score)).sum())
    if 'segments_info' in sample and min_score is not None:
        counts['segment'] = sum(info['score'] < min_score for info in sample.segments_info)
    endings = dict(box='es', mask='s', segment='s')
    found = ' and '.join(f'{count} {kind}{endings[kind] * (count > 1)}' for kind, count in counts.items() if count)
    return f'{found} below {MIN_SCORE if min_score is None else min_score:g}' if found else ''


def _one_label_each(found: Any) -> list[bool]:
    """For every instance whether no better one has the same box and mask; a detector gives a box every good label."""
    masks = _masks(found)
    boxes = [tuple(box) for box in found.bboxes.tolist()]
    first: dict[tuple[float, ...], list[int]] = {}
    chosen = [False] * len(boxes)
    for index in found.scores.argsort(descending=True, stable=True).tolist():
        box, same = boxes[index], first.setdefault(boxes[index], [])
        empty = (box[2] <= box[0] or box[3] <= box[1]) and not (masks is not None and masks[index].any())
        if empty or any(masks is None or np.array_equal(masks[index], masks[other]) for other in same):
            continue
        same.append(index)
        chosen[index] = True
    return chosen


def _masks(found: Any) -> np.ndarray | None:
    """(N, H, W) bool."""
    if 'masks' not in found:
        return None
    masks = found.masks
    return np.asarray(masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks.cpu(), bool)


def names_and_scores(found: Sequence[Found], classes: Sequence[str]) -> str:
    """One line: names with scores, best first; with their share of the picture for classes of a semantic map."""
    if found and found[0].score is None:
        return ', '.join(f'{classes[one.label]} {100 * one.size / one.mask.size:.1f} %' for one in found
                         if one.mask is not None)
    best = sorted(found, key=lambda one: -(one.score or 0))
    return ', '.join(caption(classes[one.label], one.score, one.track) for one in best) or 'nothing found'
