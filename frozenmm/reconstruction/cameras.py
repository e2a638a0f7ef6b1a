"""Pinhole cameras: focal ratios, intrinsics at several image sizes, pixel grids.

Camera frame: x right, y down, z forward; pixel coordinates are integers at pixel centres (row v, column u); depth is z.
"""
from __future__ import annotations

import torch
from torch import Tensor

OPTIMISATION_SIDE = 150
NEAREST = 1e-3
"""Least depth that a point is divided by."""


def optimisation_size(height: int, width: int, *, side: int = OPTIMISATION_SIDE) -> tuple[int, int]:
    """Image size (height, width) whose shorter side is `side`, the longer one rounded down (spec section 1.1).

    >>> optimisation_size(480, 640)
    (150, 200)
    """
    if min(height, width) < 1:
        raise ValueError(f'an image of {height}x{width} pixels has no area; height and width must be at least 1')
    ratio = max(side / height, side / width)
    return int(ratio * height), int(ratio * width)


def focal_intrinsics(focal_ratio: Tensor, original: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Intrinsics of the size at work from one shared focal ratio.

    Args:
        focal_ratio: (1, ) or scalar; focal length over the mean of height and width of the original images.
        original: (height, width) of the original images.
        size: (height, width) at which the intrinsics are wanted.

    Returns:
        (3, 3) in pixels, of the dtype of `focal_ratio`; the principal point is (width / 2, height / 2).
    """
    focal = focal_ratio.reshape(()) * (original[0] + original[1]) / 2
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = (torch.stack((focal * (size[1] / original[1]), zero, one * (size[1] / 2))),
            torch.stack((zero, focal * (size[0] / original[0]), one * (size[0] / 2))),
            torch.stack((zero, zero, one)))
    return torch.stack(rows)


def invert_intrinsics(intrinsics_px: Tensor) -> Tensor:
    """Closed-form inverse (..., 3, 3) of intrinsics (..., 3, 3).

    Raises:
        ValueError: a matrix is singular.

    >>> invert_intrinsics(torch.tensor([[2.0, 0, 3], [0, 4, 1], [0, 0, 1]])).tolist()
    [[0.5, 0.0, -1.5], [0.0, 0.25, -0.25], [0.0, 0.0, 1.0]]
    """
    a, b, c = intrinsics_px.unbind(-2)
    rows = torch.stack((torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)), -1)
    determinant = (a * rows[..., 0]).sum(-1)
    if bool((determinant == 0).any()):
        raise ValueError('intrinsics must be invertible, got a determinant of 0; check the focal lengths')
    return rows / determinant[..., None, None]


def pixel_grid(height: int, width: int, *, dtype: torch.dtype = torch.float64,
               device: torch.device | str | None = None) -> Tensor:
    """Homogeneous pixels (height * width, 3) as (u, v, 1), row by row.

    >>> pixel_grid(1, 2).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    """
    v, u = torch.meshgrid(torch.arange(height, dtype=dtype, device=device),
                          torch.arange(width, dtype=dtype, device=device), indexing='ij')
    return torch.stack((u, v, torch.ones_like(u)), -1).reshape(-1, 3)


def back_project(depth: Tensor, pixels: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Points (..., N, 3) in the camera from z-depth (..., N), homogeneous pixels (N, 3) and inverses (..., 3, 3)."""
    return depth[..., None] * (pixels @ inverse_intrinsics.mT)
