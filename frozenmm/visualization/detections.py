"""Boxes drawn on pictures: ground truth at the left, one or several predictions beside it, one legend for all."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from frozenmm.visualization.lettering import MARGIN, TEXT, contrasting, drawing, text_width, write


@dataclass(frozen=True)
class Boxes:
    """Boxes to draw.

    Attributes:
        xyxy: (N, 4) corners in pixels.
        labels: (N,) class indices.
        scores: (N,) scores in 0..1, or None for ground truth.
        tracks: (N,) numbers of the objects in their video, -1 where there is none; or None.
    """

    xyxy: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    tracks: np.ndarray | None = None


def surest(boxes: Boxes, count: int, *, overlap: float = 0.5) -> Boxes:
    """The predictions that a detector is surest of, one per object: of boxes that overlap only the first is taken.

    Args:
        boxes: with scores.
        count: of boxes at most.
        overlap: share of their union that two boxes of different classes may have in common, and two boxes of one class
            of the smaller one, before they count as one object.
    """
    scores = np.zeros(len(boxes.xyxy)) if boxes.scores is None else boxes.scores
    taken: list[int] = []
    for index in np.argsort(-scores, kind='stable'):
        if len(taken) == count:
            break
        same = boxes.labels[taken] == boxes.labels[index]
        if not (_in_common(boxes.xyxy[index], boxes.xyxy[taken], same) >= overlap).any():
            taken.append(int(index))
    return Boxes(boxes.xyxy[taken], boxes.labels[taken], scores[taken])


def _in_common(box: np.ndarray, others: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Intersection with (N, 4) others, as a share of the smaller one where the class is the same, else of the union."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.clip(sides, 0, None).prod(1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(1)
    return common / np.maximum(np.where(same, np.minimum(area, areas), area + areas - common), 1e-9)


def draw_boxes(image: np.ndarray, boxes: Boxes, classes: Sequence[str], palette: Sequence[Sequence[int]], *,
               width: int = 480) -> np.ndarray:
    """A picture with labelled boxes.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: what to draw.
        classes: class names.
        palette: one RGB colour per class.
        width: the picture is resized to this width first, so that labels stay readable.

    Returns:
        (H', width, 3) uint8 RGB.
    """
    pil, draw_module = drawing()
    scale = width / image.shape[1]
    picture = pil.fromarray(image).resize((width, round(image.shape[0] * scale)), pil.Resampling.BICUBIC)
    draw = draw_module.Draw(picture)
    sides = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    # large boxes first, so that small ones and their labels stay on top
    for index in np.argsort(-sides[:, 0] * sides[:, 1], kind='stable'):
        x1, y1, x2, y2 = (boxes.xyxy[index] * scale).tolist()
        label = int(boxes.labels[index])
        colour = tuple(int(value) for value in palette[label])
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=3)
        text = caption(classes[label], None if boxes.scores is None else boxes.scores[index],
                       None if boxes.tracks is None or boxes.tracks[index] < 0 else boxes.tracks[index])
        wide = text_width(text) + 6
        left = min(max(x1, 0), max(width - wide, 0))
        # above the box where there is room, else inside it
        top = min(y1 - TEXT - 5 if y1 > TEXT + 5 else max(y1, 0), picture.height - TEXT - 5)
        draw.rectangle((left, top, left + wide, top + TEXT + 5), fill=colour)
        write(draw, (left + 3, top + 1), text, fill=contrasting(colour))
    return np.asarray(picture)


def beside_truth(image: np.ndarray, truth: Boxes, predictions: Mapping[str, Boxes], classes: Sequence[str],
                 palette: Sequence[Sequence[int]], *, width: int = 480) -> np.ndarray:
    """Ground truth and predictions side by side, with headings and a legend of the classes that occur.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: annotated boxes.
        predictions: heading -> boxes to show, already cut by score.
        classes: class names.
        palette: one RGB colour per class.
        width: of each picture.

    Returns:
        (H', W', 3) uint8 RGB, W' = pictures * (width + margin) + margin.
    """
    pil, draw_module = drawing()
    columns = {'ground truth': truth, **predictions}
    pictures = {heading: draw_boxes(image, boxes, classes, palette, width=width) for heading, boxes in columns.items()}
    total = len(columns) * (width + MARGIN) + MARGIN
    top = TEXT + 2 * MARGIN
    bottom = top + next(iter(pictures.values())).shape[0] + MARGIN
    present = sorted({int(label) for boxes in columns.values() for label in boxes.labels})
    places, rows = _legend(present, classes, total)
    sheet = pil.new('RGB', (total, bottom + rows * (TEXT + MARGIN) + MARGIN), (255, 255, 255))
    draw = draw_module.Draw(sheet)
    for column, (heading, picture) in enumerate(pictures.items()):
        x = MARGIN + column * (width + MARGIN)
        sheet.paste(pil.fromarray(picture), (x, top))
        write(draw, (x, MARGIN), heading)
    for label, (x, row) in places.items():
        y = bottom + row * (TEXT + MARGIN)
        draw.rectangle((x, y, x + TEXT, y + TEXT), fill=tuple(int(value) for value in palette[label]))
        write(draw, (x + TEXT + 5, y - 1), classes[label])
    return np.asarray(sheet)


def caption(name: str, score: float | None, track: int | None = None) -> str:
    """What is written beside a thing.

    >>> caption('cat', 0.5, 3)
    'cat #3 0.50'
    """
    return name + ('' if track is None else f' #{track}') + ('' if score is None else f' {score:.2f}')


def spread_palette(count: int) -> list[tuple[int, int, int]]:
    """Evenly spread hues, for data sets without a palette of their own."""
    angles = np.arange(count) * 2.399963  # the golden angle: neighbours in the list differ most
    phases = (0.0, 2 * np.pi / 3, 4 * np.pi / 3)
    waves = (127 + 110 * np.cos(angles[:, None] + np.array(phases))).astype(int).tolist()
    return [(red, green, blue) for red, green, blue in waves]


def _legend(labels: list[int], classes: Sequence[str], total: int) -> tuple[dict[int, tuple[int, int]], int]:
    """Place of every legend entry as (x, row), and the number of rows."""
    places: dict[int, tuple[int, int]] = {}
    x, row = MARGIN, 0
    for label in labels:
        width = TEXT + 5 + text_width(classes[label]) + 2 * MARGIN
        if x + width > total and x > MARGIN:
            x, row = MARGIN, row + 1
        places[label] = (x, row)
        x += width
    return places, row + 1 if labels else 0
