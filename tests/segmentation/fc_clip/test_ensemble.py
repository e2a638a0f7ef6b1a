"""Text logits, the geometric ensemble and the frozen heads."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from frozenmm.foundation.image_towers.clip_resnet import AttentionPool
from frozenmm.segmentation.fc_clip.ensemble import geometric_ensemble, with_void
from frozenmm.segmentation.fc_clip.text_classifier import synonym_index, text_logits
from frozenmm.segmentation.fc_clip.visual_head import mask_embeddings

SEEN = torch.tensor([True, False, True])


def logits(generator, scale=3.0):
    return (scale * torch.randn(2, 5, 4, generator=generator), scale * torch.randn(2, 5, 3, generator=generator))


def test_the_best_synonym_counts_and_void_is_last(generator):
    text, void = F.normalize(torch.randn(4, 6, generator=generator), dim=-1), torch.randn(1, 6, generator=generator)
    embeddings = torch.randn(2, 3, 6, generator=generator)
    counts = torch.tensor([1, 2, 1])
    scale = torch.tensor(1.5)
    got = text_logits(embeddings, text, synonym_index(counts), 3, scale, void=void)
    cosines = math.exp(1.5) * F.normalize(embeddings, dim=-1) @ torch.cat([text, F.normalize(void, dim=-1)]).T
    expected = torch.stack([cosines[..., 0], cosines[..., 1:3].amax(-1), cosines[..., 3], cosines[..., 4]], -1)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(text_logits(embeddings, text, synonym_index(counts), 3, scale), expected[..., :3])


def test_the_temperature_is_bounded_after_its_exponential():
    embeddings, text = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert text_logits(embeddings, text, torch.tensor([0]), 1, torch.tensor(9.0)).item() == pytest.approx(100)


def test_gradients_reach_only_the_best_synonym(generator):
    text = F.normalize(torch.randn(2, 6, generator=generator), dim=-1).requires_grad_()
    embeddings = torch.randn(1, 6, generator=generator)
    text_logits(embeddings, text, torch.tensor([0, 0]), 1, torch.tensor(0.0)).sum().backward()
    assert (text.grad.abs().sum(1) > 0).sum() == 1


def test_default_equals_the_official_arithmetic_where_that_is_finite(generator):
    trained, frozen = logits(generator)
    ours = geometric_ensemble(trained, frozen, SEEN)
    official = geometric_ensemble(trained, frozen, SEEN, compat=True)
    torch.testing.assert_close(ours, official, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.exp().sum(-1), torch.ones(2, 5), atol=1e-5, rtol=1e-5)


def test_probabilities_that_underflow_stay_finite_by_default_only():
    trained, frozen = torch.tensor([[[0.0, 300.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 300.0, 0.0]]])
    assert geometric_ensemble(trained, frozen, SEEN, compat=True).isnan().any()
    ours = geometric_ensemble(trained, frozen, SEEN)
    assert ours.isfinite().all() and ours.argmax() == 1


@pytest.mark.parametrize('compat', [False, True])
def test_queries_without_mask_get_the_trained_probabilities(generator, compat):
    trained, frozen = logits(generator)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[0, 1] = False
    mixed = geometric_ensemble(trained, frozen, SEEN, valid=valid, compat=compat)
    plain = trained.softmax(-1)
    void = plain[0, 1, 3:]
    expected = torch.cat([trained[0, 1, :3].softmax(-1) * (1 - void), void])
    torch.testing.assert_close(mixed[0, 1].exp(), expected, atol=1e-5, rtol=1e-4)
    full = geometric_ensemble(trained, frozen, SEEN, compat=compat)
    torch.testing.assert_close(mixed[1], full[1])


def test_invalid_frozen_logits_do_not_spread(generator):
    trained, frozen = logits(generator)
    frozen[0, 1] = torch.nan
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[0, 1] = False
    assert geometric_ensemble(trained, frozen, SEEN, valid=valid).isfinite().all()


@pytest.mark.parametrize('seen, share', [(torch.ones(3).bool(), 0.4), (torch.zeros(3).bool(), 0.8)],
                         ids=['all seen', 'none seen'])
def test_one_kind_of_classes_alone_works(generator, seen, share):
    trained, frozen = logits(generator)
    mixed = geometric_ensemble(trained, frozen, seen)
    expected = ((1 - share) * trained[..., :3].log_softmax(-1) + share * frozen.log_softmax(-1)).softmax(-1)
    expected = expected * (1 - trained.softmax(-1)[..., 3:])
    torch.testing.assert_close(mixed[..., :3].exp(), expected, atol=1e-5, rtol=1e-4)


def test_a_mask_of_everything_attends_to_every_cell(generator):
    torch.manual_seed(0)
    network = nn.Module()
    network.attnpool = AttentionPool(3, 16, 4, 10)
    dense = torch.randn(1, 16, 4, 5, generator=generator)
    masks = torch.ones(1, 2, 8, 10)
    masks[:, 1] = -1
    whole, empty = mask_embeddings(network, dense, masks)[0]
    reference = mask_embeddings(network, dense, torch.ones(1, 1, 4, 5))[0, 0]
    torch.testing.assert_close(whole, reference)
    assert empty.isfinite().all()


def test_networks_without_a_head_for_masks_are_refused():
    with pytest.raises(TypeError, match='Identity has neither an attention pool nor a projection of pooled features'):
        mask_embeddings(nn.Identity(), torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))


def test_sharper_classes_win_from_void_without_changing_their_order(generator):
    trained, frozen = torch.zeros(1, 1, 4), torch.tensor([[[0.6, 0.3, 0.0]]])
    trained[..., 3] = 0.4
    flat = geometric_ensemble(trained, frozen, SEEN)
    sharp = geometric_ensemble(trained, frozen, SEEN, sharpness=6.0)
    assert flat.argmax() == 3 and sharp.argmax() == 0
    torch.testing.assert_close(sharp.exp()[..., 3], flat.exp()[..., 3])  # void is the trained branch's in both
    torch.testing.assert_close(sharp.exp().sum(-1), torch.ones(1, 1), atol=1e-5, rtol=1e-5)
    trained, frozen = logits(generator)
    orders = [geometric_ensemble(trained, frozen, SEEN, sharpness=value)[..., :3].argsort(-1) for value in (1.0, 2.5)]
    assert torch.equal(*orders)


def test_sharpness_is_a_power_of_the_class_probabilities(generator):
    trained, frozen = logits(generator)
    got = with_void(frozen, trained, sharpness=3.0).exp()
    powers = frozen.softmax(-1)**3
    expected = powers / powers.sum(-1, keepdim=True) * (1 - trained.softmax(-1)[..., 3:])
    torch.testing.assert_close(got[..., :3], expected, atol=1e-6, rtol=1e-4)


def test_sharpness_leaves_the_probabilities_alone_by_default_and_squares_them_at_two(generator):
    trained, frozen = logits(generator)
    void = trained.softmax(-1)[..., -1:]
    for options, power in ({}, 1), (dict(sharpness=2.0), 2):
        classes = frozen.softmax(-1)**power
        expected = torch.cat([(1 - void) * classes / classes.sum(-1, keepdim=True), void], -1)
        torch.testing.assert_close(with_void(frozen, trained, **options).exp(), expected, atol=1e-6, rtol=1e-4)
