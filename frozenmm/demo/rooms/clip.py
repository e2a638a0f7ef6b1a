"""A ray-cast room of textured boxes with exact depth, poses and focal length."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frozenmm.demo.rooms.cast import Solids, cast

ROOM = np.array([[-2.6, -1.4, -1.0], [2.6, 1.4, 5.0]])
"""Lower and upper corner of the room, metres; y points down."""
CENTRE = ROOM.mean(0)
TEXELS_PER_METRE = 40
TEXTURE_M = 6
ROUND_RADIUS_M = 0.8
CLEAR_M = 1.5
"""Half side of the square around the room's centre that a round leaves without furniture."""


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
        frames_per_round: None: the camera sways before one wall, however many the frames are. A number: it walks round
            the middle of the room and looks across it, so that motion per frame is the same for clips of any length,
            and comes back to where it was.
        exposure: standard deviation of every frame's logarithmic brightness.
        samples: rays per pixel along an axis.
        seed: of everything.
    """

    frames: int = 20
    size: tuple[int, int] = (240, 320)
    focal_ratio: float = 0.8
    boxes: int = 10
    path_m: float = 1.2
    turn_deg: float = 12.0
    frames_per_round: int | None = None
    exposure: float = 0.0
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
    boxes = np.concatenate((ROOM[None], _furniture(s.boxes, random, all_round=s.frames_per_round is not None)))
    solids = Solids(boxes.mean(1), (boxes[:, 1] - boxes[:, 0]) / 2, np.zeros(len(boxes)))
    textures = [[_texture(random) for _ in range(6)] for _ in boxes]
    poses, focal = camera_path(s, random), s.focal_ratio * s.size[1]
    images, depth = [], []
    for pose in poses:
        colour, _ = _trace(solids, textures, pose, focal, s.size, s.samples)
        colour = colour.reshape(s.size[0], s.samples, s.size[1], s.samples, 3).mean((1, 3))
        noisy = colour * np.exp(random.normal(0, s.exposure)) + random.normal(0, 2.0, colour.shape)
        images.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        depth.append(_trace(solids, textures, pose, focal, s.size, 1)[1])
    return RoomClip(np.stack(images), np.stack(depth).astype(np.float32), np.linalg.inv(poses[0]) @ poses, focal)


def camera_path(settings: RoomSettings, random: np.random.Generator) -> np.ndarray:
    """A smooth hand-held path (F, 4, 4), camera to room."""
    if settings.frames_per_round is not None:
        return _round(settings, settings.frames_per_round, random)
    time = np.linspace(0, 1, settings.frames)[:, None]
    phases, rates = random.uniform(0, 2 * np.pi, (2, 3)), random.uniform(0.7, 1.6, (2, 3))
    waves = np.sin(2 * np.pi * rates[:, None] * time + phases[:, None])
    waves = waves - waves[:, :1]
    centres = waves[0] * settings.path_m / 2 * np.array([1.0, 0.35, 0.6])
    return _poses(centres, np.radians(settings.turn_deg) * waves[1] / 2 * np.array([0.6, 1.0, 0.3]))


def _round(settings: RoomSettings, frames_per_round: int, random: np.random.Generator) -> np.ndarray:
    """Round after round about the room's centre, looking across it, with a sway in place and direction."""
    turn = 2 * np.pi * np.arange(settings.frames) / frames_per_round
    rates, phases = random.integers(3, 9, (2, 3)), random.uniform(0, 2 * np.pi, (2, 3))
    sway = np.sin(rates[:, None] * turn[:, None] + phases[:, None])
    forward = np.stack((np.sin(turn), np.zeros_like(turn), np.cos(turn)), 1)
    centres = CENTRE - ROUND_RADIUS_M * forward + sway[0] * np.array([0.15, 0.12, 0.15])
    angles = np.radians(settings.turn_deg) * sway[1] * np.array([0.5, 0.5, 0.3])
    return _poses(centres, angles + np.stack((np.zeros_like(turn), turn, np.zeros_like(turn)), 1))


