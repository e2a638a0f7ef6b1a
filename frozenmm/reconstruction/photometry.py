"""Image pyramids with gradients, points with texture, and where points of one frame lie in others (spec 12.2, 12.3)."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.reconstruction.cameras import NEAREST
from frozenmm.reconstruction.depth_model import GRID

PATCH = ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Offsets of the pixels that are compared per point, in pixels of the level."""


class View:
    """Maps of all frames at one level, with their gradients.

    Args:
        maps: (F, H, W) at full size.
        step: full-size pixels per pixel of the level.
    """

    def __init__(self, maps: Tensor, step: int) -> None:
        small = F.avg_pool2d(maps[:, None], step) if step > 1 else maps[:, None]
        padded = F.pad(small, (1, 1, 1, 1), mode='replicate')[:, 0]
        self.step, self.size = step, (int(small.shape[2]), int(small.shape[3]))
        self.gradient = torch.stack((padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2],
                                     padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]), -1) / (2 * step)
        self.table = torch.cat((small[:, 0, :, :, None], self.gradient), -1).reshape(-1, 3).contiguous()

    def look(self, frame: Tensor, pixels: Tensor) -> Tensor:
        """Value and gradient by full-size u and v (..., 3), bilinearly; the edge is repeated.

        Args:
            frame: (...), indexes of the frames.
            pixels: (..., 2) as full-size (u, v).
        """
        height, width = self.size
        place = (pixels + 0.5) / self.step - 0.5
        u, v = place[..., 0].clamp(0, width - 1), place[..., 1].clamp(0, height - 1)
        left, top = u.long().clamp(max=max(width - 2, 0)), v.long().clamp(max=max(height - 2, 0))
        du, dv = (u - left)[..., None], (v - top)[..., None]
        first = (frame * height + top) * width + left
        right, below = (1 if width > 1 else 0), (width if height > 1 else 0)
        upper = torch.lerp(self.table[first], self.table[first + right], du)
        return torch.lerp(upper, torch.lerp(self.table[first + below], self.table[first + below + right], du), dv)


