"""Errors of camera paths after the best similarity (spec section 7)."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frozenmm.errors import UserError


@dataclass
class Similarity:
    """target ~ scale * rotation @ source + translation.

    Attributes:
        scale: scalar float64.
        rotation: (3, 3) float64.
        translation: (3, ) float64.
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """Points (N, 3) moved."""
        return self.scale * points.double() @ self.rotation.T + self.translation


def fit_similarity(source: Tensor, target: Tensor, *, with_scale: bool = True) -> Similarity:
    """Least-squares similarity from source to target points (N, 3), in closed form (Umeyama, PAMI 1991).

    Raises:
        ValueError: shapes differ or fewer than 2 points.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(f'points must be two sets of one shape (N, 3), got {tuple(source.shape)} and '
                         f'{tuple(target.shape)}')
    if len(source) < 2:
        raise ValueError(f'a similarity needs at least 2 points, got {len(source)}')
    source, target = source.double(), target.double()
    mean_source, mean_target = source.mean(0), target.mean(0)
    centred, wanted = source - mean_source, target - mean_target
    u, singular, vt = torch.linalg.svd(wanted.T @ centred / len(source))
    sign = torch.ones_like(singular)
    sign[2] = torch.linalg.det(u @ vt).sign()
    rotation = u @ torch.diag(sign) @ vt
    spread = centred.square().sum() / len(source)
    scale = (singular * sign).sum() / spread.clamp(min=1e-12) if with_scale else torch.ones_like(spread)
    return Similarity(scale, rotation, mean_target - scale * rotation @ mean_source)


def trajectory_errors(centres: Tensor, truth: Tensor, *, with_scale: bool = True) -> dict[str, float]:
    """Distances of camera centres (F, 3) to the truth after the best similarity: `ate_rmse`, `ate_mean`, `ate_max`.

    Raises:
        UserError: the true camera stands still; a scale of 0 would make every path right.
    """
    if with_scale and float((truth - truth.mean(0)).norm(dim=1).max()) <= 1e-9 * max(1.0, float(truth.abs().max())):
        raise UserError('the true camera does not move, so a path of unknown scale cannot be compared with it; take a '
                        'clip with motion, or compare depth only')
    distance = (fit_similarity(centres, truth, with_scale=with_scale)(centres) - truth.double()).norm(dim=1)
    return {'ate_rmse': float(distance.square().mean().sqrt()), 'ate_mean': float(distance.mean()),
            'ate_max': float(distance.max())}


def orthonormal(rotations: Tensor) -> Tensor:
    """The nearest rotations (..., 3, 3), because angles magnify rounding in recorded matrices."""
    u, _, vt = torch.linalg.svd(rotations.double())
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.linalg.det(u @ vt).sign()
    return u * sign[..., None, :] @ vt


def relative_errors(poses_c2w: Tensor, truth_c2w: Tensor, *, step: int = 1) -> dict[str, float]:
    """Errors of motions over `step` frames: `rpe_rotation_deg` (mean) and `rpe_translation` (RMSE, after the scale).

    Args:
        poses_c2w: (F, 4, 4).
        truth_c2w: (F, 4, 4).
        step: 1 compares neighbours.
    """
    if not 1 <= step < len(poses_c2w):
        raise ValueError(f'step must lie in 1..{len(poses_c2w) - 1} for {len(poses_c2w)} poses, got {step}')
    scale = fit_similarity(poses_c2w[:, :3, 3], truth_c2w[:, :3, 3]).scale
    moves = []
    for poses, factor in ((poses_c2w, scale), (truth_c2w, 1.0)):
        rotation, centre = orthonormal(poses[:, :3, :3]), poses[:, :3, 3].double() * factor
        offset = (rotation[:-step].mT @ (centre[step:] - centre[:-step])[..., None])[..., 0]
        moves.append((rotation[:-step].mT @ rotation[step:], offset))
    difference = moves[0][0].mT @ moves[1][0]
    axis = difference - difference.mT
    sine = torch.stack((axis[:, 2, 1], axis[:, 0, 2], axis[:, 1, 0]), 1).norm(dim=1) / 2
    cosine = (difference.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return {'rpe_rotation_deg': float(torch.rad2deg(torch.atan2(sine, cosine)).mean()),
            'rpe_translation': float((moves[0][1] - moves[1][1]).square().sum(1).mean().sqrt())}
