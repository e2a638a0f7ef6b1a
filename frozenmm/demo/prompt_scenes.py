"""Generated scenes for models that find a region from a point or box: an image and the region of every pixel."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from frozenmm.demo.painted_folder import SPLITS, check_split
from frozenmm.demo.scenes.painter import paint
from frozenmm.demo.scenes.shapes import paint_shapes
from frozenmm.errors import UserError
from frozenmm.registry import DATASETS


@DATASETS.register_module()
class PromptScenes(Dataset):
    """Scenes painted on demand and kept in memory; every one depends on seed, split and index alone.

    Even indices show objects cut from photographs (`paint`), odd ones random shapes (`paint_shapes`). Grounds,
    fillings and lights of the two splits differ.

    Args:
        split: `'train'` or `'val'`.
        count: number of scenes.
        size: side of the square images in pixels.
        objects: smallest and largest number of objects in an image.
        shapes: smallest and largest number of shapes in an image.
        seed: everything random follows from it.

    Items are dictionaries: `inputs` (3, size, size) uint8 RGB, `regions` (size, size) uint8, 0 for the ground, and
    `index`.
    """

    def __init__(self, split: str, count: int, *, size: int = 256, objects: tuple[int, int] = (3, 6),
                 shapes: tuple[int, int] = (3, 9), seed: int = 0) -> None:
        check_split(split)
        if count < 1 or size < 64:
            raise UserError(f'at least 1 scene of 64 pixels is needed, got count={count}, size={size}')
        self.split, self.count, self.size, self.seed = split, count, size, seed
        self.objects = (int(objects[0]), int(objects[1]))
        self.shapes = (int(shapes[0]), int(shapes[1]))
        self._painted: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        if not 0 <= index < self.count:
            raise IndexError(f'scene {index} of {self.count}')
        if index not in self._painted:
            self._painted[index] = self._paint(index)
        pixels, regions = self._painted[index]
        return dict(inputs=pixels, regions=regions, index=index)

    def _paint(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        if index % 2:
            image, regions = paint_shapes(self.split, self.size, self.shapes, rng)
        else:
            scene = paint(self.split, self.size, self.objects, rng)
            image, regions = scene.image, scene.segments
        rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
        return torch.from_numpy(rgb), torch.from_numpy(regions)
