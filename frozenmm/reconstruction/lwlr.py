"""Locally weighted linear correction of depth from a 5x5 grid of anchors, in moment form (spec section 3).

At every node a line b + a x is fitted to the 25 anchors with Gaussian weights. The Gaussian is separable, so that the
five moments of all nodes are products with two small constant matrices.
"""
from __future__ import annotations

import torch
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.local_lines import interpolation_matrix, node_positions

ANCHORS = 5
BANDWIDTH_PX = 50.0
NODE_STRIDE = 32
RIDGE = 1.0
DEPTH_OFFSET = 1e-6


def anchor_positions(length: int, *, count: int = ANCHORS, device: torch.device | str | None = None) -> Tensor:
    """Pixel positions (count, ) of the anchors along an axis: floor(floor(L / (2 count)) + m L / count)."""
    if length < count:
        raise ValueError(f'an axis of {length} pixels cannot hold {count} anchors; use a larger map')
    step = length / count
    return torch.tensor([int(step // 2 + m * step) for m in range(count)], device=device)


class LWLR:
    """Correction of depth maps of one size.

    >>> lwlr = LWLR((40, 56))
    >>> depth = torch.full((1, 40, 56), 2.0)
    >>> lwlr(depth, 1.5 * torch.ones(1, 5, 5)).mean().round(decimals=1)   # nearly, because of the ridge
    tensor(3.)

    Args:
        size: (height, width) of the maps.
        bandwidth_px: standard deviation of the weights in pixels of the map.
        stride: distance of the nodes in pixels.
        ridge: added to the count of anchors, so that the intercept shrinks.
        compat: the official placement of the nodes in the resize, (m + 0.5) L / N - 0.5 in place of their true
            positions, and the anchors that the FIRST frame drops left out in every frame.
        device: of the constant matrices.

    Attributes:
        spread: (H, Nr) and (W, Nc) float64, interpolation from the nodes to rows and columns.
    """

    def __init__(self, size: tuple[int, int], *, bandwidth_px: float = BANDWIDTH_PX, stride: int = NODE_STRIDE,
                 ridge: float = RIDGE, compat: bool = False, device: torch.device | str | None = None) -> None:
        if bandwidth_px <= 0:
            raise UserError(f'bandwidth_px must be positive, got {bandwidth_px}')
        self.size, self.ridge, self.compat = size, ridge, compat
        self.rows, self.columns = (anchor_positions(length, device=device) for length in size)
        weights, spread = [], []
        for length, anchors in zip(size, (self.rows, self.columns)):
            nodes = node_positions(length, stride=stride, device=device).double()
            weights.append((-(nodes[:, None] - anchors).square() / (2 * bandwidth_px**2)).exp())
            placed = (torch.arange(len(nodes), dtype=torch.float64, device=device) + 0.5) * length / len(nodes) - 0.5
            spread.append(interpolation_matrix(placed if compat else nodes, length))
        self._weights, self.spread = weights, spread

    @property
    def anchor_pixels(self) -> Tensor:
        """(25, 2) row and column of the anchors, row by row."""
        return torch.cartesian_prod(self.rows, self.columns)

    def coefficients(self, depth: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Intercept and slope at the nodes, two float64 maps (F, Nr, Nc).

        Args:
            depth: (F, H, W).
            anchors: (F, 5, 5) multipliers of the depth at the anchors; the sign is ignored.
        """
        return self.lines(self.at_anchors(depth), anchors)

    def at_anchors(self, depth: Tensor) -> Tensor:
        """Depth (F, 5, 5) at the anchors of maps (F, H, W)."""
        return depth[:, self.rows[:, None], self.columns[None]]

    def lines(self, depth: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """`coefficients`, two maps (F, Nr, Nc), from depth (F, 5, 5) at the anchors and their multipliers (F, 5, 5)."""
        x = depth.double()
        y = anchors.double().abs() * x
        used = (y[:1] if self.compat else y) != 0
        moments = torch.stack((torch.ones_like(x), x, x * x, y, x * y), 1) * used[:, None]
        s0, s1, s2, y0, y1 = (self._weights[0] @ moments @ self._weights[1].mT).unbind(1)
        s0 = s0 + self.ridge
        determinant = s0 * s2 - s1 * s1
        flat = determinant == 0  # no anchor with depth: the map stays as it is
        determinant = torch.where(flat, torch.ones_like(determinant), determinant)
        intercept = torch.where(flat, torch.zeros_like(s0), (s2 * y0 - s1 * y1) / determinant)
        slope = torch.where(flat, torch.ones_like(s0), (s0 * y1 - s1 * y0) / determinant)
        return intercept, slope

    def __call__(self, depth: Tensor, anchors: Tensor) -> Tensor:
        """Corrected depth (F, H, W) of depth (F, H, W) and anchors (F, 5, 5); all anchors 0 leave it as it is."""
        self._check(depth, anchors)
        intercept, slope = (self.to_map(nodes).to(depth.dtype) for nodes in self.coefficients(depth, anchors))
        return intercept + slope * depth

    def to_map(self, nodes: Tensor) -> Tensor:
        """A map (F, H, W) from values at the nodes (F, Nr, Nc)."""
        return self.spread[0] @ nodes @ self.spread[1].mT

    def _check(self, depth: Tensor, anchors: Tensor) -> None:
        if depth.ndim != 3 or tuple(depth.shape[1:]) != tuple(self.size):
            raise ValueError(f'depth must have shape (F, {self.size[0]}, {self.size[1]}), got {tuple(depth.shape)}')
        wanted = (len(depth), ANCHORS, ANCHORS)
        if tuple(anchors.shape) != wanted:
            raise ValueError(f'anchors must have shape {wanted}, got {tuple(anchors.shape)}')


def corrected_depth(affine_depth: Tensor, scale: Tensor, shift: Tensor, anchors: Tensor, lwlr: LWLR, *,
                    keep_negative: bool = False) -> Tensor:
    """Depth (F, H, W) of the model: LWLR of |s| d + t + 1e-6, negative values set to 0 (without gradient).

    Args:
        affine_depth: (F, H, W), known up to scale and shift.
        scale: (F, ).
        shift: (F, ).
        anchors: (F, 5, 5).
        lwlr: the correction for this size.
        keep_negative: leave negative values, as the official output pass does.
    """
    depth = lwlr(scale.abs()[:, None, None] * affine_depth + shift[:, None, None] + DEPTH_OFFSET, anchors)
    return depth if keep_negative else torch.where(depth < 0, torch.zeros_like(depth), depth)
