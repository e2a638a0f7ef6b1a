"""Masked attention fades on schedule, and a hook that does not fit its model says so."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from frozenmm.engine.mask_annealing import MaskAnnealingHook, mask_probabilities


class Decoder(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.register_buffer('attn_mask_probs', torch.ones(blocks))


def runner(blocks, step=0):
    return SimpleNamespace(model=nn.Sequential(nn.Linear(1, 1), Decoder(blocks)), iter=step)


def test_probabilities_are_one_before_and_zero_after():
    found = torch.stack([mask_probabilities(step, [0, 10], [4, 20]) for step in (0, 2, 4, 10, 15, 20)])
    half = 0.5**0.9
    torch.testing.assert_close(found, torch.tensor([[1, 1], [half, 1], [0, 1], [0, 1], [0, half], [0, 0]]))


def test_the_buffer_follows_the_iteration():
    hook, training = MaskAnnealingHook([0, 10], [4, 20]), runner(2)
    hook.before_train(training)
    for step, expected in ((0, [1.0, 1.0]), (3, [0.25**0.9, 1.0]), (30, [0.0, 0.0])):
        training.iter = step
        hook.before_train_iter(training, step)
        assert training.model[1].attn_mask_probs.tolist() == pytest.approx(expected)


def test_errors():
    with pytest.raises(ValueError, match='every block needs a start and a later end'):
        MaskAnnealingHook([0, 5], [4, 5])
    with pytest.raises(ValueError, match='has steps for 1 blocks, but the decoder has 3'):
        MaskAnnealingHook([0], [4]).before_train(runner(3))
    with pytest.raises(ValueError, match='needs a model with a PlainMaskDecoder'):
        MaskAnnealingHook([0], [4]).before_train(SimpleNamespace(model=nn.Linear(1, 1), iter=0))
