"""Boxes drawn on pictures: ground truth at the left, prediction at the right, one legend for both."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frozenmm.compat import require

_MARGIN = 8
_TEXT = 15


@dataclass(frozen=True)
class Boxes:
    """Boxes to draw.

    Attributes:
        xyxy: (N, 4) corners in pixels.
        labels: (N,) class indices.
        scores: (N,) scores in 0..1, or None for ground truth.
    """

    xyxy: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


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
    pil, draw_module, font = _drawing()
    scale = width / image.shape[1]
    picture = pil.fromarray(image).resize((width, round(image.shape[0] * scale)), pil.Resampling.BICUBIC)
    draw = draw_module.Draw(picture)
    # large boxes first, so that labels of small ones stay on top
    areas = (boxes.xyxy[:, 2] - boxes.xyxy[:, 0]) * (boxes.xyxy[:, 3] - boxes.xyxy[:, 1])
    for index in np.argsort(-areas):
        x1, y1, x2, y2 = (boxes.xyxy[index] * scale).tolist()
        colour = tuple(int(value) for value in palette[boxes.labels[index]])
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=3)
        text = classes[boxes.labels[index]]
        if boxes.scores is not None:
            text = f'{text} {boxes.scores[index]:.2f}'
        box = draw.textbbox((0, 0), text, font=font)
        left = min(max(x1, 0), max(width - box[2] - 5, 0))
        top = y1 - _TEXT - 6 if y1 > _TEXT + 6 else min(y1, picture.height - _TEXT - 6)
        draw.rectangle((left, top, left + box[2] + 5, top + _TEXT + 5), fill=colour)
        draw.text((left + 3, top + 1), text, fill=_contrasting(colour), font=font)
    return np.asarray(picture)


def beside_truth(image: np.ndarray, truth: Boxes, prediction: Boxes, classes: Sequence[str],
                 palette: Sequence[Sequence[int]], *, width: int = 480, title: str = '') -> np.ndarray:
    """Ground truth and prediction side by side, with headings and a legend of the classes that occur.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: annotated boxes.
        prediction: boxes to show, already cut by score.
        classes: class names.
        palette: one RGB colour per class.
        width: of each of the two pictures.
        title: added to the right heading.

    Returns:
        (H', 2 * width + margins, 3) uint8 RGB.
    """
    pil, draw_module, font = _drawing()
    left = draw_boxes(image, truth, classes, palette, width=width)
    right = draw_boxes(image, prediction, classes, palette, width=width)
    present = sorted({int(label) for boxes in (truth, prediction) for label in boxes.labels})
    heading = _TEXT + 2 * _MARGIN
    total = 2 * width + 3 * _MARGIN
    places, rows = _legend(present, classes, total, font)
    height = heading + left.shape[0] + _MARGIN + rows * (_TEXT + _MARGIN) + _MARGIN
    sheet = pil.new('RGB', (total, height), (255, 255, 255))
    draw = draw_module.Draw(sheet)
    for x, picture, text in ((_MARGIN, left, 'ground truth'), (width + 2 * _MARGIN, right, f'prediction {title}'.strip())):
        sheet.paste(pil.fromarray(picture), (x, heading))
        draw.text((x, _MARGIN), text, fill=(0, 0, 0), font=font)
    for label, (x, row) in places.items():
        y = heading + left.shape[0] + _MARGIN + row * (_TEXT + _MARGIN)
        draw.rectangle((x, y, x + _TEXT, y + _TEXT), fill=tuple(int(value) for value in palette[label]))
        draw.text((x + _TEXT + 5, y - 1), classes[label], fill=(0, 0, 0), font=font)
    return np.asarray(sheet)


def _legend(labels: list[int], classes: Sequence[str], total: int, font: object) -> tuple[dict[int, tuple[int, int]], int]:
    """Place of every legend entry as (x, row), and the number of rows."""
    places: dict[int, tuple[int, int]] = {}
    x, row = _MARGIN, 0
    for label in labels:
        width = _TEXT + 5 + int(font.getlength(classes[label])) + 2 * _MARGIN
        if x + width > total and x > _MARGIN:
            x, row = _MARGIN, row + 1
        places[label] = (x, row)
        x += width
    return places, row + 1 if labels else 0


def _contrasting(colour: tuple[int, ...]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on the colour (Rec. 601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _drawing() -> tuple:
    """Pillow's Image and ImageDraw modules and the font of all labels."""
    return (require('PIL.Image', 'drawing'), require('PIL.ImageDraw', 'drawing'),
            require('PIL.ImageFont', 'drawing').load_default(size=_TEXT))
