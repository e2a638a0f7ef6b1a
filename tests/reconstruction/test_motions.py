from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from frozenmm.reconstruction.motions import (
    MOTIONS,
    chain,
    euler_motion,
    invert_rigid,
    quaternion_rotation,
    relative_angles,
    rotation_quaternion,
    se3_exp,
)

NUMBERS = st.floats(-1.7, 1.7, allow_nan=False)


@given(st.lists(NUMBERS, min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_se3_exp_equals_the_matrix_exponential(numbers):
    x, y, z, a, b, c = numbers
    generator = torch.tensor([[0, -c, b, x], [c, 0, -a, y], [-b, a, 0, z], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(se3_exp(torch.tensor(numbers, dtype=torch.float64)), torch.matrix_exp(generator))


@pytest.mark.parametrize('name', sorted(MOTIONS))
def test_motions_have_correct_gradients_also_at_zero(name, generator):
    vectors = torch.cat((torch.zeros(1, 6, dtype=torch.float64),
                         torch.randn(2, 6, dtype=torch.float64, generator=generator))).requires_grad_()
    assert gradcheck(MOTIONS[name], (vectors, ))


def test_a_chain_is_the_product_of_motions_from_the_left(generator):
    motions = euler_motion(torch.randn(6, 6, dtype=torch.float64, generator=generator))
    expected = torch.eye(4, dtype=torch.float64)
    for index, pose in enumerate(chain(motions)):
        torch.testing.assert_close(pose, expected)
        if index < len(motions):
            expected = motions[index] @ expected


def test_inverse_and_quaternions_come_back(generator):
    poses = se3_exp(torch.randn(5, 6, dtype=torch.float64, generator=generator))
    torch.testing.assert_close(invert_rigid(poses) @ poses, torch.eye(4, dtype=torch.float64).expand(5, 4, 4))
    rotations = poses[:, :3, :3]
    torch.testing.assert_close(quaternion_rotation(rotation_quaternion(rotations)), rotations)


def test_small_angles_are_exact_by_default_and_clamped_in_compat():
    poses = se3_exp(torch.tensor([[0.0] * 6, [0, 0, 0, 1e-5, 0, 0]], dtype=torch.float64))
    assert abs(float(relative_angles(poses)[0, 1]) - 1e-5) < 1e-12
    assert float(relative_angles(poses)[0, 0]) == 0
    assert abs(float(relative_angles(poses, compat=True)[0, 0]) - math.acos(1 - 1e-7)) < 1e-9
