"""The teacher's loss against its formula, and what an adapter's neck hands on."""
from __future__ import annotations

import math

import pytest
import torch

from frozenmm.foundation.residual_teacher import ResidualTeacher, TaughtAdapter


def restated(student, teacher, parts):
    """2 (1 - cos(z + 0.1 W2 GELU(W1 z), t)), vector by vector, from sums."""
    total = 0
    for z, t in zip(student, teacher):
        inner = parts.first.weight @ z + parts.first.bias
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        taught = z + 0.1 * (parts.second.weight @ inner + parts.second.bias)
        total = total + 2 * (1 - (taught * t).sum() / (taught.square().sum() * t.square().sum()).sqrt())
    return total / len(student)


def test_loss_and_gradients_are_those_of_the_formula(generator):
    teacher = ResidualTeacher(6, hidden=5)
    torch.nn.init.normal_(teacher.branch.second.weight, generator=generator)
    student = torch.randn(7, 6, generator=generator, requires_grad=True)
    frozen = torch.randn(7, 6, generator=generator, requires_grad=True)
    wanted = [student, *teacher.parameters()]
    found = torch.autograd.grad(teacher.distance(student, frozen), wanted)
    expected = torch.autograd.grad(restated(student, frozen.detach(), teacher.branch), wanted)
    torch.testing.assert_close(teacher.distance(student, frozen), restated(student, frozen, teacher.branch))
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other)
    teacher.distance(student, frozen).backward()
    assert frozen.grad is None  # the teacher stays what it is


def test_it_starts_at_no_distance_and_pulls_an_adapter_back(generator):
    adapter, teacher = TaughtAdapter([3, 8], hidden=4), ResidualTeacher(8, student=1)
    maps = [torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 8, 2, 2, generator=generator)]
    first, adapted, frozen = adapter(maps)
    assert torch.equal(first, maps[0]) and torch.equal(adapted, maps[1]) and frozen is maps[1]
    assert teacher.loss((first, adapted, frozen))['loss_teacher'] < 1e-6
    torch.nn.init.normal_(adapter.branch.second.weight, generator=generator)
    optimizer = torch.optim.Adam(adapter.parameters(), 0.05)
    before = teacher.loss(adapter(maps))['loss_teacher']
    for _ in range(30):
        optimizer.zero_grad()
        teacher.loss(adapter(maps))['loss_teacher'].backward()
        optimizer.step()
    assert teacher.loss(adapter(maps))['loss_teacher'] < 0.3 * before


def test_maps_of_different_shapes_and_places_are_refused():
    with pytest.raises(ValueError, match=r'map 0 has the shape \(1, 3, 2, 2\) and its teacher, map -1, \(1, 8, 2, 2\)'):
        ResidualTeacher(8).loss([torch.ones(1, 3, 2, 2), torch.ones(1, 8, 2, 2)])
    with pytest.raises(ValueError, match='adapt must be the place of one of the 2 maps, got 2'):
        TaughtAdapter([3, 8], adapt=2)
