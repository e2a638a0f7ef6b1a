"""Lines fitted locally: depth corrected by weighted linear regression around the nodes of a coarse grid (LWLR).

At every node a line b + a x is fitted to samples with Gaussian weights by their distance, and intercept and slope are
interpolated between the nodes.
Source: FrozenRecon, ICCV 2023, section 3.2, for scattered samples.
"""
from __future__ import annotations

import torch
from torch import Tensor


def node_positions(length: int, *, stride: int, device: torch.device | str | None = None) -> Tensor:
    """Pixel positions of the nodes along an axis: stride / 2, 3 stride / 2, ..., below the length."""
    positions = torch.arange(stride // 2, length, stride, device=device)
    if not len(positions):
        raise ValueError(f'an axis of {length} pixels has no node at stride {stride}; use a map of more than '
                         f'{stride // 2} pixels or a smaller stride')
    return positions


def interpolation_matrix(nodes: Tensor, length: int) -> Tensor:
    """Matrix (length, N) of linear interpolation from values at ascending positions; the edge values are repeated."""
    count = len(nodes)
    matrix = nodes.new_zeros(length, count)
    if count == 1:
        return matrix + 1
    pixels = torch.arange(length, dtype=nodes.dtype, device=nodes.device)
    pixels = torch.minimum(torch.maximum(pixels, nodes[0]), nodes[-1])
    left = (torch.searchsorted(nodes, pixels, right=True) - 1).clamp(0, count - 2)
    share = (pixels - nodes[left]) / (nodes[left + 1] - nodes[left])
    matrix.scatter_(1, left[:, None], (1 - share)[:, None])
    return matrix.scatter_add_(1, left[:, None] + 1, share[:, None])


def fit_local_lines(depth: Tensor, pixels: Tensor, targets: Tensor, *, bandwidth: float = 0.2, ridge: float = 1.0,
                    nodes: int = 12) -> Tensor:
    """A depth map bent so that it goes near the targets at some pixels.

    The line that fits all samples best comes first; the local lines correct it, and the ridge draws them to it where
    samples are few.

    Args:
        depth: (H, W).
        pixels: (N, 2) rows and columns, int64.
        targets: (N, ) depth wanted there.
        bandwidth: standard deviation of the weights, in shorter sides of the map.
        ridge: weight of the global line at every node, in samples; greater is smoother.
        nodes: along the shorter side, about.

    Returns:
        (H, W) float64.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 samples, or a bandwidth that is not positive.
    """
    _check_samples(depth, pixels, targets, bandwidth)
    depth, y = depth.double(), targets.double()
    x = depth[pixels[:, 0], pixels[:, 1]]
    intercept, slope = _best_line(x, y)
    depth, x = intercept + slope * depth, intercept + slope * x
    # centred and in units of their spread, so that the ridge means the same for metres and millimetres
    centre, spread = x.mean(), x.std().clamp(min=1e-12)
    height, width = depth.shape
    side = min(height, width)
    places = [node_positions(length, stride=max(side // nodes, 1), device=depth.device).double()
              for length in (height, width)]
    weights = [(-(place[:, None] - pixels[:, axis].double()).square() / (2 * (bandwidth * side)**2)).exp()
               for axis, place in enumerate(places)]
    u, v = (x - centre) / spread, (y - x) / spread
    coefficients = _weighted_lines(u, v, weights, ridge)
    spreads = [interpolation_matrix(place, length) for place, length in zip(places, (height, width))]
    intercept, slope = spreads[0] @ coefficients @ spreads[1].T
    return depth + spread * (intercept + slope * (depth - centre) / spread)


def _best_line(x: Tensor, y: Tensor) -> Tensor:
    """Intercept and slope (2, ) of the line through samples (N, ) with the least squared error."""
    design = torch.stack((torch.ones_like(x), x), 1)
    return torch.linalg.lstsq(design, y[:, None], driver='gelsd' if x.device.type == 'cpu' else None).solution[:, 0]


def _weighted_lines(u: Tensor, v: Tensor, weights: list[Tensor], ridge: float) -> Tensor:
    """Intercept and slope (2, R, C) of one line per node through samples (N, ) weighted by (R, N) and (C, N)."""
    moments = torch.stack((torch.ones_like(u), u, u * u, v, u * v))
    s0, s1, s2, r0, r1 = torch.einsum('kn,rn,cn->krc', moments, *weights).unbind()
    s0, s2 = s0 + ridge, s2 + ridge
    determinant = s0 * s2 - s1 * s1  # at least ridge^2, as s0 s2 >= s1^2 without it
    return torch.stack(((s2 * r0 - s1 * r1) / determinant, (s0 * r1 - s1 * r0) / determinant))


def _check_samples(depth: Tensor, pixels: Tensor, targets: Tensor, bandwidth: float) -> None:
    if depth.ndim != 2 or pixels.ndim != 2 or pixels.shape[1] != 2 or targets.shape != pixels.shape[:1]:
        raise ValueError('expected depth (H, W), pixels (N, 2) and targets (N, ), got '
                         f'{tuple(depth.shape)}, {tuple(pixels.shape)} and {tuple(targets.shape)}')
    if len(pixels) < 2:
        raise ValueError(f'a line needs at least 2 samples with known depth, got {len(pixels)}')
    if bandwidth <= 0:
        raise ValueError(f'bandwidth must be positive, got {bandwidth}')
