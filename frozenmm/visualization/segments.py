"""Labelled segments drawn over a picture: coloured regions with outlines, names and scores, and a legend below."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frozenmm.compat import require
from frozenmm.visualization.detections import caption, spread_palette
from frozenmm.visualization.lettering import MARGIN, TEXT, contrasting, drawing, text_width, write

_SMALLEST = 0.0008
"""Regions below this share of the picture get a colour but no name on it; the legend has their class."""


@dataclass(frozen=True)
class Region:
    """A segment to draw.

    Attributes:
        id: its value in the map.
        label: class index.
        score: 0..1, or None for ground truth.
        track: number of the object in its video, if it has one.
    """

    id: int
    label: int
    score: float | None = None
    track: int | None = None


def draw_segments(image: np.ndarray, ids: np.ndarray, regions: Sequence[Region], classes: Sequence[str], *,
                  palette: Sequence[Sequence[int]] | None = None, width: int = 800, opacity: float = 0.5,
                  legend: bool = True) -> np.ndarray:
    """A picture with its segments.

    Args:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) segment ids; those that no region names are left as they are.
        regions: what to draw.
        classes: class names.
        palette: one RGB colour per class; evenly spread hues by default. Segments of one class differ in lightness.
        width: the picture is resized to this width first, so that names stay readable; high ones to twice this height.
        opacity: of the colours, 0..1.
        legend: add a strip with classes, their number of segments and best scores.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: the map has another size than the image.
    """
    if image.shape[:2] != ids.shape:
        raise ValueError(f'the image has {image.shape[:2]} pixels, the segment map {ids.shape}; both must agree')
    pil, draw_module = drawing()
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = np.asarray(pil.fromarray(image).resize(size, pil.Resampling.BICUBIC))
    rows = np.minimum((np.arange(size[1]) / scale).astype(int), ids.shape[0] - 1)
    columns = np.minimum((np.arange(size[0]) / scale).astype(int), ids.shape[1] - 1)
    small = ids[rows[:, None], columns]
    colours = _colours(regions, palette or spread_palette(len(classes)))
    shaded = pil.fromarray(_shade(picture, small, regions, colours, opacity))
    _write_names(draw_module.Draw(shaded), small, regions, colours, classes)
    return _with_legend(shaded, regions, palette or spread_palette(len(classes)), classes) if legend \
        else np.asarray(shaded)


def _colours(regions: Sequence[Region], palette: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """One colour per region: its class's, lighter or darker for the second, third, ... of a class."""
    seen: dict[int, int] = {}
    colours = []
    for region in regions:
        number = seen[region.label] = seen.get(region.label, -1) + 1
        base = np.asarray(palette[region.label], float)
        # 0, lighter, darker, lighter still, ...; never so far that the hue is lost
        step = (0, 0.3, -0.3, 0.5, -0.45)[number % 5]
        toward = 255.0 if step > 0 else 0.0
        red, green, blue = (base + abs(step) * (toward - base)).round().astype(int).tolist()
        colours.append((red, green, blue))
    return colours


def _shade(picture: np.ndarray, ids: np.ndarray, regions: Sequence[Region], colours: Sequence[tuple[int, int, int]],
           opacity: float) -> np.ndarray:
    """Colours over the picture, with a white line at the borders of segments."""
    shaded = picture.astype(np.float32)
    for region, colour in zip(regions, colours):
        mask = ids == region.id
        shaded[mask] = shaded[mask] * (1 - opacity) + np.asarray(colour, np.float32) * opacity
    border = np.zeros(ids.shape, bool)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    shaded[border] = 255
    return shaded.round().astype(np.uint8)


def _write_names(draw: Any, ids: np.ndarray, regions: Sequence[Region],
                 colours: Sequence[tuple[int, int, int]], classes: Sequence[str]) -> None:
    """Names in the middle of their regions, large regions first; one that would cover another name is left out."""
    cv2 = require('cv2', 'drawing')
    height, width = ids.shape
    taken: list[tuple[float, float, float, float]] = []
    areas = [int((ids == region.id).sum()) for region in regions]
    for index in np.argsort(-np.asarray(areas, np.int64), kind='stable').tolist():
        if areas[index] < max(_SMALLEST * ids.size, 12):
            continue
        region = regions[index]
        text = caption(classes[region.label], region.score, region.track)
        mask = np.pad(ids == region.id, 1).astype(np.uint8)
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        wide, tall = text_width(text) + 6, TEXT + 5
        left = float(min(max(x - wide / 2, 0), max(width - wide, 0)))
        top = float(min(max(y - tall / 2, 0), max(height - tall, 0)))
        box = (left, top, left + wide, top + tall)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        draw.rectangle(box, fill=colours[index])
        write(draw, (left + 3, top + 1), text, fill=contrasting(colours[index]))


def _with_legend(picture: Any, regions: Sequence[Region], palette: Sequence[Sequence[int]],
                 classes: Sequence[str]) -> np.ndarray:
    """The picture above a strip with one entry per class that occurs, in order of appearance by class index."""
    pil, draw_module = drawing()
    entries = []
    for label in sorted({region.label for region in regions}):
        own = [region for region in regions if region.label == label]
        count = f' x{len(own)}' if len(own) > 1 else ''
        scores = [region.score for region in own if region.score is not None]
        entries.append((label, f'{classes[label]}{count}' + (f' {max(scores):.2f}' if scores else '')))
    if not entries:
        entries.append((-1, 'nothing found'))
    total = max(picture.width, max(text_width(text) for _, text in entries) + TEXT + 4 * MARGIN)
    places, x, row = [], MARGIN, 0
    for _, text in entries:
        wide = TEXT + 5 + text_width(text) + 2 * MARGIN
        if x + wide > total and x > MARGIN:
            x, row = MARGIN, row + 1
        places.append((x, row))
        x += wide
    sheet = pil.new('RGB', (total, picture.height + (row + 1) * (TEXT + MARGIN) + 2 * MARGIN), (255, 255, 255))
    sheet.paste(picture, (0, 0))
    draw = draw_module.Draw(sheet)
    for (label, text), (left, line) in zip(entries, places):
        y = picture.height + MARGIN + line * (TEXT + MARGIN)
        if label >= 0:
            draw.rectangle((left, y, left + TEXT, y + TEXT), fill=tuple(int(value) for value in palette[label]))
        write(draw, (left + TEXT + 5, y - 1), text)
    return np.asarray(sheet)
