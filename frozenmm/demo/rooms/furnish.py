"""Random rooms: walls, furniture made of boxes, pictures, lamps, and a camera that a person holds."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frozenmm.demo.rooms.cast import Solids

SURFACES = ('wall', 'floor', 'ceiling', 'furniture', 'picture', 'lamp')
"""What a solid is covered with."""
CLEAR_M = 0.45
"""Least distance between the camera and furniture."""


@dataclass(frozen=True)
class Scene:
    """A furnished room and a camera in it.

    Attributes:
        solids: number 0 is the room.
        surfaces: one of `SURFACES` per solid; the room has wall, floor and ceiling.
        light: (3, ) place of the lamp.
        pose_c2w: (4, 4) of the camera.
        focal_ratio: focal length over the width of the image.
    """

    solids: Solids
    surfaces: list[str]
    light: np.ndarray
    pose_c2w: np.ndarray
    focal_ratio: float


class _Builder:
    """Collects boxes that stand, lie or hang in a room of given (width, height, length)."""

    def __init__(self, room: np.ndarray, random: np.random.Generator) -> None:
        self.room, self.random = room, random
        self.centre = [np.array([0, -room[1] / 2, 0])]
        self.half, self.turn, self.surfaces = [room / 2], [0.0], ['wall']

    def add(self, centre: np.ndarray, side: np.ndarray, turn: float, surface: str) -> None:
        """A box by its centre and sides in metres."""
        self.centre.append(np.asarray(centre, float))
        self.half.append(np.asarray(side, float) / 2)
        self.turn.append(turn)
        self.surfaces.append(surface)

    def stand(self, place: np.ndarray, turn: float, side: np.ndarray, base: float = 0.0) -> None:
        """A box of `side` whose underside is `base` metres above the floor at the level (x, z)."""
        self.add(np.array([place[0], -base - side[1] / 2, place[1]]), side, turn, 'furniture')

    def along_wall(self, side: np.ndarray) -> tuple[np.ndarray, float]:
        """A level place and a turn with the back at a random wall."""
        wall = int(self.random.integers(4))
        across, length = (self.room[2], self.room[0]) if wall < 2 else (self.room[0], self.room[2])
        shift = self.random.uniform(-1, 1) * max(length - side[0], 0) / 2
        offset = (across - side[2]) / 2 * (1 if wall % 2 else -1)
        return (np.array([shift, offset]), 0.0) if wall < 2 else (np.array([offset, shift]), np.pi / 2)

    def free_place(self) -> tuple[np.ndarray, float]:
        """Anywhere, at any angle; often parallel to the walls."""
        place = self.random.uniform(-0.4, 0.4, 2) * self.room[[0, 2]]
        return place, float(self.random.choice([0.0, np.pi / 2, self.random.uniform(0, np.pi)]))

    def cupboard(self) -> None:
        """Tall or low, at a wall, with things on top where one can see them."""
        side = self.random.uniform([0.5, 0.4, 0.3], [1.8, 2.0, 0.65])
        place, turn = self.along_wall(side)
        self.stand(place, turn, side)
        if side[1] < 1.3:
            self.things(place, turn, side, int(self.random.integers(0, 4)))

    def counter(self) -> None:
        """A kitchen's row with cupboards on the wall above."""
        side = self.random.uniform([1.2, 0.85, 0.55], [3.0, 0.95, 0.7])
        place, turn = self.along_wall(side)
        self.stand(place, turn, side)
        self.things(place, turn, side, int(self.random.integers(1, 6)))
        upper = np.array([side[0] * self.random.uniform(0.5, 1), self.random.uniform(0.4, 0.8), side[2] * 0.55])
        self.stand(place * (1 + 0.1 / np.maximum(np.abs(place), 0.5)), turn, upper, base=1.4)

    def table(self) -> None:
        """A top on four legs with things on it and seats around it."""
        side, turned = self.random.uniform([0.7, 0.45, 0.5], [1.8, 0.8, 1.0]), self.free_place()
        place, turn = turned
        self.stand(place, turn, np.array([side[0], 0.04, side[2]]), base=side[1] - 0.04)
        for x, z in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            leg = self._beside(place, turn, x * (side[0] / 2 - 0.06), z * (side[2] / 2 - 0.06))
            self.stand(leg, turn, np.array([0.06, side[1] - 0.04, 0.06]))
        self.things(place, turn, side, int(self.random.integers(0, 4)))
        for _ in range(int(self.random.integers(0, 3))):
            self.chair(self._beside(place, turn, self.random.uniform(-0.5, 0.5) * side[0],
                                    (side[2] / 2 + 0.25) * self.random.choice([-1, 1])))

    def chair(self, place: np.ndarray | None = None) -> None:
        """A seat with a back."""
        anywhere, turn = self.free_place()
        place = anywhere if place is None else place
        width, seat = self.random.uniform(0.4, 0.9), self.random.uniform(0.35, 0.5)
        self.stand(place, turn, np.array([width, seat, 0.45]))
        self.stand(self._beside(place, turn, 0, 0.2), turn, np.array([width, self.random.uniform(0.75, 1.1), 0.08]))

    def carton(self) -> None:
        """A box on the floor, anywhere."""
        self.stand(*self.free_place(), self.random.uniform(0.15, [0.8, 0.7, 0.8]))

    def picture(self) -> None:
        """A picture, a door or a window."""
        side = np.array([*self.random.uniform(0.3, [1.4, 1.3]), 0.03])
        (x, z), turn = self.along_wall(side)
        height = -self.random.uniform(1.0, max(self.room[1] - 0.8, 1.1))
        self.add(np.array([x, height, z]), side, turn, str(self.random.choice(['picture', 'picture', 'lamp'])))

    def things(self, place: np.ndarray, turn: float, side: np.ndarray, count: int) -> None:
        """Small boxes on the top of a piece of furniture."""
        for _ in range(count):
            spot = self._beside(place, turn, *(self.random.uniform(-0.4, 0.4, 2) * side[[0, 2]]))
            self.stand(spot, self.random.uniform(0, np.pi), self.random.uniform(0.06, [0.35, 0.4, 0.3]), base=side[1])

    @staticmethod
    def _beside(place: np.ndarray, turn: float, x: float, z: float) -> np.ndarray:
        cosine, sine = np.cos(turn), np.sin(turn)
        return place + np.array([cosine * x + sine * z, -sine * x + cosine * z])


