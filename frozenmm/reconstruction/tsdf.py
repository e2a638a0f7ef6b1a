"""Projective TSDF fusion into a dense volume (spec section 6)."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from frozenmm.compat.dependencies import require
from frozenmm.errors import UserError
from frozenmm.reconstruction.mesh import Mesh

TRUNCATION_VOXELS = 5.0
MAX_VOXELS = 200_000_000


def mask_border(depth: Tensor, pixels: int) -> Tensor:
    """A copy (..., H, W) of depth maps (..., H, W) with a border of so many pixels set to 0 (no measurement).

    >>> mask_border(torch.ones(3, 3), 1)
    tensor([[0., 0., 0.],
            [0., 1., 0.],
            [0., 0., 0.]])
    """
    if pixels < 0 or 2 * pixels >= min(depth.shape[-2:]):
        raise UserError(f'a border of {pixels} pixels leaves nothing of maps of {depth.shape[-2]}x{depth.shape[-1]}')
    masked = torch.zeros_like(depth)
    inner = (..., slice(pixels, depth.shape[-2] - pixels), slice(pixels, depth.shape[-1] - pixels))
    masked[inner] = depth[inner]
    return masked


def frustum_bounds(depth: Tensor, intrinsics_px: Tensor, poses_c2w: Tensor, *, with_origin: bool = False) -> Tensor:
    """Box (3, 2) float64 around the camera centres and the image corners at every frame's greatest depth.

    Args:
        depth: (F, H, W), 0 where nothing was measured.
        intrinsics_px: (3, 3).
        poses_c2w: (F, 4, 4).
        with_origin: the world's origin is inside, too (official).
    """
    height, width = depth.shape[1:]
    reach = depth.flatten(1).amax(1).double()
    intrinsics = intrinsics_px.double()
    corners = torch.tensor([[0, 0], [0, height], [width, 0], [width, height]], dtype=torch.float64, device=depth.device)
    rays = torch.cat(((corners - intrinsics[:2, 2]) / intrinsics.diagonal()[:2], torch.ones_like(corners[:, :1])), 1)
    points = torch.cat((torch.zeros_like(rays[:1]), rays))[None] * reach[:, None, None]
    world = (points @ poses_c2w[:, :3, :3].double().mT + poses_c2w[:, None, :3, 3].double()).flatten(0, 1)
    if with_origin:
        world = torch.cat((world, torch.zeros_like(world[:1])))
    return torch.stack((world.amin(0), world.amax(0)), 1)


class TSDFVolume:
    """Signed distance, weight and colour on a dense grid of voxel corners.

    Args:
        bounds: (3, 2) lower and upper end of every axis.
        voxel_size: edge of a voxel, in world units.
        truncation_voxels: distance in voxels at which the signed distance is cut off.
        device: where the volume lies.

    Raises:
        UserError: a voxel size that is not positive, an empty box, or more than 200 million voxels.
    """

    def __init__(self, bounds: Tensor, *, voxel_size: float, truncation_voxels: float = TRUNCATION_VOXELS,
                 device: torch.device | str | None = None) -> None:
        if voxel_size <= 0:
            raise UserError(f'voxel_size must be positive, got {voxel_size}')
        bounds = bounds.double().cpu()
        self.dim = [int(length) for length in ((bounds[:, 1] - bounds[:, 0]) / voxel_size).ceil().tolist()]
        count = int(np.prod(self.dim, dtype=np.float64))
        if min(self.dim) < 1:
            raise UserError(f'the bounds {bounds.tolist()} hold no voxel of {voxel_size}; is all depth 0?')
        if count > MAX_VOXELS:
            raise UserError(f'{count} voxels of {voxel_size} do not fit a dense volume (limit {MAX_VOXELS}); '
                            'use larger voxels or SparseTSDF')
        self.bounds = torch.stack((bounds[:, 0], bounds[:, 0] + voxel_size * torch.tensor(self.dim)), 1)
        self.origin = self.bounds[:, 0].float()
        self.voxel_size, self.truncation = voxel_size, truncation_voxels * voxel_size
        self.distance = torch.ones(self.dim, device=device)
        self.weight = torch.zeros(self.dim, device=device)
        self.colour = torch.zeros(3, *self.dim, device=device)

    def integrate(self, depth: Tensor, colour: Tensor, intrinsics_px: Tensor, pose_c2w: Tensor, *,
                  weight: float = 1.0) -> None:
        """Add one frame.

        Args:
            depth: (H, W) z-depth, 0 where nothing was measured.
            colour: (H, W, 3) in 0..255.
            intrinsics_px: (3, 3).
            pose_c2w: (4, 4).
            weight: of this observation.
        """
        device = self.distance.device
        w2c = torch.linalg.inv(pose_c2w.double()).to(device)
        for plane in range(self.dim[0]):  # one plane of voxels at a time bounds the memory
            points = self._plane(plane) @ w2c[:3, :3].mT + w2c[:3, 3]
            found = observe(points, depth.to(device), intrinsics_px.double().to(device), self.truncation)
            if found is None:
                continue
            index, pixels, distance = found
            self._blend(plane, index, distance, colour.to(device)[pixels[:, 1], pixels[:, 0]].float(), weight)

    def _plane(self, plane: int) -> Tensor:
        axes = [torch.arange(length, dtype=torch.float32, device=self.distance.device) for length in self.dim]
        axes[0] = axes[0][plane:plane + 1]
        origin = self.origin.to(self.distance.device)
        return torch.cartesian_prod(*(o + self.voxel_size * axis for o, axis in zip(origin, axes))).double()

    def _blend(self, plane: int, index: Tensor, distance: Tensor, colour: Tensor, weight: float) -> None:
        old = self.weight[plane].view(-1)[index]
        new = old + weight
        self.weight[plane].view(-1)[index] = new
        values = self.distance[plane].view(-1)
        values[index] = (old * values[index] + weight * distance.to(values.dtype)) / new
        colours = self.colour[:, plane].reshape(3, -1)
        colours[:, index] = ((old * colours[:, index] + weight * colour.T) / new).round().clamp(max=255)
        self.colour[:, plane] = colours.view(3, *self.dim[1:])

    def packed_colour(self) -> Tensor:
        """Colour (X, Y, Z) as blue * 65536 + green * 256 + red, float32."""
        return self.colour[2] * 65536 + self.colour[1] * 256 + self.colour[0]

    def extract_mesh(self, *, observed_only: bool = True) -> Mesh:
        """The zero level as a mesh.

        Args:
            observed_only: only cubes whose eight corners were seen. The official extraction takes all, which closes the
                volume behind every surface by a sheet that nobody saw.

        Raises:
            UserError: the volume holds no surface.
        """
        distance = self.distance.cpu().numpy()
        if not (distance.min() < 0 < distance.max()):
            raise UserError('the volume holds no surface: no frame with valid depth was integrated into it')
        measure = require('skimage.measure', 'a mesh')
        vertices, faces, _, _ = measure.marching_cubes(distance, level=0,
                                                       mask=seen_cubes(self.weight) if observed_only else None)
        nearest = np.round(vertices).astype(int)
        colours = self.colour.cpu().numpy()[:, nearest[:, 0], nearest[:, 1], nearest[:, 2]].T
        return Mesh((vertices * self.voxel_size + self.origin.numpy()).astype(np.float32), faces.astype(np.int64),
                    colours.astype(np.uint8))


def seen_cubes(weight: Tensor) -> np.ndarray:
    """Bool (X, Y, Z), True at the last corner of every cube whose eight corners were seen, from weights (X, Y, Z)."""
    seen = torch.nn.functional.max_pool3d((weight == 0).float()[None, None], 2, 1)[0, 0] == 0
    return torch.nn.functional.pad(seen, (1, 0, 1, 0, 1, 0)).cpu().numpy()


def observe(points_camera: Tensor, depth: Tensor, intrinsics_px: Tensor,
            truncation: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """Which points a depth map says something about.

    Args:
        points_camera: (N, 3) float64.
        depth: (H, W).
        intrinsics_px: (3, 3).
        truncation: points farther behind the surface are not seen.

    Returns:
        indexes (M, ), pixels (M, 2) as (u, v) and signed distances (M, ) in units of the truncation, at most 1; None
        where no point is seen.
    """
    z = points_camera[:, 2]
    focal, centre = intrinsics_px.diagonal()[:2], intrinsics_px[:2, 2]
    pixels = (points_camera[:, :2] * focal / z[:, None] + centre).round()
    height, width = depth.shape
    inside = (z > 0) & (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    index = inside.nonzero()[:, 0]
    if not len(index):
        return None
    pixels = pixels[index].long()
    measured = depth[pixels[:, 1], pixels[:, 0]].double()
    difference = measured - z[index]
    seen = (measured > 0) & (difference >= -truncation)
    return index[seen], pixels[seen], (difference[seen] / truncation).clamp(max=1)
