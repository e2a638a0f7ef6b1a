"""The cap's size, its loss against the formula, and distributions whose deviation is known."""
from __future__ import annotations

import math

import pytest
import torch

from frozenmm.foundation.uncertainty_cap import GeneralisedGaussianLoss, UncertaintyCap, deviation


def test_the_official_size_and_shapes(generator):
    cap = UncertaintyCap(1)
    assert sum(parameter.numel() for parameter in cap.parameters()) == 2_568_920
    small = UncertaintyCap(3, channels=4, num_blocks=1, kernel=3).eval()
    mean, inverse, shape = small(torch.randn(2, 3, 9, 7, generator=generator))
    assert mean.shape == (2, 3, 9, 7) and inverse.shape == shape.shape == (2, 1, 9, 7)
    assert inverse.min() > 0 and shape.min() > 0


@pytest.mark.parametrize('residual', ['power', 'product'])
def test_loss_and_gradients_are_those_of_the_formula(generator, residual):
    parts = [torch.rand(1, 1, 3, 4, generator=generator).add(0.3).requires_grad_() for _ in range(3)]
    values, truth = (torch.rand(1, 1, 3, 4, generator=generator) for _ in range(2))
    known = torch.rand(1, 1, 3, 4, generator=generator) > 0.3
    loss = GeneralisedGaussianLoss(residual=residual)(tuple(parts), values, truth, known)
    expected = 0
    for i, j in known[0, 0].nonzero().tolist():
        mean, a, b = (part[0, 0, i, j] for part in parts)
        a, b = a + 1e-5, b + 1e-2
        error = (mean - truth[0, 0, i, j]).abs()
        r = (error * a) ** b if residual == 'power' else error * a * b
        fit = r - a.log() + torch.lgamma(1 / b) - b.log()
        expected = expected + (mean - values[0, 0, i, j]).abs() + 0.05 * fit
    expected = expected / known.sum()
    torch.testing.assert_close(sum(loss.values()), expected)
    for one, other in zip(torch.autograd.grad(sum(loss.values()), parts), torch.autograd.grad(expected, parts)):
        torch.testing.assert_close(one, other)
        assert torch.equal(one[~known], torch.zeros_like(one[~known]))


@pytest.mark.parametrize(('shape', 'expected'), [(2.0, math.sqrt(0.5)), (1.0, math.sqrt(2.0))])
def test_deviation_of_a_gaussian_and_of_a_laplacian(shape, expected):
    """alpha is sqrt(2) sigma of a Gaussian, and the scale of a Laplacian."""
    assert deviation(torch.tensor(3.0), torch.tensor(shape)).item() == pytest.approx(3 * expected, rel=1e-5)


def test_deviation_stays_finite_where_the_official_quotient_is_nan():
    shape = torch.tensor([1e-3, 0.01, 0.1, 50.0])
    assert torch.isfinite(deviation(torch.ones(4), shape)).all()
    official = (torch.lgamma(3 / (shape + 1e-2)).exp() / torch.lgamma(1 / (shape + 1e-2)).exp())
    assert not torch.isfinite(official[:2]).any()


def test_the_loss_finds_the_scale_of_known_noise(generator):
    truth = torch.zeros(1, 1, 64, 64)
    values = truth + torch.randn(truth.shape, generator=generator) * 0.3
    raw = [torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)]
    optimizer, loss = torch.optim.Adam(raw, 0.05), GeneralisedGaussianLoss()
    for _ in range(300):
        optimizer.zero_grad()
        inverse, shape = (torch.nn.functional.softplus(value).expand(1, 1, 64, 64) for value in raw)
        loss((values, inverse, shape), values, truth)['loss_fit'].backward()
        optimizer.step()
    alpha, beta = loss.scale_and_shape(*(torch.nn.functional.softplus(value.detach()) for value in raw))
    assert deviation(alpha, beta).item() == pytest.approx(0.3, rel=0.05) and beta.item() == pytest.approx(2, rel=0.1)


def test_an_even_kernel_and_unknown_choices_are_refused():
    with pytest.raises(ValueError, match='kernel must be odd, got 4'):
        UncertaintyCap(kernel=4)
    with pytest.raises(ValueError, match="residual must be one of .*got 'sum'"):
        GeneralisedGaussianLoss(residual='sum')