def furnish(random: np.random.Generator) -> Scene:
    """A random scene."""
    room = random.uniform([2.4, 2.3, 2.6], [6.0, 3.1, 7.5])
    builder = _Builder(room, random)
    pieces = (builder.cupboard, builder.counter, builder.table, builder.chair, builder.carton)
    for piece in random.choice(len(pieces), int(random.integers(4, 13)), p=[0.25, 0.15, 0.2, 0.2, 0.2]):
        pieces[piece]()
    for _ in range(int(random.integers(1, 6))):
        builder.picture()
    pose = _camera(room, random)
    kept = _clear_of(builder, pose[:3, 3])
    solids = Solids(*(np.array([values[index] for index in kept], np.float32)
                      for values in (builder.centre, builder.half, builder.turn)))
    light = np.array([*random.uniform(-0.35, 0.35, 2) * room[[0, 2]], -room[1] * random.uniform(0.75, 0.97)])[[0, 2, 1]]
    return Scene(solids, [builder.surfaces[index] for index in kept], light, pose, float(random.uniform(0.65, 1.15)))


def _clear_of(builder: _Builder, camera: np.ndarray) -> list[int]:
    """Solids that leave the camera some air; the room stays."""
    every = Solids(np.array(builder.centre), np.array(builder.half), np.array(builder.turn))
    kept = [0]
    for index in range(1, len(every)):
        beyond = np.abs(every.rotation(index) @ (camera - every.centre[index])) - every.half[index]
        if np.linalg.norm(np.maximum(beyond, 0)) > CLEAR_M:
            kept.append(index)
    return kept


def _camera(room: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """At 0.7 to 1.9 m, looking towards some place in the room, a little down, nearly upright."""
    x, z = random.uniform(-0.5, 0.5, 2) * (room[[0, 2]] - 0.6)
    yaw, height = random.uniform(0, 2 * np.pi), random.uniform(0.7, min(1.9, room[1] - 0.4))
    if random.random() < 0.7:  # rather across the room than at the wall before one's nose
        goal = random.uniform(-0.4, 0.4, 2) * room[[0, 2]] - np.array([x, z])
        yaw = float(np.arctan2(goal[0], goal[1]))
    pitch, roll = np.radians(random.normal([-14.0, 0.0], [13.0, 3.0]))
    turns = [(0, 2, yaw), (2, 1, pitch), (1, 0, roll)]
    pose = np.eye(4)
    for first, second, angle in turns:
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = np.sin(angle), -np.sin(angle)
        pose[:3, :3] = pose[:3, :3] @ turn
    pose[:3, 3] = (x, -height, z)
    return pose
