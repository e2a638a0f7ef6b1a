"""A ray-cast room of textured boxes with exact depth, poses and focal length."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROOM = np.array([[-2.6, -1.4, -1.0], [2.6, 1.4, 5.0]])
"""Lower and upper corner of the room, metres; y points down."""
TEXELS_PER_METRE = 24
COARSE = 4


@dataclass(frozen=True)
class RoomSettings:
    """Settings of a generated room.

    Attributes:
        frames: of the clip.
        size: (height, width) in pixels.
        focal_ratio: focal length over the width.
        boxes: pieces of furniture.
        path_m: extent of the camera's path in metres.
        turn_deg: greatest turn to either side.
        samples: rays per pixel along an axis.
        seed: of everything.
    """

    frames: int = 20
    size: tuple[int, int] = (240, 320)
    focal_ratio: float = 0.8
    boxes: int = 10
    path_m: float = 1.2
    turn_deg: float = 12.0
    samples: int = 2
    seed: int = 0


@dataclass
class RoomClip:
    """A rendered clip.

    Attributes:
        images: (F, H, W, 3) uint8.
        depth: (F, H, W) float32 metres, z-depth of the pixel centre.
        poses_c2w: (F, 4, 4), the first one the identity.
        focal_px: focal length; the principal point is the centre of the image.
    """

    images: np.ndarray
    depth: np.ndarray
    poses_c2w: np.ndarray
    focal_px: float


def render_room(settings: RoomSettings | None = None) -> RoomClip:
    """Render a clip.

    Raises:
        ValueError: no frame or an image without area.
    """
    s = settings or RoomSettings()
    if s.frames < 1 or min(s.size) < 1:
        raise ValueError(f'a clip needs at least one frame and one pixel, got {s.frames} frames of {s.size}')
    random = np.random.default_rng(s.seed)
    boxes = np.concatenate((ROOM[None], _furniture(s.boxes, random)))
    textures = [[_texture(random) for _ in range(6)] for _ in boxes]
    poses, focal = camera_path(s, random), s.focal_ratio * s.size[1]
    images, depth = [], []
    for pose in poses:
        colour, _ = _trace(boxes, textures, pose, focal, s.size, s.samples)
        colour = colour.reshape(s.size[0], s.samples, s.size[1], s.samples, 3).mean((1, 3))
        noisy = colour + random.normal(0, 2.0, colour.shape)
        images.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        depth.append(_trace(boxes, textures, pose, focal, s.size, 1)[1])
    return RoomClip(np.stack(images), np.stack(depth).astype(np.float32), poses, focal)


def camera_path(settings: RoomSettings, random: np.random.Generator) -> np.ndarray:
    """A smooth hand-held path (F, 4, 4), camera to world; the first pose is the identity."""
    time = np.linspace(0, 1, settings.frames)[:, None]
    phases, rates = random.uniform(0, 2 * np.pi, (2, 3)), random.uniform(0.7, 1.6, (2, 3))
    waves = np.sin(2 * np.pi * rates[:, None] * time + phases[:, None])
    waves = waves - waves[:, :1]
    centres = waves[0] * settings.path_m / 2 * np.array([1.0, 0.35, 0.6])
    angles = np.radians(settings.turn_deg) * waves[1] / 2 * np.array([0.6, 1.0, 0.3])
    poses = np.tile(np.eye(4), (settings.frames, 1, 1))
    for pose, centre, (a, b, c) in zip(poses, centres, angles):
        x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        pose[:3, :3], pose[:3, 3] = x @ y @ z, centre
    return poses


def distort_depth(depth: np.ndarray, *, seed: int = 0, smooth: float = 0.05) -> np.ndarray:
    """What an affine-invariant network might say: every frame's depth times a smooth factor, shifted and scaled.

    Args:
        depth: (F, H, W) true depth.
        seed: of the distortion.
        smooth: standard deviation of the logarithmic factor, on a 4x5 grid.
    """
    random, out = np.random.default_rng(seed), []
    height, width = depth.shape[1:]
    rows, columns = (_linear(length, nodes) for length, nodes in ((height, 4), (width, 5)))
    for values in depth:
        factor = np.exp(rows @ random.normal(0, smooth, (4, 5)) @ columns.T)
        scale, shift = random.uniform(1.2, 2.2), random.uniform(0.1, 0.3) * np.median(values)
        out.append(np.maximum(values * factor - shift, 0.02) / scale)
    return np.stack(out).astype(np.float32)


def _linear(length: int, nodes: int) -> np.ndarray:
    place = np.linspace(0, nodes - 1, length)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(nodes)), 0)


def _furniture(count: int, random: np.random.Generator) -> np.ndarray:
    """Boxes (N, 2, 3) that stand on the floor or hang on a wall, away from the camera's path."""
    size = random.uniform([0.3, 0.3, 0.3], [1.0, 1.2, 0.9], (count, 3))
    centre = np.stack((random.uniform(-2.2, 2.2, count), random.uniform(-0.8, 1.1, count),
                       random.uniform(2.2, 4.7, count)), 1)
    return np.clip(np.stack((centre - size / 2, centre + size / 2), 1), ROOM[0], ROOM[1])


