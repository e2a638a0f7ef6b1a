"""One scene: cut-outs turned, scaled, recoloured and pasted over each other on a texture, under a light."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from frozenmm.demo.scenes.cutouts import CLASSES, Cutout, cutouts
from frozenmm.demo.scenes.photographs import Image
from frozenmm.demo.scenes.surroundings import LIGHTS, TEXTURES, light, texture

MIN_VISIBLE = 0.45
"""Every object keeps at least this share of its pixels in sight."""
_LONG_SIDE = {'coin': (0.16, 0.3)}
_DEFAULT_LONG_SIDE = (0.26, 0.5)
_HUE_TURN = {'horse': 180, 'motorcycle': 14, 'cup': 10}
"""Largest turn of the hue in OpenCV's degrees (180 is the full circle); 6 where nothing stands."""


@dataclass
class Scene:
    """A painted scene.

    Attributes:
        image: (S, S, 3) uint8 BGR.
        segments: (S, S) uint8, 0 for the ground, i + 1 for visible pixels of object i.
        labels: class names of the objects, in the order of painting.
        texture: file name of the ground.
        light: name of the light.
    """

    image: Image
    segments: np.ndarray
    labels: list[str]
    texture: str
    light: str


def paint(split: str, size: int, objects: tuple[int, int], rng: np.random.Generator) -> Scene:
    """A random scene.

    Args:
        split: `'train'` or `'val'`: which grounds and lights are used.
        size: side of the picture in pixels.
        objects: smallest and largest number of objects; fewer where no more fit.
        rng: source of all randomness.
    """
    ground = str(rng.choice(TEXTURES[split]))
    canvas = texture(ground, size, rng).astype(np.float32)
    segments = np.zeros((size, size), np.uint8)
    areas: list[int] = []
    labels: list[str] = []
    for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
        name = str(rng.choice(CLASSES))
        cutout = _vary(name, size, rng)
        for _attempt in range(12):
            pixels, alpha = place(cutout, size, rng)
            mask = alpha > 0.5
            if leaves_all_visible(segments, mask, areas, cutout):
                canvas = canvas * (1 - alpha[..., None]) + pixels * alpha[..., None]
                labels.append(name)
                segments[mask] = len(labels)
                areas.append(int((cutout.alpha > 0.5).sum()))
                break
    kind = str(rng.choice(LIGHTS[split]))
    return Scene(light(canvas, kind, rng), segments, labels, ground, kind)


def _vary(name: str, size: int, rng: np.random.Generator) -> Cutout:
    """A cut-out of a class at a random size, angle, side and colour."""
    choices = cutouts(name)
    cutout = choices[int(rng.integers(len(choices)))]
    low, high = _LONG_SIDE.get(name, _DEFAULT_LONG_SIDE)
    height, width = cutout.alpha.shape
    scale = size * rng.uniform(low, high) / max(height, width)
    shape = (max(round(width * scale), 4), max(round(height * scale), 4))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    alpha = cv2.resize(cutout.alpha, shape, interpolation=interpolation)
    pixels = _recolour(cv2.resize(cutout.pixels, shape, interpolation=interpolation), name, rng)
    if rng.random() < 0.5:
        pixels, alpha = pixels[:, ::-1], alpha[:, ::-1]
    return turn(np.ascontiguousarray(pixels), np.ascontiguousarray(alpha), rng.uniform(-40, 40))


def turn(pixels: Image, alpha: np.ndarray, degrees: float) -> Cutout:
    """A cut-out of pixels (H, W, 3) and alpha (H, W) turned about its centre, cropped to what is left."""
    height, width = alpha.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    out = (int(height * sin + width * cos + 2), int(height * cos + width * sin + 2))
    matrix[:, 2] += (out[0] - width) / 2, (out[1] - height) / 2
    pixels = cv2.warpAffine(pixels, matrix, out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(alpha, matrix, out, flags=cv2.INTER_LINEAR)
    x, y, w, h = cv2.boundingRect((alpha > 0.02).astype(np.uint8))
    return Cutout(pixels[y:y + h, x:x + w], alpha[y:y + h, x:x + w])


def _recolour(pixels: Image, name: str, rng: np.random.Generator) -> Image:
    """Another hue, saturation, brightness and contrast; what is grey gets a tint of metal or coat."""
    if name in ('coin', 'horse'):
        tint = np.array([rng.uniform(0.45, 1.0), rng.uniform(0.7, 1.0), 1.0])
        pixels = np.clip(pixels * tint * rng.uniform(0.6, 1.25), 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV).astype(np.float32)
    turn = _HUE_TURN.get(name, 6)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-turn, turn)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.6, 1.3), 0, 255)
    hsv[..., 2] = np.clip((hsv[..., 2] - 128) * rng.uniform(0.8, 1.15) + 128 * rng.uniform(0.85, 1.15), 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)


def place(cutout: Cutout, size: int, rng: np.random.Generator) -> tuple[Image, np.ndarray]:
    """The cut-out at a random place of an empty picture; up to a tenth of it may hang over the edge."""
    height, width = cutout.alpha.shape
    left, top = (int(rng.integers(-side // 10, max(size - side + side // 10, 0) + 1)) for side in (width, height))
    pixels, alpha = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.float32)
    y, x = slice(max(top, 0), min(top + height, size)), slice(max(left, 0), min(left + width, size))
    source = slice(y.start - top, y.stop - top), slice(x.start - left, x.stop - left)
    pixels[y, x], alpha[y, x] = cutout.pixels[source], cutout.alpha[source]
    return pixels, alpha


def leaves_all_visible(segments: np.ndarray, mask: np.ndarray, areas: list[int], cutout: Cutout) -> bool:
    """Whether the new object and all earlier ones keep `MIN_VISIBLE` of their pixels."""
    if mask.sum() < MIN_VISIBLE * (cutout.alpha > 0.5).sum():
        return False
    left = np.bincount(segments[~mask], minlength=len(areas) + 1)[1:]
    return all(count >= MIN_VISIBLE * area for count, area in zip(left, areas))
