"""What a pipeline gives to a model, drawn: the picture as the network sees it, with its annotations."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from frozenmm.visualization.detections import Boxes, draw_boxes, spread_palette
from frozenmm.visualization.segment_map import label_values
from frozenmm.visualization.segments import Region, draw_segments

_IGNORED = 255


def draw_sample(inputs: Tensor, sample: Any, classes: Sequence[str], *, bgr: bool = True,
                width: int = 480) -> np.ndarray:
    """A packed sample of mmdet or mmseg.

    Args:
        inputs: (3, H, W), 0..255.
        sample: a data sample with `gt_instances` (`bboxes`, `labels`, `masks`), `gt_sem_seg`, or neither.
        classes: names that labels index; further labels are called by their number.
        bgr: order of the channels of `inputs`.
        width: of the drawing.

    Returns:
        (H', W', 3) uint8 RGB: a map of classes if there is one, else masks, else boxes, else the plain picture.
    """
    pixels = inputs.permute(1, 2, 0).clamp(0, 255).byte().cpu().numpy()
    image = np.ascontiguousarray(pixels[..., ::-1] if bgr else pixels)
    if 'gt_sem_seg' in sample:
        labels = label_values(sample.gt_sem_seg)
        known = [int(label) for label in np.unique(labels) if label != _IGNORED]
        names = _named(classes, known)
        return draw_segments(image, labels + 1, [Region(label + 1, label) for label in known], names, width=width)
    truth = sample.get('gt_instances')
    if truth is None or not len(truth):
        return draw_segments(image, np.zeros(image.shape[:2], np.int64), [], classes, width=width)
    labels = truth.labels.cpu().numpy()
    names = _named(classes, labels.tolist())
    if 'masks' in truth:
        masks = truth.masks
        masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks.cpu().numpy()
        ids = np.zeros(image.shape[:2], np.int64)
        for index, mask in enumerate(masks):
            ids[mask.astype(bool)] = index + 1
        regions = [Region(index + 1, int(label)) for index, label in enumerate(labels)]
        return draw_segments(image, ids, regions, names, width=width)
    boxes = truth.bboxes.tensor if hasattr(truth.bboxes, 'tensor') else truth.bboxes
    return draw_boxes(image, Boxes(boxes.cpu().numpy(), labels), names, spread_palette(len(names)), width=width)


def _named(classes: Sequence[str], labels: Sequence[int]) -> list[str]:
    highest = max(labels, default=-1) + 1
    return [*classes, *(f'class {label}' for label in range(len(classes), highest))]
