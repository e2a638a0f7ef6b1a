"""Text on pictures, in any script: the first of three fonts that has all of its letters."""
from __future__ import annotations

import io
import lzma
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from frozenmm.compat import require

TEXT = 15
"""Height of a line's letters in pixels."""
MARGIN = 8
_UNIFONT = Path(__file__).parent / 'fonts' / 'unifont-15.0.01.otf.xz'
_UNIFONT_SIZE = 16  # its letters are drawn on a grid of 16 pixels and blur at any other size


def drawing() -> tuple[Any, Any]:
    """Pillow's Image and ImageDraw modules."""
    return require('PIL.Image', 'drawing'), require('PIL.ImageDraw', 'drawing')


def text_width(text: str) -> int:
    """Pixels that `write` needs for a line of text."""
    return int(_font(text).getlength(text))


def write(draw: Any, place: tuple[float, float], text: str, *, fill: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Write a line of text.

    Args:
        draw: Pillow's `ImageDraw` of the picture.
        place: x and y of the upper left corner in pixels.
        text: in any script of Unicode's basic plane.
        fill: RGB colour.
    """
    draw.text(place, text, fill=fill, font=_font(text))


def contrasting(colour: Sequence[int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on the RGB colour (Rec. 601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


@lru_cache(maxsize=4096)
def _font(text: str) -> Any:
    """Pillow's own font (basic Latin), else DejaVu Sans (Latin, Greek, Cyrillic, ...), else Unifont (the rest)."""
    letters = {letter for letter in text if not letter.isspace()}
    for font, missing in (_own(), _dejavu()):
        if all(bytes(font.getmask(letter)) != missing for letter in letters):
            return font
    return _unifont()


@lru_cache(maxsize=1)
def _own() -> tuple[Any, bytes]:
    return _with_missing(require('PIL.ImageFont', 'drawing').load_default(size=TEXT))


@lru_cache(maxsize=1)
def _dejavu() -> tuple[Any, bytes]:
    fonts = Path(require('matplotlib', 'drawing').get_data_path()) / 'fonts' / 'ttf'
    return _with_missing(require('PIL.ImageFont', 'drawing').truetype(str(fonts / 'DejaVuSans.ttf'), TEXT))


@lru_cache(maxsize=1)
def _unifont() -> Any:
    return require('PIL.ImageFont', 'drawing').truetype(io.BytesIO(lzma.decompress(_UNIFONT.read_bytes())),
                                                        _UNIFONT_SIZE)


def _with_missing(font: Any) -> tuple[Any, bytes]:
    """The font, and what it draws for a letter that it does not have (U+10FFFE is none, in every font)."""
    return font, bytes(font.getmask('\U0010fffe'))
