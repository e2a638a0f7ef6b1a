"""Warp of pixels from target frames into reference frames, and the losses on it (spec section 5)."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.reconstruction.cameras import NEAREST, back_project, invert_intrinsics, pixel_grid
from frozenmm.reconstruction.pair_sampling import PairDraw

BORDER = 0.95
"""Greatest normalised coordinate of a pixel that counts."""
OUTSIDE = 2.0


@dataclass
class Warped:
    """What N pixels of P pairs see in their reference frame.

    Attributes:
        target_colour: (P, 3, N) in 0..1.
        reference_colour: (P, 3, N), sampled at the projected pixel.
        projected_depth: (P, N) z-depth of the target's points in the reference camera.
        reference_depth: (P, N) the reference's own depth at the projected pixel.
        valid: (P, N) bool.
    """

    target_colour: Tensor
    reference_colour: Tensor
    projected_depth: Tensor
    reference_depth: Tensor
    valid: Tensor


def normalise_pixels(pixels: Tensor, size: tuple[int, int], *, compat: bool = False) -> Tensor:
    """Pixels (..., 2) as (u, v) in the coordinates of `grid_sample` with align_corners False.

    Args:
        pixels: integer coordinates are pixel centres.
        size: (height, width).
        compat: 2 u / (W - 1) - 1, which belongs to align_corners True and is off by up to half a pixel.

    >>> normalise_pixels(torch.tensor([0.0, 1.5]), (4, 4))
    tensor([-0.7500,  0.0000])
    """
    extent = pixels.new_tensor([size[1], size[0]])
    return 2 * pixels / (extent - 1) - 1 if compat else (2 * pixels + 1) / extent - 1


def sample(maps: Tensor, grid: Tensor, *, mode: str = 'bilinear') -> Tensor:
    """Values (P, C, N) of maps (P, C, H, W) at normalised positions (P, N, 2); zeros outside."""
    return F.grid_sample(maps, grid[:, :, None].to(maps.dtype), mode=mode, padding_mode='zeros',
                         align_corners=False)[..., 0]


@dataclass
class Frames:
    """Colours of a clip and how they are sampled.

    Attributes:
        images: (F, 3, H, W) in 0..1.
        own_colours: (F, 3, H W) every pixel's colour, sampled at its own place.
        invalid: (F, H, W) bool, pixels that count in neither frame of a pair.
        compat: the official sampling positions (see `normalise_pixels`).
    """

    images: Tensor
    own_colours: Tensor
    invalid: Tensor | None
    compat: bool

    @classmethod
    def of(cls, images: Tensor, *, invalid: Tensor | None = None, compat: bool = False) -> Frames:
        """The frames of images (F, 3, H, W) with what stays the same in every iteration."""
        size = (int(images.shape[2]), int(images.shape[3]))
        own = normalise_pixels(pixel_grid(*size, device=images.device)[:, :2], size, compat=compat)
        return cls(images, sample(images, own.expand(len(images), -1, -1)), invalid, compat)


def warp(frames: Frames, depth: Tensor, poses_w2c: Tensor, intrinsics_px: Tensor, draw: PairDraw) -> Warped:
    """Carry pixels of the targets into their references.

    Args:
        frames: of the clip.
        depth: (F, H, W) z-depth.
        poses_w2c: (F, 4, 4).
        intrinsics_px: (3, 3) shared or (F, 3, 3).
        draw: P pairs and N pixels.
    """
    size, targets, references = (int(depth.shape[1]), int(depth.shape[2])), draw.targets, draw.references
    uv = pixel_grid(*size, dtype=poses_w2c.dtype, device=depth.device)[draw.pixels]
    inverse = invert_intrinsics(intrinsics_px)
    of_target, of_reference = ((inverse, intrinsics_px) if intrinsics_px.ndim == 2 else
                               (inverse[targets], intrinsics_px[references]))
    target_depth = depth.flatten(1)[targets][:, draw.pixels]
    points = back_project(target_depth.to(poses_w2c.dtype), uv, of_target)
    relative = poses_w2c[references] @ torch.linalg.inv(poses_w2c[targets])
    shift = (of_reference @ relative[:, :3, 3:])[..., 0]
    image = points @ (of_reference @ relative[:, :3, :3]).mT + shift[:, None]
    projected = image[..., 2].clamp(min=NEAREST)
    grid = normalise_pixels(image[..., :2] / projected[..., None], size, compat=frames.compat)
    grid = torch.where((projected == shift[:, 2:])[..., None], torch.full_like(grid, OUTSIDE), grid)
    looked_up = sample(torch.cat((frames.images, depth[:, None]), 1)[references], grid)
    colour, depth_there = looked_up[:, :3], looked_up[:, 3]
    valid = (grid.abs() <= BORDER).all(-1) & (depth_there != 0) & (colour.sum(1) != 0)
    if frames.invalid is not None:
        valid &= ~frames.invalid.flatten(1)[targets][:, draw.pixels]
        valid &= sample(frames.invalid[references][:, None].float(), grid, mode='nearest')[:, 0] == 0
    return Warped(frames.own_colours[targets][..., draw.pixels], colour, projected, depth_there, valid)


def photometric_residuals(warped: Warped) -> Tensor:
    """Mean absolute difference of colour (V, ) over the channels, of the valid pixels of all pairs."""
    return (warped.target_colour - warped.reference_colour).abs().mean(1)[warped.valid]


def geometric_residuals(warped: Warped) -> Tensor:
    """|m - Z| / (m + Z) (V, ) between seen and projected depth, of the valid pixels of all pairs."""
    seen, projected = warped.reference_depth[warped.valid], warped.projected_depth[warped.valid]
    return (seen - projected).abs() / (seen + projected)


def trimmed_mean(values: Tensor, quantile: float | None) -> Tensor:
    """Mean, a scalar, of the values strictly below their quantile; of all where that leaves none, 0 of none.

    Args:
        values: (V, ).
        quantile: in (0, 1], linearly interpolated; None keeps all values.

    >>> trimmed_mean(torch.tensor([1.0, 2.0, 3.0, 100.0]), 0.9)
    tensor(2.)
    """
    if not values.numel():
        return values.sum()
    if quantile is not None:
        with torch.no_grad():
            place = quantile * (len(values) - 1)
            low = values.kthvalue(int(place) + 1).values
            high = values.kthvalue(min(int(place) + 2, len(values))).values
            kept = values < low + (high - low) * (place - int(place))
        if bool(kept.any()):
            values = values[kept]
    return values.mean()


def anchor_norm(anchors: Tensor, targets: Tensor, references: Tensor) -> Tensor:
    """Mean, a scalar, over the frames of the pairs of the sum of |g - 1| over the 25 anchors.

    Args:
        anchors: (F, 5, 5).
        targets: (P, ) frame indexes.
        references: (P, ) frame indexes.
    """
    per_frame = (anchors - 1).abs().sum((-2, -1))
    return (per_frame[targets].sum() + per_frame[references].sum()) / (len(targets) + len(references))
