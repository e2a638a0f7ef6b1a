"""Ray casting of a room of boxes: what every ray of a camera hits, and what stands in the way of a light.

World: x and z level, y down. A solid is a box turned about the vertical; solid 0 is the room itself, seen from inside.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TINY = 1e-6


@dataclass(frozen=True)
class Solids:
    """Boxes.

    Attributes:
        centre: (N, 3) metres.
        half: (N, 3) half the sides, metres.
        turn: (N, ) radians about the vertical.
    """

    centre: np.ndarray
    half: np.ndarray
    turn: np.ndarray

    def __len__(self) -> int:
        return len(self.turn)

    def rotation(self, index: int) -> np.ndarray:
        """(3, 3), from the world to the axes of a box."""
        cosine, sine = np.cos(self.turn[index]), np.sin(self.turn[index])
        return np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]], np.float32)

    def corners(self, index: int) -> np.ndarray:
        """(8, 3) in the world."""
        signs = np.stack(np.meshgrid(*[(-1, 1)] * 3, indexing='ij'), -1).reshape(8, 3)
        return signs * self.half[index] @ self.rotation(index) + self.centre[index]


@dataclass
class Hits:
    """What rays hit.

    Attributes:
        distance: (H, W) in lengths of the ray's direction.
        solid: (H, W) number of the solid.
        face: (H, W) twice the axis of the face, and one more for the face at its upper end.
        place: (3, H, W) in the axes of the solid, metres from its centre.
    """

    distance: np.ndarray
    solid: np.ndarray
    face: np.ndarray
    place: np.ndarray


def camera_rays(size: tuple[int, int], focal_px: float, samples: int) -> np.ndarray:
    """Directions (3, H s, W s) with z = 1, of a regular grid of s x s rays per pixel; principal point in the centre."""
    v, u = ((np.arange(length * samples, dtype=np.float32) + 0.5) / samples - length / 2 for length in size)
    grid = np.meshgrid(v / focal_px, u / focal_px, indexing='ij')
    return np.stack((grid[1], grid[0], np.ones_like(grid[0])))


def cast(solids: Solids, pose_c2w: np.ndarray, size: tuple[int, int], focal_px: float, samples: int) -> Hits:
    """The nearest surface along every ray of a camera; distances are z-depths.

    Args:
        solids: of the scene.
        pose_c2w: (4, 4).
        size: (height, width) of the image.
        focal_px: of the image.
        samples: rays per pixel along an axis.
    """
    rays = np.einsum('ij,jhw->ihw', pose_c2w[:3, :3].astype(np.float32), camera_rays(size, focal_px, samples))
    shape = rays.shape[1:]
    hits = Hits(np.full(shape, np.inf, np.float32), np.zeros(shape, np.int16), np.zeros(shape, np.int8),
                np.zeros((3, *shape), np.float32))
    for index in range(len(solids)):
        window = _window(solids, index, pose_c2w, size, focal_px, samples) if index else (slice(None), slice(None))
        if window is not None:
            _meet(hits, solids, index, pose_c2w[:3, 3], rays, window)
    return hits


def _window(solids: Solids, index: int, pose_c2w: np.ndarray, size: tuple[int, int], focal_px: float,
            samples: int) -> tuple[slice, slice] | None:
    """The part of the image that a box can cover; None if it is behind the camera or beside the image."""
    corners = (solids.corners(index) - pose_c2w[:3, 3]) @ pose_c2w[:3, :3]
    if (corners[:, 2] <= 0).all():
        return None
    if (corners[:, 2] < 0.05).any():
        return slice(None), slice(None)
    pixels = corners[:, 1::-1] / corners[:, 2:] * focal_px + np.array(size) / 2
    low = np.clip(np.floor(pixels.min(0)), 0, size).astype(int) * samples
    high = np.clip(np.ceil(pixels.max(0)), 0, size).astype(int) * samples
    return None if (low >= high).any() else (slice(low[0], high[0]), slice(low[1], high[1]))


def _meet(hits: Hits, solids: Solids, index: int, origin: np.ndarray, rays: np.ndarray,
          window: tuple[slice, slice]) -> None:
    """Let one solid take the rays of a window that it stops before all others."""
    rotation = solids.rotation(index)
    start = (rotation @ (origin - solids.centre[index])).astype(np.float32)
    direction = np.einsum('ij,jhw->ihw', rotation, rays[:, window[0], window[1]])
    near, far = _slabs(start, direction, solids.half[index])
    if index == 0:
        axis, distance = far.argmin(0), far.min(0)
    else:
        axis, distance = near.argmax(0), near.max(0)
        distance = np.where(distance <= far.min(0), distance, np.inf)
    nearer = (distance > TINY) & (distance < hits.distance[window])
    along = np.take_along_axis(direction, axis[None], 0)[0] > 0
    upper = along if index == 0 else ~along
    hits.distance[window][nearer] = distance[nearer]
    hits.solid[window][nearer] = index
    hits.face[window][nearer] = (2 * axis + upper)[nearer]
    hits.place[:, window[0], window[1]][:, nearer] = start[:, None] + distance[nearer] * direction[:, nearer]


def _slabs(start: np.ndarray, direction: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where lines from one place enter and leave the three slabs of a box, two arrays like `direction`."""
    inverse = 1 / np.where(np.abs(direction) < TINY, TINY, direction)
    shape = (3, ) + (1, ) * (direction.ndim - 1)
    first = (-half.astype(np.float32) - start).reshape(shape) * inverse
    second = (half.astype(np.float32) - start).reshape(shape) * inverse
    return np.minimum(first, second), np.maximum(first, second)


def lit(solids: Solids, points: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Bool (P, ): points (3, P) that a light at (3, ) reaches; the room itself hides nothing."""
    free = np.ones(points.shape[1], dtype=bool)
    toward = points - light[:, None].astype(np.float32)
    for index in range(1, len(solids)):
        rotation = solids.rotation(index)
        start = (rotation @ (light - solids.centre[index])).astype(np.float32)
        near, far = _slabs(start, rotation @ toward, solids.half[index])
        enter, leave = near.max(0), far.min(0)
        # a surface does not stand in its own light: the ray must enter a little before its end
        free &= ~((enter <= leave) & (leave > 0) & (enter < 0.995))
    return free
