"""A scene of random shapes with random fillings: what a region is, without what it is called."""
from __future__ import annotations

import cv2
import numpy as np

from frozenmm.demo.scenes.photographs import Image, photograph
from frozenmm.demo.scenes.surroundings import LIGHTS, TEXTURES, light, texture

SHAPES = ('ellipse', 'box', 'polygon', 'star', 'blob')
PICTURES = {
    'train': ('chelsea.png', 'astronaut.png', 'rocket.jpg'),
    'val': ('coffee.png', 'motorcycle_left.png'),
}
"""Photographs whose pieces fill shapes, besides the textures."""


def paint_shapes(split: str, size: int, shapes: tuple[int, int], rng: np.random.Generator) -> tuple[Image, np.ndarray]:
    """A ground of one to three parts with shapes on it, each filled with a colour, stripes, a texture or a photograph.

    Args:
        split: `'train'` or `'val'`: which textures, photographs and lights are used.
        size: side of the picture in pixels.
        shapes: smallest and largest number of shapes; later ones hide earlier ones.
        rng: source of all randomness.

    Returns:
        (size, size, 3) uint8 BGR; (size, size) uint8, the number of the region that each pixel shows.
    """
    canvas: np.ndarray = filling(split, size, rng).astype(np.float32)
    regions = np.zeros((size, size), np.uint8)
    masks = [_half(size, rng) for _ in range(int(rng.integers(0, 3)))]
    masks += [shape(str(rng.choice(SHAPES)), size, rng) for _ in range(int(rng.integers(shapes[0], shapes[1] + 1)))]
    for number, mask in enumerate(masks, start=1):
        alpha = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
        canvas = canvas * (1 - alpha) + filling(split, size, rng) * alpha
        regions[mask > 0] = number
    return light(canvas, str(rng.choice(LIGHTS[split])), rng), regions


def filling(split: str, size: int, rng: np.random.Generator) -> Image:
    """(size, size, 3) uint8 BGR: plain or shaded colour, stripes, a texture, or a piece of a photograph."""
    kind = rng.choice(('colour', 'stripes', 'texture', 'photograph'), p=(0.3, 0.15, 0.3, 0.25))
    if kind == 'texture':
        return texture(str(rng.choice(TEXTURES[split])), size, rng)
    if kind == 'photograph':
        return _piece(str(rng.choice(PICTURES[split])), size, rng)
    first, second = rng.uniform(10, 245, (2, 3))
    y, x = np.mgrid[0:1:size * 1j, 0:1:size * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind == 'stripes':
        share = (np.sin(along * rng.uniform(30, 120)) > rng.uniform(-0.5, 0.5)).astype(np.float64)
    else:
        # half of the colours are plain
        share = (along - along.min()) / np.ptp(along) * rng.choice((0.0, rng.uniform(0.2, 0.8)))
    return (first + (second - first) * share[..., None]).astype(np.uint8)


def _piece(name: str, size: int, rng: np.random.Generator) -> Image:
    """A random square of a photograph, mirrored at times, brighter or darker."""
    image = photograph(name)
    side = int(min(image.shape[:2]) * rng.uniform(0.2, 0.7))
    top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
    piece = cv2.resize(image[top:top + side, left:left + side], (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(piece[:, ::rng.choice((-1, 1))] * rng.uniform(0.6, 1.3), 0, 255).astype(np.uint8)


def _half(size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size) uint8: one side of a wavy line across the picture."""
    y, x = np.mgrid[0:1:size * 1j, 0:1:size * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    along, across = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5), np.cos(angle) * (y - 0.5) - np.sin(
        angle) * (x - 0.5)
    wave = rng.uniform(0, 0.06) * np.sin(across * rng.uniform(4, 25) + rng.uniform(0, 6))
    return (along + wave > rng.uniform(-0.25, 0.25)).astype(np.uint8)


def shape(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size) uint8: a random shape, 1 inside.

    Args:
        kind: one of `SHAPES`.
        size: side of the picture in pixels.
        rng: source of randomness.
    """
    mask = np.zeros((size, size), np.uint8)
    centre = rng.uniform(0.05, 0.95, 2) * size
    # small shapes are as frequent as large ones
    radius = size * np.exp(rng.uniform(np.log(0.04), np.log(0.32)))
    stretch, turn = rng.uniform(0.35, 1.0), rng.uniform(0, 2 * np.pi)
    corners = {'box': 4, 'polygon': int(rng.integers(3, 8)), 'star': 2 * int(rng.integers(4, 8))}.get(kind, 48)
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radii = np.ones(corners)
    if kind == 'box':
        angles = angles + np.pi / 4
    elif kind == 'polygon':
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(0.6, 1.0, corners)
    elif kind == 'star':
        radii[1::2] = rng.uniform(0.35, 0.7)
    elif kind == 'blob':
        for wave in range(2, 6):
            radii += rng.uniform(0, 0.5 / wave) * np.sin(wave * angles + rng.uniform(0, 6))
    elif kind != 'ellipse':
        raise ValueError(f'no shape {kind!r}; known: {list(SHAPES)}')
    local = radius * radii[:, None] * np.stack([np.cos(angles), stretch * np.sin(angles)], 1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    cv2.fillPoly(mask, [np.round(local @ rotation.T + centre).astype(np.int32)], 1)
    return mask
