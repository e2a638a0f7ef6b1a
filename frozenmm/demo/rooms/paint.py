"""Pictures of furnished rooms: photographs and paint on the surfaces, one lamp, shadows, a camera's faults."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from frozenmm.demo.rooms.cast import Hits, Solids, cast, lit
from frozenmm.demo.rooms.furnish import Scene, furnish
from frozenmm.demo.scenes.photographs import photograph

PHOTOGRAPHS = {
    'train': ('brick.png', 'grass.png', 'page.png', 'ihc.png', 'astronaut.png', 'coffee.png', 'motorcycle_left.png',
              'horse.png', 'coins.png', 'camera.png', 'rocket.jpg'),
    'val': ('gravel.png', 'hubble_deep_field.jpg', 'moon.png', 'text.png', 'chelsea.png', 'retina.jpg', 'cell.png'),
}
"""Files in scikit-image; what the test rooms show never occurs in training."""
SIDE = 192
SAMPLES = 2
LEAST_SPAN = 1.7
"""Ratio of far to near in a view that is worth painting."""


@dataclass(frozen=True)
class Picture:
    """A rendered room.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        depth: (H, W) float32 metres, z-depth of the pixel's centre.
        focal_px: principal point in the centre.
    """

    image: np.ndarray
    depth: np.ndarray
    focal_px: float


def paint_room(split: str, size: tuple[int, int], random: np.random.Generator) -> Picture:
    """A random room.

    Args:
        split: `'train'` or `'val'`.
        size: (height, width) in pixels.
        random: everything follows from it.
    """
    scene, focal = _worth_a_look(size, random)
    hits = cast(scene.solids, scene.pose_c2w, size, focal, SAMPLES)
    colours = _colours(scene, hits, split, random) * _light(scene, hits, random)[..., None]
    colours = colours.reshape(size[0], SAMPLES, size[1], SAMPLES, 3).mean((1, 3))
    depth = cast(scene.solids, scene.pose_c2w, size, focal, 1).distance
    return Picture(_photograph(colours, random), depth, focal)


def _worth_a_look(size: tuple[int, int], random: np.random.Generator) -> tuple[Scene, float]:
    """A scene and its focal length in pixels; a view of nothing but one wall is drawn again, at most three times."""
    for _ in range(4):
        scene = furnish(random)
        small = (size[0] // 8, size[1] // 8)
        depth = cast(scene.solids, scene.pose_c2w, small, scene.focal_ratio * small[1], 1).distance
        if np.percentile(depth, 95) > LEAST_SPAN * np.percentile(depth, 5):
            break
    return scene, scene.focal_ratio * size[1]


def _colours(scene: Scene, hits: Hits, split: str, random: np.random.Generator) -> np.ndarray:
    """Colours (H, W, 3) of the surfaces in full light, 0..1."""
    colours = np.zeros((*hits.distance.shape, 3), np.float32)
    wood = [_wood(split, random) for _ in range(3)]
    for index in np.unique(hits.solid).tolist():
        inside = hits.solid == index
        for face in np.unique(hits.face[inside]).tolist():
            chosen = inside & (hits.face == face)
            axis = face // 2
            surface = scene.surfaces[index] if index else ('floor' if face == 3 else 'ceiling') if axis == 1 else 'wall'
            others = [other for other in (0, 1, 2) if other != axis]
            place = hits.place[:, chosen][others]
            if surface == 'lamp':
                colours[chosen] = random.uniform(0.85, 1.3) * np.array([1.0, 0.97, 0.92])
            elif surface == 'picture':
                half = scene.solids.half[index][others]
                spot = (place / half[:, None] + 1) / 2 * (SIDE - 1)
                colours[chosen] = _lookup(_piece(split, random, whole=True), spot)
            else:
                texture, metres = _cover(surface, face, wood, split, random)
                colours[chosen] = _lookup(texture, (place / metres + 10) * SIDE)
    return colours


def _cover(surface: str, face: int, wood: list[np.ndarray], split: str,
           random: np.random.Generator) -> tuple[np.ndarray, float]:
    """Texture and its side in metres for a face."""
    if surface == 'furniture':
        if random.random() < 0.6:
            return wood[int(random.integers(len(wood)))], 1.2
        return _tinted(_piece(split, random), random), float(random.uniform(0.4, 1.5))
    if surface == 'floor':
        return _tinted(_piece(split, random), random), float(random.uniform(0.5, 2.0))
    if surface == 'wall' and random.random() < 0.2:
        return _tinted(_piece(split, random), random), float(random.uniform(0.6, 2.5))
    return _plain(random, bright=True), 2.0


def _piece(split: str, random: np.random.Generator, *, whole: bool = False) -> np.ndarray:
    """A square piece of a photograph (SIDE, SIDE, 3), 0..1; for patterns, mirrored so that it can be repeated."""
    names = PHOTOGRAPHS[split]
    image = photograph(names[int(random.integers(len(names)))])
    side = int(min(image.shape[:2]) * random.uniform(0.4, 1.0))
    top, left = (int(random.integers(0, length - side + 1)) for length in image.shape[:2])
    length = SIDE if whole else SIDE // 2
    piece = cv2.resize(image[top:top + side, left:left + side], (length, length), interpolation=cv2.INTER_AREA)
    if not whole:
        piece = np.concatenate((piece, piece[:, ::-1]), 1)
        piece = np.concatenate((piece, piece[::-1]), 0)
    return piece.astype(np.float32) / 255


def _tinted(texture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Less contrast, another mean, another hue."""
    grey = texture.mean(2, keepdims=True)
    own = random.uniform(0, 0.7)
    base = random.uniform(0.15, 0.7) * (1 + random.uniform(-0.3, 0.3, 3))
    pattern = (1 - own) * (grey - grey.mean()) + own * (texture - texture.mean((0, 1)))
    mixed = base + random.uniform(0.15, 0.9) * pattern
    return np.clip(mixed, 0.02, 1).astype(np.float32)


