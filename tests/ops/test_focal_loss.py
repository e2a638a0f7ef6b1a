"""Focal losses against their definitions, derivatives by autograd."""
from __future__ import annotations

import pytest
import torch
from mmcv.ops import softmax_focal_loss

from frozenmm.compat import mmcv_ext
from frozenmm.ops import focal_loss

pytestmark = pytest.mark.skipif(mmcv_ext.compiled_extension() is not None, reason='mmcv has compiled operators')


@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss_and_its_gradient_equal_the_definition(weighted, generator):
    logits = (4 * torch.randn(7, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 3, 0, 2])  # 3 is background
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64) if weighted else torch.empty(0)
    positive = torch.nn.functional.one_hot(target, 4)[:, :3].bool()
    p = logits.sigmoid()
    expected = torch.where(positive, -0.25 * (1 - p)**2 * p.log(), -0.75 * p**2 * (1 - p).log())
    if weighted:
        expected = expected * torch.tensor([0.5, 2.0, 3.0, 1.0], dtype=torch.float64)[target][:, None]
    wanted, = torch.autograd.grad(expected.sum(), logits)
    loss, grad = torch.empty(7, 3, dtype=torch.float64), torch.empty(7, 3, dtype=torch.float64)
    focal_loss.sigmoid_focal_loss_forward(logits.detach(), target, weight, loss, 2.0, 0.25)
    focal_loss.sigmoid_focal_loss_backward(logits.detach(), target, weight, grad, 2.0, 0.25)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize(('rows', 'classes'), [(1, 2), (2, 2), (2, 4), (50, 12)])  # the first three are mmcv's sizes
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_softmax_focal_loss_and_its_gradient_equal_the_definition(rows, classes, weighted, reduction, generator):
    logits = (3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)).requires_grad_()
    target = torch.randint(0, classes, (rows, ), generator=generator)
    weight = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.5 if weighted else None
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    expected = -0.25 * (1 - p)**2 * p.log() * (1 if weight is None else weight[target])
    expected = expected if reduction == 'none' else getattr(expected, reduction)()
    found = softmax_focal_loss(logits, target, 2.0, 0.25, weight, reduction)
    torch.testing.assert_close(found, expected)
    if reduction != 'none':  # mmcv multiplies (N, K) by the incoming (N,)
        torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


def test_rows_without_a_target_and_certain_rows_have_no_loss():
    logits = torch.tensor([[1.0, 2.0], [200.0, 0.0]], requires_grad=True)
    loss = softmax_focal_loss(logits, torch.tensor([-1, 0]), 0.5, 0.25, None, 'sum')
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].tolist() == [[0, 0], [0, 0]]
