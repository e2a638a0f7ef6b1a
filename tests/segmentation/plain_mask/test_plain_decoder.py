"""The plain mask decoder: taps, padding, masked attention and its options."""
from __future__ import annotations

import pytest
import torch

from frozenmm.foundation.image_towers.dinov3_vit import grid_rope, rotate
from frozenmm.segmentation.mask2former.criterion import MaskTargets, SetCriterion
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.plain_mask.decoder import PlainMaskDecoder
from frozenmm.segmentation.plain_mask.fusion import FusionOptions, TapFusion, TapNorm

GRID, PREFIX, WIDTH = (3, 4), 2, 24


def decoder(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PlainMaskDecoder([WIDTH, WIDTH], **{**dict(num_heads=2, num_queries=5, num_blocks=3), **options})


@pytest.fixture
def taps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, PREFIX + 12, WIDTH, generator=generator) for _ in range(2)]


def test_evaluation_has_one_prediction_and_training_one_before_every_block_and_one_more(taps):
    model = decoder()
    assert len(model.eval()(taps, GRID)) == 1
    found = model.train()(taps, GRID)
    assert len(found) == 4
    assert found[0].mask_logits.shape == (2, 5, 12, 16) and found[0].embeddings.shape == (2, 5, WIDTH)
    assert len(decoder(masked_attention=False).train()(taps, GRID)) == 1


@pytest.mark.parametrize(('stride', 'upscaled'), [(16, 4), (14, 2), (8, 2), (32, 8)])
def test_masks_have_a_stride_of_about_four(taps, stride, upscaled):
    shape = decoder(stride=stride).eval()(taps, GRID)[0].mask_logits.shape
    assert shape == (2, 5, 3 * upscaled, 4 * upscaled)


def test_queries_look_only_at_patches_of_their_mask_with_the_given_probability(taps):
    model = decoder().train()
    model.fusion.eval()
    free = decoder().train()
    free.fusion.eval()
    free.attn_mask_probs.zero_()
    assert not torch.allclose(model(taps, GRID)[-1].mask_logits, free(taps, GRID)[-1].mask_logits)
    last = free.eval()(taps, GRID)[0]
    free.train()
    free.fusion.eval()
    torch.testing.assert_close(free(taps, GRID)[-1].mask_logits, last.mask_logits)
    seen = []
    model.blocks[0].register_forward_hook(lambda module, arguments, result: seen.append(arguments[2]))
    model(taps, GRID)
    rows = seen[0]
    assert rows[..., :5 + PREFIX].all() and not rows[..., 5 + PREFIX:].all()
    masks = model.predictions(taps, GRID)[0].mask_logits.resized(GRID).flatten(2) > 0
    assert torch.equal(rows[..., 5 + PREFIX:], masks)
    model.attn_mask_probs.fill_(0.5)
    torch.manual_seed(0)
    shares = []
    for _ in range(40):
        model(taps, GRID)
        shares.append((seen[-1][..., 5 + PREFIX:] & masks == seen[-1][..., 5 + PREFIX:]).all(-1).float())
    assert 0.3 < torch.stack(shares).mean() < 0.7


def test_padding_changes_nothing_in_the_image(taps):
    model = decoder().train()
    padding = Padding([(48, 48), (48, 64)], (48, 64), torch.device('cpu'))
    other = [tap.clone() for tap in taps]
    for tap in other:
        tap[0].view(-1, WIDTH)[PREFIX:].view(3, 4, WIDTH)[:, 3] = 50.0
    for mode in True, False:
        one = model.train(mode).predictions(taps, GRID, padding=padding)[-1]
        two = model.predictions(other, GRID, padding=padding)[-1]
        torch.testing.assert_close(one.embeddings, two.embeddings)
        assert not torch.allclose(model.predictions(other, GRID)[-1].embeddings, two.embeddings)


def test_batch_statistics_are_those_of_valid_tokens():
    generator = torch.Generator().manual_seed(0)
    tokens, valid = torch.randn(2, 9, 4, generator=generator) * 3 + 1, torch.ones(2, 9, dtype=torch.bool)
    ours, theirs = TapNorm(4), torch.nn.BatchNorm1d(4)
    torch.testing.assert_close(ours(tokens), theirs(tokens.transpose(1, 2)).transpose(1, 2))
    valid[1, 5:] = False
    expected = torch.nn.BatchNorm1d(4)
    expected(tokens[valid])
    ours = TapNorm(4)
    normed = ours(tokens, valid)
    torch.testing.assert_close(ours.running_mean, expected.running_mean)
    torch.testing.assert_close(ours.running_var, expected.running_var)
    torch.testing.assert_close(normed[valid].mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.eval()(tokens), expected.eval()(tokens.flatten(0, 1)).view_as(tokens))