def _plain(random: np.random.Generator, *, bright: bool) -> np.ndarray:
    """Paint with faint stains."""
    low = random.normal(0, 1, (6, 6, 1)).astype(np.float32)
    stains = cv2.resize(np.concatenate((low, low[::-1])), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[..., None]
    grain = random.normal(0, 0.01, (SIDE, SIDE, 1))
    base = random.uniform(*((0.5, 0.95) if bright else (0.08, 0.9))) * (1 + random.uniform(-0.15, 0.15, 3))
    return np.clip(base * (1 + 0.02 * stains + grain), 0.02, 1).astype(np.float32)


def _wood(split: str, random: np.random.Generator) -> np.ndarray:
    """Paint, or paint with streaks along one direction."""
    texture = _plain(random, bright=False)
    if random.random() < 0.6:
        streaks = cv2.GaussianBlur(random.normal(0, 1, (SIDE, SIDE)).astype(np.float32), (0, 0), sigmaX=20, sigmaY=1.2)
        streaks = streaks / streaks.std()
        texture = texture * (1 + random.uniform(0.04, 0.15) * streaks[..., None])
        hue = np.array([0.45, 0.7, 1.0]) ** random.uniform(0, 1.2)
        texture = texture * hue
    return np.clip(texture, 0.02, 1).astype(np.float32)


def _lookup(texture: np.ndarray, spot: np.ndarray) -> np.ndarray:
    """Colours (P, 3) at texels (2, P) of a texture that repeats, bilinear."""
    spot = np.mod(spot.T, SIDE).astype(np.float32)
    count = len(spot)
    rows = -(-count // 4096)
    padded = np.zeros((rows * 4096, 2), np.float32)
    padded[:count] = spot
    maps = padded.reshape(rows, 4096, 2)
    found = np.concatenate([cv2.remap(texture, np.ascontiguousarray(maps[row:row + 1, :, 0]),
                                      np.ascontiguousarray(maps[row:row + 1, :, 1]), cv2.INTER_LINEAR,
                                      borderMode=cv2.BORDER_WRAP)[0] for row in range(rows)])
    return found[:count]


def _light(scene: Scene, hits: Hits, random: np.random.Generator) -> np.ndarray:
    """Brightness (H, W): light from everywhere, less of it in corners, and a lamp with shadows; one ray per pixel."""
    points, normals = _in_world(scene.solids, hits)
    toward = scene.light.astype(np.float32)[:, None, None] - points
    distance = np.linalg.norm(toward, axis=0)
    slant = np.maximum((normals * toward).sum(0) / distance, 0)
    seen: np.ndarray = lit(scene.solids, points.reshape(3, -1), scene.light).reshape(distance.shape).astype(np.float32)
    seen = cv2.GaussianBlur(seen, (0, 0), float(random.uniform(0.3, 2.5)))
    walls = scene.solids.half[0][:, None, None] - np.abs(points - scene.solids.centre[0][:, None, None])
    corner = np.median(walls, axis=0)  # distance to the second nearest of wall, floor and ceiling
    ambient = random.uniform(0.3, 0.75)
    around = ambient * (1 - random.uniform(0.1, 0.5) * np.exp(-corner / 0.35))
    around = around * (1 - random.uniform(0, 0.25) * normals[1])  # surfaces that look up are brighter
    lamp = (1 - ambient) * seen * slant * random.uniform(1.6, 3.5) / (1 + (distance / 3.0) ** 2)
    return np.repeat(np.repeat(around + lamp, SAMPLES, 0), SAMPLES, 1)


def _in_world(solids: Solids, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals (3, H / s, W / s) of every s-th ray."""
    place = hits.place[:, ::SAMPLES, ::SAMPLES]
    solid, face = hits.solid[::SAMPLES, ::SAMPLES], hits.face[::SAMPLES, ::SAMPLES]
    points, normals = np.zeros_like(place), np.zeros_like(place)
    for index in np.unique(solid).tolist():
        inside = solid == index
        rotation = solids.rotation(index).T
        points[:, inside] = rotation @ place[:, inside] + solids.centre[index][:, None]
        axis, sign = np.divmod(face[inside], 2)
        direction = (2 * sign - 1) * (-1 if index == 0 else 1)  # walls look inwards
        normals[:, inside] = rotation[:, axis] * direction
    return points, normals


def _photograph(colours: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """8-bit picture with exposure, white balance, blur and noise."""
    exposed: np.ndarray = colours * random.uniform(0.55, 0.95) / max(float(np.percentile(colours, 95)), 0.05)
    exposed = np.clip(exposed, 0, 1.2) ** random.uniform(0.65, 1.0) * (1 + random.uniform(-0.12, 0.12, 3))
    if random.random() < 0.6:
        exposed = cv2.GaussianBlur(exposed, (0, 0), float(random.uniform(0.3, 0.9)))
    noisy = exposed * 255 + random.normal(0, random.uniform(0.5, 5.0), exposed.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
