"""Objects cut from the bundled photographs: eight classes, each with a clean mask.

The outlines are drawn by hand as unions of polygons and ellipses, in pixels of the photograph; coins, retina and horse
stand on plain ground and are found by a threshold.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from frozenmm.demo.scenes.photographs import Image, photograph

Polygon = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Ellipse:
    """An upright ellipse: centre and half axes in pixels."""

    centre: tuple[int, int]
    axes: tuple[int, int]


@dataclass(frozen=True)
class Cutout:
    """An object without its surroundings.

    Attributes:
        pixels: (H, W, 3) uint8 BGR.
        alpha: (H, W) float32 in 0..1, soft at the border.
    """

    pixels: Image
    alpha: np.ndarray


CAT: tuple[Polygon | Ellipse, ...] = (
    ((45, 0), (38, 30), (35, 80), (40, 125), (48, 160), (63, 193), (88, 222), (115, 247), (150, 267), (180, 281),
     (215, 290), (260, 287), (292, 280), (310, 262), (320, 235), (328, 213), (343, 195), (355, 170), (361, 140),
     (359, 115), (355, 90), (360, 68), (376, 38), (393, 12), (396, 0)), )
CUP: tuple[Polygon | Ellipse, ...] = (
    Ellipse((278, 226), (199, 160)),
    Ellipse((290, 113), (116, 95)),
    ((398, 72), (410, 67), (423, 77), (419, 100), (412, 125), (398, 128)),
)
FACE: tuple[Polygon | Ellipse, ...] = (
    ((232, 17), (250, 20), (267, 29), (281, 40), (291, 54), (296, 70), (299, 88), (296, 102), (288, 115), (276, 127),
     (268, 134), (265, 140), (262, 155), (256, 172), (251, 184), (235, 187), (206, 184), (191, 177), (187, 165),
     (185, 150), (182, 129), (174, 124), (167, 115), (159, 101), (156, 85), (155, 69), (162, 57), (176, 47),
     (189, 40), (195, 30), (206, 23), (218, 20)), )
SHUTTLE: tuple[Polygon | Ellipse, ...] = (
    ((409, 0), (402, 12), (398, 40), (398, 80), (420, 165), (436, 190), (436, 40), (432, 15), (426, 0)),
    ((388, 44), (383, 58), (381, 80), (382, 110), (398, 110), (397, 60), (392, 47)),
    ((444, 42), (438, 58), (435, 90), (435, 200), (440, 240), (436, 250), (434, 262), (457, 262), (457, 254),
     (453, 240), (455, 200), (455, 80), (452, 58), (448, 44)),
    ((397, 77), (391, 83), (390, 90), (383, 102), (379, 120), (379, 184), (361, 204), (356, 215), (356, 222),
     (377, 225), (382, 218), (400, 242), (411, 240), (412, 110), (404, 85)),
    ((388, 219), (369, 260), (369, 270), (379, 258), (390, 240), (393, 228)),
    ((392, 238), (412, 238), (410, 255), (404, 263), (393, 260), (390, 250)),
    ((411, 177), (421, 168), (440, 189), (454, 208), (454, 231), (445, 234), (431, 233), (416, 230), (409, 238)),
)
MOTORCYCLE: tuple[Polygon | Ellipse, ...] = (
    ((112, 246), (110, 240), (121, 226), (140, 213), (152, 210), (144, 200), (139, 172), (141, 156), (150, 148),
     (160, 148), (168, 159), (190, 162), (200, 166), (225, 170), (247, 170), (258, 180), (275, 192), (300, 197),
     (330, 193), (349, 189), (380, 181), (400, 168), (425, 160), (445, 158), (470, 163), (481, 172), (485, 190),
     (478, 215), (462, 240), (435, 241), (395, 243), (345, 252), (272, 281), (252, 264), (240, 246), (215, 232),
     (190, 226), (160, 223), (135, 228)),
    Ellipse((155, 233), (10, 12)),
    Ellipse((198, 319), (75, 80)),
    ((174, 305), (177, 330), (215, 342), (320, 367), (327, 350), (230, 312), (195, 301)),
    ((240, 262), (270, 281), (345, 250), (350, 300), (330, 330), (330, 367), (270, 352), (240, 330)),
    ((345, 250), (375, 243), (400, 240), (455, 243), (474, 250), (477, 262), (470, 275), (477, 290), (475, 315),
     (465, 342), (445, 366), (420, 376), (380, 377), (350, 371), (320, 366), (325, 330), (338, 300)),
    ((357, 166), (363, 173), (400, 147), (415, 135), (432, 129), (427, 122), (405, 128), (387, 143)),
    ((425, 123), (445, 138), (466, 143), (470, 126), (486, 117), (500, 120), (505, 105), (514, 99), (528, 106),
     (540, 120), (530, 180), (505, 190), (485, 185), (470, 160), (440, 150)),
    Ellipse((535, 155), (27, 35)),
    Ellipse((572, 130), (9, 11)),
    ((475, 165), (490, 165), (500, 200), (545, 189), (553, 195), (550, 203), (520, 214), (545, 285), (545, 310),
     (528, 300), (510, 255), (497, 228), (485, 200)),
    ((540, 205), (552, 203), (579, 258), (578, 268), (566, 268)),
    ((513, 315), (506, 329), (506, 310), (516, 291), (540, 275), (560, 265), (578, 263), (600, 270), (630, 286),
     (643, 301), (655, 316), (672, 348), (682, 388), (679, 418), (661, 443), (632, 452), (602, 447), (570, 428),
     (542, 385), (520, 345)),
)


def _cut(image: Image, mask: np.ndarray) -> Cutout:
    """The object under a mask (H, W) uint8, cropped; the border is drawn in by a pixel and softened."""
    mask = cv2.erode(mask, np.ones((3, 3), np.uint8))
    x, y, width, height = cv2.boundingRect(mask)
    box = slice(y, y + height), slice(x, x + width)
    inside = np.pad(mask[box], 2)
    alpha = cv2.GaussianBlur(inside.astype(np.float32), (3, 3), 0)
    pixels = np.pad(image[box], ((2, 2), (2, 2), (0, 0)), mode='edge')
    return Cutout(pixels, alpha / max(float(alpha.max()), 1e-6))


def _outlined(name: str, shapes: tuple[Polygon | Ellipse, ...]) -> tuple[Cutout, ...]:
    image = photograph(name)
    mask = np.zeros(image.shape[:2], np.uint8)
    for shape in shapes:
        if isinstance(shape, Ellipse):
            cv2.ellipse(mask, shape.centre, shape.axes, 0, 0, 360, 1, -1)
        else:
            cv2.fillPoly(mask, [np.array(shape, np.int32)], 1)
    return (_cut(image, mask), )


def _coins() -> tuple[Cutout, ...]:
    """The coins that stand free of each other on their tray, each on its own."""
    image = photograph('coins.png')
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    # the tray is brighter at the top: compare with a wide local mean instead of one threshold
    bright: np.ndarray = (grey > cv2.blur(grey, (121, 121)) + 8).astype(np.uint8)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
    outlines, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    coins = []
    for outline in outlines:
        x, y, width, height = cv2.boundingRect(outline)
        free = x > 1 and y > 1 and x + width < image.shape[1] - 1 and y + height < image.shape[0] - 1
        round_ = 0.8 < width / height < 1.25 and cv2.contourArea(outline) > 0.72 * width * height
        if free and round_ and min(width, height) > 28:
            mask = np.zeros(grey.shape, np.uint8)
            cv2.fillPoly(mask, [cv2.convexHull(outline)], 1)
            coins.append(_cut(image, mask))
    return tuple(coins)


def _retina() -> tuple[Cutout, ...]:
    image = cv2.resize(photograph('retina.jpg'), (353, 353), interpolation=cv2.INTER_AREA)
    bright = (image.max(2) > 30).astype(np.uint8)
    return (_cut(image, cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))), )


def _horse() -> tuple[Cutout, ...]:
    """The silhouette, as plain grey that the painter colours."""
    mask = (photograph('horse.png').max(2) < 128).astype(np.uint8)
    return (_cut(np.full((*mask.shape, 3), 110, np.uint8), mask), )


_SOURCES: dict[str, Callable[[], tuple[Cutout, ...]]] = {
    'cat': lambda: _outlined('chelsea.png', CAT),
    'cup': lambda: _outlined('coffee.png', CUP),
    'shuttle': lambda: _outlined('astronaut.png', SHUTTLE),
    'face': lambda: _outlined('astronaut.png', FACE),
    'motorcycle': lambda: _outlined('motorcycle_left.png', MOTORCYCLE),
    'retina': _retina,
    'coin': _coins,
    'horse': _horse,
}
CLASSES = tuple(_SOURCES)


@cache
def cutouts(name: str) -> tuple[Cutout, ...]:
    """All cut-outs of a class; one for most, several for coins.

    Args:
        name: one of `CLASSES`.
    """
    if name not in _SOURCES:
        raise ValueError(f'no cut-outs of {name!r}; the classes are {list(CLASSES)}')
    return _SOURCES[name]()
