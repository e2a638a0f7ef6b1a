"""A sequence of colour images with depth and camera poses."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from frozenmm.errors import UserError, reading


@dataclass(frozen=True)
class RGBDSequence:
    """Colour images with registered depth and poses; files are read on demand.

    Attributes:
        images: colour files.
        depths: depth files, one per image.
        poses_c2w: (F, 4, 4) float64, metres.
        intrinsics_px: (3, 3) of the colour images.
        unit_m: metres per step of a depth file.
        invalid: step that means no measurement besides 0.
        register: warps depth (h, w) in metres to the colour camera of this (height, width); None where it is there.
    """

    images: list[Path]
    depths: list[Path]
    poses_c2w: np.ndarray
    intrinsics_px: np.ndarray
    unit_m: float = 0.001
    invalid: int | None = None
    register: Callable[[np.ndarray, tuple[int, int]], np.ndarray] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB."""
        return cv2.cvtColor(_read(self.images[index], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def depth(self, index: int) -> np.ndarray:
        """(H, W) float32 metres in the colour camera, 0 where nothing was measured."""
        steps = _read(self.depths[index], cv2.IMREAD_UNCHANGED)
        if steps.ndim != 2:
            raise UserError(f'{self.depths[index]} has {steps.shape[2]} channels, expected a single one of depth')
        metres = np.where(steps == (0 if self.invalid is None else self.invalid), 0, steps).astype(np.float32)
        metres = metres * np.float32(self.unit_m)
        size = self.image(index).shape[:2]
        if self.register is not None:
            return self.register(metres, size)
        return metres if metres.shape == size else cv2.resize(metres, size[::-1],
                                                              interpolation=cv2.INTER_NEAREST_EXACT)

    def select(self, keep: np.ndarray | slice) -> RGBDSequence:
        """The frames that a slice or a bool mask keeps."""
        index = np.arange(len(self))[keep].tolist()
        return RGBDSequence([self.images[i] for i in index], [self.depths[i] for i in index], self.poses_c2w[index],
                            self.intrinsics_px, self.unit_m, self.invalid, self.register)


def _read(path: Path, flags: int) -> np.ndarray:
    with reading(path, 'an image of the sequence', 'is it complete?'):
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
        if image is None:
            raise ValueError('it cannot be decoded')
    return image
