"""Rigid motions: three parametrisations by six numbers, chains and angles (spec section 1.3).

A motion vector is (tx, ty, tz, rx, ry, rz). Poses are world to camera; a new motion multiplies on the left.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SMALL_ANGLE = 1e-3


def skew(vectors: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of the cross product with (..., 3)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))


def rigid(rotations: Tensor, translations: Tensor) -> Tensor:
    """Homogeneous matrices (..., 4, 4) of rotations (..., 3, 3) and translations (..., 3)."""
    top = torch.cat((rotations, translations[..., None]), -1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat((top, bottom), -2)


def invert_rigid(motions: Tensor) -> Tensor:
    """Inverse (..., 4, 4) of rigid motions (..., 4, 4) by the transpose of the rotation."""
    rotation = motions[..., :3, :3].mT
    return rigid(rotation, -(rotation @ motions[..., :3, 3:])[..., 0])


def _coefficients(squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin(a)/a, (1-cos a)/a^2 and (a-sin a)/a^3 of squared angles; a series near 0 keeps the gradient finite."""
    small = squared < SMALL_ANGLE**2
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    third = torch.where(small, 1 / 6 - squared / 120, (angle - angle.sin()) / (safe * angle))
    return first[..., None, None], second[..., None, None], third[..., None, None]


def _quaternion(rotations: Tensor) -> Tensor:
    """Unit quaternions (..., 4) as (w, x, y, z): the best conditioned of the four closed forms for every matrix."""
    m = rotations.flatten(-2)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = m.unbind(-1)
    forms = torch.stack((
        torch.stack((1 + xx + yy + zz, zy - yz, xz - zx, yx - xy), -1),
        torch.stack((zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx), -1),
        torch.stack((xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy), -1),
        torch.stack((yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz), -1)), -2)
    best = forms.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = torch.take_along_dim(forms, best[..., None, None].expand(*best.shape, 1, 4), -2)[..., 0, :]
    return torch.nn.functional.normalize(chosen, dim=-1)


def se3_exp(vectors: Tensor) -> Tensor:
    """Motions (..., 4, 4) of vectors (..., 6) by the exponential of SE(3): (tau, phi) with t = V(phi) tau.

    >>> se3_exp(torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]))[:3, 3]
    tensor([1., 2., 3.])
    """
    tau, phi = vectors.split(3, -1)
    first, second, third = _coefficients(phi.square().sum(-1))
    matrix, eye = skew(phi), torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    squared = matrix @ matrix
    left = eye + second * matrix + third * squared
    return rigid(eye + first * matrix + second * squared, (left @ tau[..., None])[..., 0])


def euler_motion(vectors: Tensor) -> Tensor:
    """Motions (..., 4, 4) of vectors (..., 6) with R = Rx(rx) Ry(ry) Rz(rz) and the translation as it is."""
    translation, angles = vectors.split(3, -1)
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (cy * cz, -cy * sz, sy,
            cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy,
            sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy)
    return rigid(torch.stack(rows, -1).unflatten(-1, (3, 3)), translation)


def quaternion_rotation(quaternions: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of unit quaternions (..., 4) as (w, x, y, z)."""
    w, x, y, z = quaternions.unbind(-1)
    rows = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def rotation_quaternion(rotations: Tensor) -> Tensor:
    """Unit quaternions (..., 4) as (w, x, y, z), w >= 0, of rotations (..., 3, 3)."""
    quaternion = _quaternion(rotations)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_motion(vectors: Tensor) -> Tensor:
    """Motions (..., 4, 4) of vectors (..., 6) whose rotation is the quaternion (1, rx, ry, rz), normalised."""
    translation, axis = vectors.split(3, -1)
    quaternion = torch.nn.functional.normalize(torch.cat((torch.ones_like(axis[..., :1]), axis), -1), dim=-1)
    return rigid(quaternion_rotation(quaternion), translation)


MOTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'se3': se3_exp, 'euler': euler_motion, 'quaternion': quaternion_motion}


class _Chain(torch.autograd.Function):
    """Prefix product with its gradient as one suffix sum: autograd would walk back through every step."""

    @staticmethod
    def forward(ctx: Any, motions: Tensor) -> Tensor:
        poses = torch.cat((torch.eye(4, dtype=motions.dtype, device=motions.device)[None], motions))
        step = 1
        while step < len(poses):
            poses = torch.cat((poses[:step], poses[step:] @ poses[:-step]))
            step *= 2
        ctx.save_for_backward(poses)
        return poses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # T_j = (T_j T_k^-1) M_k T_(k-1), so dL/dM_k = T_k^-T (sum over j >= k of T_j^T dL/dT_j) T_(k-1)^T
        poses, = ctx.saved_tensors
        later = (poses.mT @ gradient).flip(0).cumsum(0).flip(0)
        return torch.linalg.inv(poses[1:]).mT @ later[1:] @ poses[:-1].mT


def chain(motions: Tensor) -> Tensor:
    """World-to-camera poses (F, 4, 4) of consecutive motions (F - 1, 4, 4); the first is the identity.

    A prefix product in log2(F) batched steps, because a loop over frames dominates an iteration on long videos.

    >>> steps = se3_exp(torch.tensor([[1.0, 0, 0, 0, 0, 0]] * 3))
    >>> chain(steps)[:, 0, 3]
    tensor([0., 1., 2., 3.])
    """
    return _Chain.apply(motions)


def relative_angles(poses_w2c: Tensor, *, compat: bool = False) -> Tensor:
    """Rotation angle (F, F) in radians between every two frames: entry [a, b] belongs to T_b T_a^-1.

    Args:
        poses_w2c: (F, 4, 4).
        compat: the arccosine of the trace, held below 1 - 1e-7 (so a frame is 4.5e-4 from itself). The default takes
            the angle from sine and cosine, exact for small rotations.
    """
    rotation = poses_w2c[:, :3, :3]
    relative = rotation[None] @ rotation[:, None].mT
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    if compat:
        return cosine.clamp(-1 + 1e-7, 1 - 1e-7).acos()
    axis = relative - relative.mT
    sine = torch.stack((axis[..., 2, 1], axis[..., 0, 2], axis[..., 1, 0]), -1).norm(dim=-1) / 2
    return torch.atan2(sine, cosine)
