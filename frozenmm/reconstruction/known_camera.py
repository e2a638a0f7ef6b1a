"""What is given of the cameras of a clip."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from frozenmm.errors import UserError
from frozenmm.reconstruction.given_lens import EXIF_ERROR


@dataclass(frozen=True)
class KnownCamera:
    """Given values; None: to be found.

    Attributes:
        focal_px: focal length at the images' width.
        poses_c2w: (F, 4, 4) camera to world; the result has their unit and world.
        metric_scale: metres per unit of the frozen depth, on the geometric mean over the frames; the result is in
            metres. 1 for networks that predict metres.
        focal_prior_px: about what the focal length is (EXIF), at the images' size.
        focal_error: standard deviation of its logarithm.

    >>> KnownCamera(focal_px=-1.0).check(frames=5)
    Traceback (most recent call last):
    frozenmm.errors.UserError: focal_px must be positive, got -1.0
    """

    focal_px: float | None = None
    poses_c2w: np.ndarray | None = None
    metric_scale: float | None = None
    focal_prior_px: float | None = None
    focal_error: float = EXIF_ERROR

    def part(self, frames: np.ndarray) -> KnownCamera:
        """What is given of some frames (W, )."""
        return self if self.poses_c2w is None else replace(self, poses_c2w=self.poses_c2w[frames])

    def check(self, frames: int) -> None:
        """Refuse values that cannot be.

        Raises:
            UserError: a focal length or scale that is not positive, poses of another shape or that are no motions.
        """
        for name in ('focal_px', 'metric_scale'):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f'{name} must be positive, got {value}')
        if self.poses_c2w is None:
            return
        if self.poses_c2w.shape != (frames, 4, 4):
            raise UserError(f'poses_c2w must have shape ({frames}, 4, 4), one per frame, got {self.poses_c2w.shape}')
        rotation = self.poses_c2w[:, :3, :3]
        off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        wrong = ~(off < 1e-2) | ~(np.linalg.det(rotation) > 0)
        if wrong.any():
            raise UserError(f'the poses of frames {np.flatnonzero(wrong).tolist()[:5]} are no rigid motions; expected '
                            'camera-to-world matrices with a rotation in the upper left')
        if self.metric_scale is not None:
            raise UserError('poses_c2w fix the unit already; leave out metric_scale')
        if np.ptp(self.poses_c2w[:, :3, 3], axis=0).max() < 1e-9:
            raise UserError('the given poses stand in one place; depth has no scale without a baseline')

    def poses_w2c(self) -> np.ndarray:
        """(F, 4, 4) world to camera, with rotations made orthonormal.

        Raises:
            ValueError: no poses are given.
        """
        if self.poses_c2w is None:
            raise ValueError('no poses are given; ask for them only where poses_c2w is not None')
        u, _, vt = np.linalg.svd(self.poses_c2w[:, :3, :3])
        pose = self.poses_c2w.astype(float).copy()
        pose[:, :3, :3] = u @ vt
        return np.linalg.inv(pose)
