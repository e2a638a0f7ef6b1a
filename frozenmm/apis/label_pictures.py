"""Pictures as bytes: drawings, and label maps with a palette and a legend."""
from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from frozenmm.compat import require
from frozenmm.datasets.annotation_pictures import VOID_8BIT, VOID_16BIT
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import VocabularyClass
from frozenmm.visualization.detections import spread_palette


def picture_bytes(pixels: np.ndarray, suffix: str = '.png') -> bytes:
    """A picture file of (H, W, 3) uint8 RGB.

    Raises:
        UserError: the suffix is of no format of pictures.
    """
    pil = require('PIL.Image', 'writing images')
    kind = pil.registered_extensions().get(suffix.lower())
    if kind not in pil.SAVE:
        raise UserError(f'{suffix!r} is no format of pictures; write a .png or .jpg file, or give a folder for all '
                        'files of a result')
    buffer = io.BytesIO()
    pil.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def class_colours(classes: Sequence[VocabularyClass]) -> list[tuple[int, int, int]]:
    """One RGB colour per class: those of the classes where all have one, else evenly spread hues."""
    stated = [entry.color for entry in classes if entry.color is not None]
    return stated if len(stated) == len(classes) else spread_palette(len(classes))


def label_png(labels: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """A label map as PNG: 8 bits with a palette for up to 255 classes, 16 bits for more.

    Args:
        labels: (H, W) class indices; what is below 0 or beyond the colours becomes void (255 or 65535).
        colours: RGB per class.
    """
    pil = require('PIL.Image', 'writing images')
    few = len(colours) <= VOID_8BIT
    inside = (labels >= 0) & (labels < len(colours))
    values = np.where(inside, labels, VOID_8BIT if few else VOID_16BIT).astype(np.uint8 if few else np.uint16)
    picture = pil.fromarray(values)
    if few:
        palette = np.zeros((256, 3), np.uint8)
        palette[:len(colours)] = colours
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, 'PNG')
    return buffer.getvalue()


def legend_csv(classes: Sequence[VocabularyClass]) -> str:
    """What the values of a label map mean, as a table: value, category id, name, colour."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator='\n')
    rows.writerow(('value', 'id', 'name', 'color'))
    for label, (entry, (red, green, blue)) in enumerate(zip(classes, class_colours(classes))):
        rows.writerow((label, entry.id, entry.name, f'#{red:02x}{green:02x}{blue:02x}'))
    return text.getvalue()
