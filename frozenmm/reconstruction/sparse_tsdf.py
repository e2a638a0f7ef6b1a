"""Projective TSDF fusion into blocks of voxels near the surface: memory follows the area, not the volume.

Every voxel of a block takes the same values as in a dense volume (`TSDFVolume`) when all frames are announced with
`allocate` before the first one is integrated, which is what `fuse_frames` does.
Source: Curless and Levoy, SIGGRAPH 1996; voxel blocks as in Niessner et al., SIGGRAPH Asia 2013.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from frozenmm.compat.dependencies import require
from frozenmm.errors import UserError
from frozenmm.reconstruction.mesh import Mesh
from frozenmm.reconstruction.tsdf import TRUNCATION_VOXELS, observe, seen_cubes

BLOCK = 8
"""Voxels along the edge of a block."""
BRICK = 8
"""Blocks along the edge of the pieces in which a mesh is extracted."""
CHUNK = 1024
"""Blocks that are integrated at once."""
MAX_BLOCKS = 400_000
"""About 4 GB; a scene that needs more has a voxel size that does not suit it."""
_HALF_RANGE = 1 << 20


def _keys(blocks: Tensor) -> Tensor:
    """One int64 per block (N, 3), in the order of x, y, z."""
    shifted = blocks.long() + _HALF_RANGE
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]


def _blocks(keys: Tensor) -> Tensor:
    """The inverse of `_keys`."""
    mask = (1 << 21) - 1
    return torch.stack(((keys >> 42) & mask, (keys >> 21) & mask, keys & mask), 1) - _HALF_RANGE


class SparseTSDF:
    """Signed distance, weight and colour on voxels near the surface.

    Args:
        voxel_size: edge of a voxel, in world units.
        truncation_voxels: distance in voxels at which the signed distance is cut off.
        device: where the blocks lie.

    Attributes:
        keys: (N, ) int64, sorted, one per block.
        distance: (N, 512), in units of the truncation.
        weight: (N, 512), 0 where nothing was seen.
        colour: (N, 512, 3) in 0..255.

    Raises:
        UserError: a size or truncation that is not positive.
    """

    def __init__(self, *, voxel_size: float, truncation_voxels: float = TRUNCATION_VOXELS,
                 device: torch.device | str | None = None) -> None:
        if voxel_size <= 0 or truncation_voxels <= 0:
            raise UserError(f'voxel_size and truncation_voxels must be positive, got {voxel_size} and '
                            f'{truncation_voxels}')
        self.voxel_size, self.truncation = voxel_size, truncation_voxels * voxel_size
        self.keys = torch.zeros(0, dtype=torch.int64, device=device)
        count = BLOCK**3
        self.distance, self.weight = torch.ones(0, count, device=device), torch.zeros(0, count, device=device)
        self.colour = torch.zeros(0, count, 3, device=device)
        axis = torch.arange(BLOCK, device=device)
        self._inside = torch.cartesian_prod(axis, axis, axis)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def megabytes(self) -> float:
        """Memory of the blocks."""
        return sum(part.numel() * part.element_size() for part in (self.keys, self.distance, self.weight,
                                                                   self.colour)) / 1e6

    def allocate(self, depth: Tensor, intrinsics_px: Tensor, pose_c2w: Tensor) -> None:
        """Make room for the surface that a frame shows: all blocks within the truncation along its rays.

        Args:
            depth: (H, W) z-depth, 0 where nothing was measured.
            intrinsics_px: (3, 3).
            pose_c2w: (4, 4).

        Raises:
            UserError: more than 400,000 blocks are needed, or one lies a million blocks from the origin.
        """
        device = self.keys.device
        rows, columns = (depth > 0).nonzero(as_tuple=True)
        if not len(rows):
            return
        intrinsics, pose = intrinsics_px.double().to(device), pose_c2w.double().to(device)
        focal, centre = intrinsics.diagonal()[:2], intrinsics[:2, 2]
        rays = torch.stack((columns, rows), 1).double().to(device).sub(centre).div(focal)
        rays = torch.cat((rays, torch.ones_like(rays[:, :1])), 1) @ pose[:3, :3].T
        z = depth[rows, columns].double().to(device)
        # steps of half a block along the rays, so that no block within the truncation is jumped over
        steps = int(np.ceil(2 * self.truncation / (self.voxel_size * BLOCK / 2))) + 1
        found = []
        for offset in np.linspace(-self.truncation, self.truncation, steps):
            points = rays * (z + offset).clamp(min=0)[:, None] + pose[:3, 3]
            found.append(torch.unique(_keys(self._checked(points))))
        self._add(torch.unique(torch.cat(found)))

    def _checked(self, points: Tensor) -> Tensor:
        blocks = (points / (self.voxel_size * BLOCK)).floor()
        if bool((blocks.abs() >= _HALF_RANGE).any()):
            raise UserError(f'depth reaches {float(points.abs().max()):g} units, a million blocks of voxels of '
                            f'{self.voxel_size}; use larger voxels or cut the depth off')
        return blocks

    def _add(self, keys: Tensor) -> None:
        fresh = keys[~torch.isin(keys, self.keys)]
        if len(self) + len(fresh) > MAX_BLOCKS:
            raise UserError(f'the surface needs more than {MAX_BLOCKS} blocks of {BLOCK}x{BLOCK}x{BLOCK} voxels of '
                            f'{self.voxel_size}; use larger voxels')
        if not len(fresh):
            return
        self.keys, order = torch.cat((self.keys, fresh)).sort()
        count, device = (len(fresh), BLOCK**3), self.keys.device
        self.distance = torch.cat((self.distance, torch.ones(count, device=device)))[order]
        self.weight = torch.cat((self.weight, torch.zeros(count, device=device)))[order]
        self.colour = torch.cat((self.colour, torch.zeros(*count, 3, device=device)))[order]

    def integrate(self, depth: Tensor, colour: Tensor, intrinsics_px: Tensor, pose_c2w: Tensor, *,
                  weight: float = 1.0) -> None:
        """Add one frame to every block that it sees, those of its own surface included.

        Args:
            depth: (H, W) z-depth, 0 where nothing was measured.
            colour: (H, W, 3) in 0..255.
            intrinsics_px: (3, 3).
            pose_c2w: (4, 4).
            weight: of this observation.
        """
        self.allocate(depth, intrinsics_px, pose_c2w)
        device = self.keys.device
        depth, colour = depth.to(device), colour.to(device)
        intrinsics, w2c = intrinsics_px.double().to(device), torch.linalg.inv(pose_c2w.double()).to(device)
        for part in self._in_view(depth, intrinsics, w2c).split(CHUNK):
            voxels = (_blocks(self.keys[part]) * BLOCK)[:, None] + self._inside
            points = (voxels.reshape(-1, 3).double() * self.voxel_size) @ w2c[:3, :3].T + w2c[:3, 3]
            found = observe(points, depth, intrinsics, self.truncation)
            if found is not None:
                index, pixels, distance = found
                self._blend(part[index // BLOCK**3], index % BLOCK**3, distance,
                            colour[pixels[:, 1], pixels[:, 0]].float(), weight)

    def _in_view(self, depth: Tensor, intrinsics: Tensor, w2c: Tensor) -> Tensor:
        """Indexes of blocks that may have a voxel before the camera, in the image and not far behind the surface."""
        half = self.voxel_size * BLOCK / 2
        radius = half * 3**0.5
        points = ((_blocks(self.keys).double() * 2 + 1) * half) @ w2c[:3, :3].T + w2c[:3, 3]
        z = points[:, 2]
        focal, centre = intrinsics.diagonal()[:2], intrinsics[:2, 2]
        pixels = points[:, :2] * focal / z.clamp(min=radius)[:, None] + centre
        reach = focal * radius / (z - radius).clamp(min=1e-9)[:, None] * 2 + 1
        size = torch.tensor([depth.shape[1], depth.shape[0]], device=pixels.device)
        beside = ((pixels < -reach) | (pixels > size + reach)).any(1) & (z > 2 * radius)
        behind = (z < -radius) | (z - radius > float(depth.max()) + self.truncation)
        return (~(beside | behind)).nonzero()[:, 0]

    def _blend(self, block: Tensor, voxel: Tensor, distance: Tensor, colour: Tensor, weight: float) -> None:
        old = self.weight[block, voxel]
        new = old + weight
        self.weight[block, voxel] = new
        self.distance[block, voxel] = (old * self.distance[block, voxel] + weight * distance.float()) / new
        self.colour[block, voxel] = (old[:, None] * self.colour[block, voxel] + weight * colour) / new[:, None]

    def extract_mesh(self, *, min_weight: float = 0.0) -> Mesh:
        """The zero level between voxels that were seen; nothing is closed where nobody looked.

        Args:
            min_weight: voxels must have been seen with more than this weight.

        Raises:
            UserError: there is no surface.
        """
        bricks = torch.unique(_keys(_blocks(self.keys).div(BRICK, rounding_mode='floor')))
        pieces = [piece for brick in _blocks(bricks) if (piece := self._extract(brick, min_weight)) is not None]
        if not pieces:
            raise UserError('the volume holds no surface: no frame with valid depth was integrated into it')
        vertices = np.concatenate([piece[0] for piece in pieces])
        starts = np.cumsum([0, *(len(piece[0]) for piece in pieces[:-1])])
        faces = np.concatenate([piece[1] + start for piece, start in zip(pieces, starts)])
        colours = np.concatenate([piece[2] for piece in pieces])
        first, index = _joined(vertices)
        faces = index[faces]
        faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
        return Mesh((vertices[first] * self.voxel_size).astype(np.float32), faces, colours[first])

    def _extract(self, brick: Tensor, min_weight: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Vertices in voxels, faces and colours of a piece of 64x64x64 cubes; None where it has no surface."""
        distance, weight, colour = self._assemble(brick)
        seen = seen_cubes(torch.where(weight > min_weight, weight, torch.zeros_like(weight)))
        values = distance.numpy()
        if not seen.any() or not values.min() < 0 < values.max():
            return None
        measure = require('skimage.measure', 'a mesh')
        try:
            vertices, faces, _, _ = measure.marching_cubes(values, level=0, mask=seen)
        except RuntimeError:  # scikit-image's answer where no seen cube crosses the level
            return None
        colours = _along_edges(colour.numpy(), vertices)
        return vertices.astype(np.float64) + (brick * BRICK * BLOCK).cpu().numpy(), faces.astype(np.int64), colours

    def _assemble(self, brick: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Dense distance, weight and colour of a piece and one layer beyond it."""
        axis = torch.arange(BRICK + 1, device=self.keys.device)
        wanted = _keys(torch.cartesian_prod(axis, axis, axis) + brick * BRICK)
        place = torch.searchsorted(self.keys, wanted).clamp(max=len(self) - 1)
        there = self.keys[place] == wanted
        side, shape = BRICK * BLOCK + 1, (BRICK + 1, ) * 3 + (BLOCK, ) * 3
        dense = []
        for values, missing in ((self.distance[..., None], 1.0), (self.weight[..., None], 0.0), (self.colour, 0.0)):
            blocks = torch.where(there[:, None, None], values[place], torch.full_like(values[:1], missing))
            grid = blocks.reshape(*shape, -1).permute(0, 3, 1, 4, 2, 5, 6).reshape(
                *((BRICK + 1) * BLOCK, ) * 3, values.shape[-1])
            dense.append(grid[:side, :side, :side].cpu())
        return dense[0][..., 0], dense[1][..., 0], dense[2]


def _along_edges(colour: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Colours (V, 3) uint8 between the two voxels of each vertex's edge, both of which were seen."""
    low = np.floor(vertices).astype(int)
    high = np.minimum(np.ceil(vertices).astype(int), np.array(colour.shape[:3]) - 1)
    share = (vertices - low).max(1, keepdims=True)
    mixed = (1 - share) * colour[tuple(low.T)] + share * colour[tuple(high.T)]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _joined(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First index (U, ) and number (V, ) of vertices (V, 3) that are the same across pieces.

    Two pieces see the same grid edge and put a vertex on it, up to rounding: the edge's lower end and its direction
    name the vertex.
    """
    snapped = np.rint(vertices)
    vertices = np.where(np.abs(vertices - snapped) < 1e-4, snapped, vertices)
    low = np.floor(vertices).astype(np.int64)
    inside = vertices > low
    names = np.concatenate((low, inside), 1)
    # vertices within a cube, which ambiguous cases have, stay apart
    odd = inside.sum(1) > 1
    names = np.concatenate((names, np.where(odd, np.arange(len(vertices)), -1)[:, None]), 1)
    _, first, index = np.unique(names, axis=0, return_index=True, return_inverse=True)
    return first, index.reshape(-1)


def fuse_frames(depth: Tensor, colour: Tensor, intrinsics_px: Tensor, poses_c2w: Tensor, *, voxel_size: float,
                truncation_voxels: float = TRUNCATION_VOXELS,
                report: Callable[[int, int], None] | None = None) -> SparseTSDF:
    """A volume of all frames.

    Args:
        depth: (F, H, W) z-depth, 0 where nothing was measured.
        colour: (F, H, W, 3) in 0..255.
        intrinsics_px: (3, 3).
        poses_c2w: (F, 4, 4).
        voxel_size: in world units.
        truncation_voxels: see `SparseTSDF`.
        report: called with the number of frames done and their total.
    """
    volume = SparseTSDF(voxel_size=voxel_size, truncation_voxels=truncation_voxels, device=depth.device)
    for values, pose in zip(depth, poses_c2w):
        volume.allocate(values, intrinsics_px, pose)
    for index in range(len(depth)):
        volume.integrate(depth[index], colour[index], intrinsics_px, poses_c2w[index])
        if report is not None:
            report(index + 1, len(depth))
    return volume