def textured_points(view: View, count: int, invalid: Tensor | None = None) -> Tensor:
    """The pixel (F, N, 2) of the greatest gradient in every cell of an even grid, as full-size (u, v).

    Args:
        view: of the images.
        count: about so many cells.
        invalid: (F, H, W) bool, pixels that are taken only where a cell has no other.
    """
    height, width = view.size
    cell = max(1, round((height * width / count)**0.5))
    strength = view.gradient.square().sum(-1)
    if invalid is not None:
        small = F.avg_pool2d(invalid[:, None].to(strength), view.step)[:, 0] if view.step > 1 else invalid
        strength = torch.where(small > 0, torch.full_like(strength, -1), strength)
    chosen = F.max_pool2d(strength[:, None], cell, return_indices=True)[1].flatten(1)
    place = torch.stack((chosen % width, chosen // width), -1).to(view.table.dtype)
    return (place + 0.5) * view.step - 0.5


def hat_rows(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Values (..., 25) of the bilinear hats at pixels (..., 2) of an image of `size` (height, width)."""
    sides = torch.tensor([max(size[1] - 1, 1), max(size[0] - 1, 1)], dtype=pixels.dtype)
    place = (pixels / sides).clamp(0, 1) * (GRID - 1)
    hats = (1 - (place[..., None] - torch.arange(GRID, dtype=pixels.dtype)).abs()).clamp(min=0)
    return (hats[..., 1, :, None] * hats[..., 0, None, :]).flatten(-2)


@dataclass
class Sight:
    """Where points of hosts lie in their partners.

    Attributes:
        turned: (h, K, N, O, 3) the points' rays times depth, turned into the partner.
        points: (h, K, N, O, 3) in the partner's camera.
        pixels: (h, K, N, O, 2) in the partner, full size.
        axis: (h, K, 3) the host's optical axis in the partner.
        z: (h, N) depth in the host.
        focal: focal length.
        centre: (2, ) principal point.
        inside: (h, K, N) bool, in front of the partner and inside its image.
    """

    turned: Tensor
    points: Tensor
    pixels: Tensor
    axis: Tensor
    z: Tensor
    focal: float
    centre: Tensor
    inside: Tensor

    def rows(self, by_pixel: Tensor, by_z: Tensor | None = None) -> Tensor:
        """Derivatives (h, K, N, O, 8): by the relative pose (6, left increment), log focal length and log depth.

        Args:
            by_pixel: (h, K, N, O, 2) derivative of the residual by the pixel.
            by_z: (h, K, N, O) derivative by the partner's z in addition.
        """
        inverse = 1 / self.points[..., 2].clamp(min=NEAREST)
        across = by_pixel * (self.focal * inverse)[..., None]
        along = -(across * self.points[..., :2]).sum(-1) * inverse
        by_point = torch.cat((across, (along if by_z is None else along + by_z)[..., None]), -1)
        by_depth = (by_point * self.turned).sum(-1)
        by_axis = (by_point * self.axis[:, :, None, None]).sum(-1) * self.z[:, None, :, None]
        by_focal = by_axis - by_depth + (by_pixel * (self.pixels - self.centre)).sum(-1)
        turn = torch.linalg.cross(self.points, by_point)
        return torch.cat((by_point, turn, by_focal[..., None], by_depth[..., None]), -1)


def see(pixels: Tensor, log_depth: Tensor, relative: Tensor, focal: float, size: tuple[int, int], *,
        step: int, margin: float = 1.0) -> Sight:
    """Carry patches of points into partners.

    Args:
        pixels: (h, N, 2) of the points, full-size (u, v).
        log_depth: (h, N).
        relative: (h, K, 4, 4), host to partner.
        focal: focal length in pixels.
        size: (height, width) of the full-size images.
        step: distance of the patch's pixels.
        margin: least distance to the edge in pixels of the level.
    """
    centre = pixels.new_tensor([(size[1] - 1) / 2, (size[0] - 1) / 2])
    patch = pixels[:, :, None] + pixels.new_tensor(PATCH) * step
    rays = torch.cat(((patch - centre) / focal, torch.ones_like(patch[..., :1])), -1)
    depth = log_depth.exp()
    world = rays * depth[..., None, None]
    turned = torch.einsum('hkij,hnoj->hknoi', relative[..., :3, :3], world)
    points = turned + relative[:, :, None, None, :3, 3]
    z = points[..., 2:].clamp(min=NEAREST)
    seen = focal * points[..., :2] / z + centre
    middle, edge = seen[..., 0, :], margin * step
    limit = pixels.new_tensor([size[1] - 1, size[0] - 1])
    inside = (points[..., 0, 2] > NEAREST) & (middle >= edge).all(-1) & (middle <= limit - edge).all(-1)
    return Sight(turned, points, seen, relative[..., :3, 2], depth, focal, centre, inside)


def brightness(seen: Tensor, own: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset (h, K) that bring the host's brightness to the partner's, by weighted least squares.

    Args:
        seen: (h, K, N, O) in the partner.
        own: (h, N, O) in the host.
        weight: (h, K, N).
    """
    own = own[:, None]
    share = weight[..., None].expand_as(seen)
    total = share.sum((2, 3)).clamp(min=1e-9)
    mean_own, mean_seen = (share * own).sum((2, 3)) / total, (share * seen).sum((2, 3)) / total
    centred = own - mean_own[..., None, None]
    variance = (share * centred.square()).sum((2, 3)) / total
    covariance = (share * centred * (seen - mean_seen[..., None, None])).sum((2, 3)) / total
    gain = ((covariance + 1e-3) / (variance + 1e-3)).clamp(0.5, 2.0)
    return gain, mean_seen - gain * mean_own


def image_shift(first: Tensor, second: Tensor, *, reach: float = 0.35) -> tuple[float, float]:
    """Shift (du, dv) in pixels after which `second` (H, W) looks most like `first`: best correlation of the overlap.

    Args:
        first: (H, W) of a small image.
        second: (H, W).
        reach: greatest shift as a share of the sides.
    """
    height, width = first.shape
    best = (-2.0, 0.0, 0.0)
    for dv in range(-int(reach * height), int(reach * height) + 1):
        rows = slice(max(0, -dv), min(height, height - dv)), slice(max(0, dv), min(height, height + dv))
        for du in range(-int(reach * width), int(reach * width) + 1):
            columns = slice(max(0, -du), min(width, width - du)), slice(max(0, du), min(width, width + du))
            a, b = first[rows[0], columns[0]], second[rows[1], columns[1]]
            a, b = a - a.mean(), b - b.mean()
            match = float((a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt().clamp(min=1e-9))
            if match > best[0]:
                best = (match, float(du), float(dv))
    return best[1], best[2]