def test_taps_of_other_widths_are_projected():
    fusion = TapFusion([8, 24], 24, FusionOptions(lateral='none', residual=False, batch_norm=False))
    taps = [torch.randn(1, 6, 8), torch.randn(1, 6, 24)]
    torch.testing.assert_close(fusion(taps), fusion.inputs[0](taps[0]) + taps[1])


def test_rope_moves_only_the_patches_and_depends_on_their_distance():
    rope = grid_rope((2, 5), 12)
    x = torch.randn(1, 2, 13, 12)
    moved = rotate(x, rope)
    assert torch.equal(moved[..., :3, :], x[..., :3, :])
    torch.testing.assert_close(moved.norm(dim=-1), x.norm(dim=-1))
    same = rotate(torch.ones(1, 1, 10, 12), rope)[0, 0].view(2, 5, 12)
    products = (same[:, :-1] * same[:, 1:]).sum(-1)
    torch.testing.assert_close(products, products[0, 0].expand(2, 4))


def test_losses_of_factors_are_those_of_dense_masks(taps):
    predictions = decoder().train().predictions(taps, GRID)
    targets = [MaskTargets(torch.tensor([0, 2]), torch.rand(2, 48, 64) > 0.5),
               MaskTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 48, 64, dtype=torch.bool))]
    logits = [torch.randn(2, 5, 4) for _ in predictions]
    criterion, found = SetCriterion(num_points=50), []
    for masks in ([p.mask_logits for p in predictions], [p.mask_logits.dense() for p in predictions]):
        torch.manual_seed(3)
        found.append(criterion(logits, masks, targets))
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-4, atol=1e-5)
    sum(found[0].values()).backward()


def test_queries_stand_for_classes_when_asked(taps):
    prediction = decoder(num_queries=5).train().predictions(taps, GRID)[-1]
    targets = [MaskTargets(torch.tensor([2, 0]), torch.rand(2, 48, 64) > 0.5),
               MaskTargets(torch.tensor([1]), torch.rand(1, 48, 64) > 0.5)]
    criterion, logits = SetCriterion(num_points=50, matching='class'), torch.randn(2, 5, 4)
    pairs = criterion.matcher(logits, prediction.mask_logits, [t.labels for t in targets], [t.masks for t in targets],
                              torch.rand(2, 50, 2))
    assert [[part.tolist() for part in pair] for pair in pairs] == [[[0, 2], [1, 0]], [[1], [0]]]
    assert torch.isfinite(sum(criterion([logits], [prediction.mask_logits], targets).values()))
    with pytest.raises(ValueError, match='at most one segment per class'):
        criterion([logits], [prediction.mask_logits], [MaskTargets(torch.tensor([1, 1]), targets[0].masks), targets[1]])
    with pytest.raises(ValueError, match='needs a query for each of the 8 classes; the decoder has num_queries=5'):
        criterion([torch.randn(2, 5, 9)], [prediction.mask_logits], targets)
    with pytest.raises(ValueError, match="matching must be one of .*'hungarian'"):
        SetCriterion(matching='greedy')


def test_recomputing_activations_changes_no_gradient(taps):
    gradients = []
    for with_cp in False, True:
        model = decoder(with_cp=with_cp).train()
        sum(p.mask_logits.dense().square().mean() + p.embeddings.mean()
            for p in model.predictions(taps, GRID)).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_grid_augmentation_acts_in_training_alone(taps):
    plain, augmented = decoder().eval(), decoder(rope_rescale=2.0).eval()
    torch.testing.assert_close(plain(taps, GRID)[0].embeddings, augmented(taps, GRID)[0].embeddings, rtol=0, atol=0)
    augmented.train()
    augmented.fusion.eval()
    augmented.attn_mask_probs.zero_()
    first, second = (augmented(taps, GRID)[-1].embeddings for _ in range(2))
    assert not torch.allclose(first, second)


def test_a_checkpoint_carries_its_numerics():
    model = decoder(compat=False)
    model.load_state_dict(decoder(compat=True).state_dict())
    assert model.compat


def test_errors():
    with pytest.raises(ValueError, match='num_heads=5 must divide the 24 channels into heads'):
        decoder(num_heads=5)
    with pytest.raises(ValueError, match='rope_rescale is the largest factor'):
        decoder(rope_rescale=0.5)
    with pytest.raises(ValueError, match="lateral must be one of .*'mlp'"):
        decoder(fusion=dict(lateral='cubic'))
    with pytest.raises(ValueError, match="FusionOptions has no option 'residul'"):
        decoder(fusion=dict(residul=True))