def _texture(random: np.random.Generator) -> np.ndarray:
    """Blotches and fine grain in one tint (N, N, 3)."""
    side = 6 * TEXELS_PER_METRE
    coarse = random.uniform(0, 1, (side // COARSE + 1, side // COARSE + 1)).repeat(COARSE, 0).repeat(COARSE, 1)
    values = 0.75 * coarse[:side, :side] + 0.25 * random.uniform(0, 1, (side, side))
    return 30 + 200 * values[..., None] * random.uniform(0.5, 1.0, 3)


def _trace(boxes: np.ndarray, textures: list[list[np.ndarray]], pose: np.ndarray, focal: float, size: tuple[int, int],
           samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H s, W s, 3) and z-depth (H s, W s) of a regular grid of rays."""
    offsets = (np.arange(size[0] * samples) + 0.5) / samples - 0.5, (np.arange(size[1] * samples) + 0.5) / samples - 0.5
    v, u = np.meshgrid(*offsets, indexing='ij')
    rays = np.stack(((u - (size[1] - 1) / 2) / focal, (v - (size[0] - 1) / 2) / focal, np.ones_like(u)), -1)
    direction = rays @ pose[:3, :3].T
    direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    nearest, colour = np.full(u.shape, np.inf), np.zeros((*u.shape, 3))
    for index, (low, high) in enumerate(boxes):
        ends = np.stack(((low - pose[:3, 3]) / direction, (high - pose[:3, 3]) / direction))
        near, far = ends.min(0), ends.max(0)
        enter, leave = near.max(-1), far.min(-1)
        # the room is seen from inside, furniture from outside
        distance, axis = (leave, far.argmin(-1)) if index == 0 else (enter, near.argmax(-1))
        hit = (distance > 1e-6) & (distance < nearest) & ((enter <= leave) if index else True)
        nearest = np.where(hit, distance, nearest)
        colour[hit] = _shade(pose[:3, 3] + distance[hit, None] * direction[hit], axis[hit], direction[hit],
                             textures[index])
    return colour, nearest


def _shade(points: np.ndarray, axis: np.ndarray, direction: np.ndarray, textures: list[np.ndarray]) -> np.ndarray:
    """Colours (N, 3) of points on the face that the axis and the sign of the ray name."""
    colours, place = np.zeros((len(points), 3)), (points - ROOM[0]) * TEXELS_PER_METRE
    for along in range(3):
        others = [other for other in range(3) if other != along]
        for side in range(2):
            chosen = (axis == along) & ((direction[np.arange(len(axis)), along] > 0) == bool(side))
            texture = textures[2 * along + side]
            texel = place[chosen][:, others].astype(int) % len(texture)
            colours[chosen] = texture[texel[:, 0], texel[:, 1]] * (0.8 + 0.07 * along)
    return colours
