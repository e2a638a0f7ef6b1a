"""What differs between training and test scenes: the ground that objects lie on and the light that falls on them."""
from __future__ import annotations

import cv2
import numpy as np

from frozenmm.demo.scenes.photographs import Image, photograph

TEXTURES = {
    'train': ('brick.png', 'grass.png', 'page.png', 'ihc.png'),
    'val': ('gravel.png', 'hubble_deep_field.jpg', 'moon.png', 'text.png'),
}
LIGHTS = {
    'train': ('even', 'soft'),
    'val': ('dusk', 'night', 'spot'),
}


def texture(name: str, size: int, rng: np.random.Generator) -> Image:
    """A random piece of a texture: cropped, turned by quarters, mirrored, tinted.

    Args:
        name: file name of a bundled photograph.
        size: side of the result in pixels.
        rng: source of randomness.

    Returns:
        (size, size, 3) uint8 BGR.
    """
    image = photograph(name)
    side = int(min(image.shape[:2]) * rng.uniform(0.45, 0.95))
    top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
    piece = image[top:top + side, left:left + side]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    piece = np.rot90(cv2.resize(piece, (size, size), interpolation=interpolation), int(rng.integers(4)))
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    grey = piece.astype(np.float32).mean(2, keepdims=True)
    contrast, base = rng.uniform(0.4, 1.0), rng.uniform(60, 190)
    tint = 1 + rng.uniform(-0.35, 0.35, 3)
    coloured = (base + (grey - grey.mean()) * contrast) * tint
    keep = rng.uniform(0, 0.6) if piece.std(2).mean() > 2 else 0.0  # some of a coloured texture's own hue
    return np.clip(coloured * (1 - keep) + piece * keep, 0, 255).astype(np.uint8)


def light(image: np.ndarray, name: str, rng: np.random.Generator) -> Image:
    """The scene under a kind of light.

    Args:
        image: (H, W, 3) BGR, 0..255.
        name: `'even'` and `'soft'` (from the upper left) are those of training; `'dusk'` (warm, low, from the right),
            `'night'` (blue and dark) and `'spot'` (a bright circle) are those of the test.
        rng: source of randomness.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j].astype(np.float32)
    gain = np.ones((height, width), np.float32)
    balance = np.ones(3, np.float32)
    if name == 'even':
        gain *= rng.uniform(0.85, 1.15)
    elif name == 'soft':
        gain = rng.uniform(1.05, 1.25) - rng.uniform(0.1, 0.4) * (0.6 * x + 0.4 * y)
    elif name == 'dusk':
        gain = rng.uniform(0.4, 0.6) + rng.uniform(0.3, 0.6) * x
        balance = np.array([rng.uniform(0.6, 0.8), rng.uniform(0.85, 0.95), 1.1], np.float32)
    elif name == 'night':
        gain *= rng.uniform(0.4, 0.6)
        balance = np.array([1.3, rng.uniform(0.95, 1.1), rng.uniform(0.7, 0.85)], np.float32)
    elif name == 'spot':
        distance = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8))
        gain = 0.45 + rng.uniform(0.7, 1.0) * np.exp(-(distance / rng.uniform(0.3, 0.5))**2)
    else:
        raise ValueError(f'no light {name!r}; known: {sorted({key for keys in LIGHTS.values() for key in keys})}')
    noise = rng.normal(0, rng.uniform(1, 4), image.shape)
    return np.clip(image * gain[..., None] * balance + noise, 0, 255).astype(np.uint8)