def _poses(centres: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Poses (F, 4, 4), camera to room, from centres (F, 3) and rotations by x, y and z (F, 3); y turns first."""
    poses = np.tile(np.eye(4), (len(centres), 1, 1))
    for pose, centre, (a, b, c) in zip(poses, centres, angles):
        x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        pose[:3, :3], pose[:3, 3] = y @ x @ z, centre
    return poses


def distort_depth(depth: np.ndarray, *, seed: int = 0, smooth: float = 0.07, noise: float = 0.03) -> np.ndarray:
    """What an affine-invariant network might say: true depth times smooth factors and noise, shifted and scaled.

    On the default room the best scale per frame leaves an AbsRel near 0.1 and the best scale and shift one near 0.04,
    as on the recorded clips (spec section 13).

    Args:
        depth: (F, H, W) true depth.
        seed: of the distortion.
        smooth: standard deviation of the logarithmic factor, on a 4x5 grid of every frame.
        noise: standard deviation of the logarithmic factor on a grid of about 8 pixels.
    """
    random, out = np.random.default_rng(seed), []
    height, width = depth.shape[1:]
    fine = (max(height // 8, 2), max(width // 8, 2))
    wide, narrow = ([_linear(length, nodes) for length, nodes in zip((height, width), grid)] for grid in ((4, 5), fine))
    for values in depth:
        factor = np.exp(wide[0] @ random.normal(0, smooth, (4, 5)) @ wide[1].T
                        + narrow[0] @ random.normal(0, noise, fine) @ narrow[1].T)
        scale, shift = random.uniform(1.2, 2.2), random.uniform(0.15, 0.4) * np.median(values)
        out.append(np.maximum(values * factor - shift, 0.02) / scale)
    return np.stack(out).astype(np.float32)


def _linear(length: int, nodes: int) -> np.ndarray:
    place = np.linspace(0, nodes - 1, length)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(nodes)), 0)


def _furniture(count: int, random: np.random.Generator, *, all_round: bool) -> np.ndarray:
    """Boxes (N, 2, 3) that stand on the floor or hang on a wall, away from the camera's path."""
    size = random.uniform([0.3, 0.3, 0.3], [1.0, 1.2, 0.9], (count, 3))
    if not all_round:
        centre = np.stack((random.uniform(-2.2, 2.2, count), random.uniform(-0.8, 1.1, count),
                           random.uniform(2.2, 4.7, count)), 1)
    else:  # on a rectangle between the clear middle and the walls
        side = random.integers(0, 4, count)
        along = random.uniform(-1, 1, count)
        across = np.where(side % 2 == 0, 1.0, -1.0)
        plane = np.where((side < 2)[:, None], np.stack((across, along), 1), np.stack((along, across), 1))
        reach = np.array([CLEAR_M + 0.5, CLEAR_M + 0.9])
        centre = np.stack((plane[:, 0] * reach[0], random.uniform(-0.8, 1.1, count), plane[:, 1] * reach[1]), 1)
        centre += CENTRE
    return np.clip(np.stack((centre - size / 2, centre + size / 2), 1), ROOM[0], ROOM[1])


def _texture(random: np.random.Generator) -> np.ndarray:
    """Stains of several sizes, posters and fine grain in one tint (N, N, 3), to be repeated."""
    side = TEXTURE_M * TEXELS_PER_METRE
    values = np.zeros((side, side))
    for per_metre, share in ((1, 0.25), (4, 0.3), (10, 0.25), (TEXELS_PER_METRE, 0.2)):
        spread = _linear(side, TEXTURE_M * per_metre)
        values += share * (spread @ random.uniform(-1, 1, (TEXTURE_M * per_metre, TEXTURE_M * per_metre)) @ spread.T)
    for _ in range(24):  # posters: hard edges at any place
        low = random.integers(0, side - 8, 2)
        high = np.minimum(low + random.integers(8, TEXELS_PER_METRE, 2), side)
        values[low[0]:high[0], low[1]:high[1]] += random.uniform(-0.5, 0.5)
    return np.clip(120 + 130 * values, 15, 240)[..., None] * random.uniform(0.6, 1.0, 3)


def _trace(solids: Solids, textures: list[list[np.ndarray]], pose: np.ndarray, focal: float, size: tuple[int, int],
           samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H s, W s, 3) and z-depth (H s, W s) of a regular grid of rays."""
    hits = cast(solids, pose, size, focal, samples)
    which = hits.solid.ravel()
    points = hits.place.reshape(3, -1).T + solids.centre[which]
    # the texture follows the ray's sign: the upper face of the room, seen from inside, the lower one of furniture
    face = np.where(which == 0, hits.face.ravel(), hits.face.ravel() ^ 1)
    colours = np.zeros_like(points)
    for index in np.unique(which):
        seen = which == index
        colours[seen] = _shade(points[seen], face[seen], textures[index])
    return colours.reshape(*hits.solid.shape, 3), hits.distance


def _shade(points: np.ndarray, face: np.ndarray, textures: list[np.ndarray]) -> np.ndarray:
    """Colours (N, 3) of points (N, 3) on faces (N, ) of one box; `face` is numbered like `textures`."""
    colours, place = np.zeros((len(points), 3)), (points - ROOM[0]) * TEXELS_PER_METRE
    for number in np.unique(face):
        others = [other for other in range(3) if other != number // 2]
        chosen = face == number
        colours[chosen] = _lookup(textures[number], place[chosen][:, others]) * (0.8 + 0.07 * (number // 2))
    return colours


def _lookup(texture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of a repeated texture at texels (N, 2), bilinearly."""
    low = np.floor(place).astype(int)
    share, side = (place - low)[:, :, None], len(texture)
    first, second = low % side, (low + 1) % side
    above = texture[first[:, 0], first[:, 1]] * (1 - share[:, 1]) + texture[first[:, 0], second[:, 1]] * share[:, 1]
    below = texture[second[:, 0], first[:, 1]] * (1 - share[:, 1]) + texture[second[:, 0], second[:, 1]] * share[:, 1]
    return above * (1 - share[:, 0]) + below * share[:, 0]
