"""SAM's features in the mask generator."""
from __future__ import annotations

import pytest
import torch

from frozenmm.errors import UserError
from frozenmm.segmentation.frozen_seg.flat_attention import FlatDeformableAttention
from frozenmm.segmentation.frozen_seg.generator import InjectedMaskGenerator
from frozenmm.segmentation.frozen_seg.injectors import InjectedDecoder
from frozenmm.segmentation.frozen_seg.sam_branch import SAMBranch
from frozenmm.segmentation.frozen_seg.sam_input import SAM_STATS, normalise_and_pad, stretch
from frozenmm.structures import ImageStats


def decoder(**options):
    torch.manual_seed(0)
    return InjectedDecoder(**dict(dict(in_channels=16, channels=16, mask_channels=16, num_queries=6, num_layers=4,
                                       num_heads=4, feedforward_channels=16), **options)).eval()


def inputs(generator, count=1):
    levels = [torch.randn(count, 16, 3 * 2**i, 4 * 2**i, generator=generator) for i in range(3)]
    return (levels, torch.randn(count, 16, 24, 32, generator=generator),
            torch.randn(count, 16, 5, 5, generator=generator), torch.randn(count, 16, 10, 10, generator=generator))


def branch(**options):
    torch.manual_seed(0)
    sizes = dict(channels=32, num_layers=1, num_heads=4, feedforward_channels=16)
    return SAMBranch(32, **dict(sizes, **options)).eval()


@pytest.mark.parametrize('layers, changes', [(3, False), (4, True)])
def test_the_injection_after_the_last_layer_has_no_effect(generator, layers, changes):
    module = decoder(num_layers=layers)
    levels, features, sam_map, embedding = inputs(generator)
    first = module(levels, features, sam_map, embedding)[-1].mask_logits
    second = module(levels, features, sam_map, embedding + 1)[-1].mask_logits
    assert torch.equal(first, second) is not changes


def test_the_feature_injectors_matter(generator):
    module = decoder()
    levels, features, sam_map, embedding = inputs(generator)
    first = module(levels, features, sam_map, embedding)[-1].mask_logits
    assert (first - module(levels, features, sam_map * 2, embedding)[-1].mask_logits).abs().max() > 1e-3


def test_the_test_path_gives_the_last_layer_of_the_training_path(generator):
    module, given = decoder(num_layers=7), inputs(generator, 2)
    every, last = module(*given, all_layers=True)[-1], module(*given, all_layers=False)[-1]
    torch.testing.assert_close(last.mask_logits, every.mask_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last.embeddings, every.embeddings, atol=1e-4, rtol=1e-4)


def test_recomputed_activations_give_the_same_gradients_with_injections(generator):
    maps = [torch.randn(2, 8, 48 // 2**level, 64 // 2**level, generator=generator) for level in range(4)]
    embedding, gradients = torch.randn(2, 32, 10, 10, generator=generator), []
    layers = dict(num_layers=4, num_heads=4, feedforward_channels=16)
    for with_cp in (False, True):
        torch.manual_seed(0)
        module = InjectedMaskGenerator(
            [8] * 4, 32, pixel_decoder=dict(layers, channels=32, mask_channels=32, with_cp=with_cp),
            sam_branch=dict(layers, channels=32, with_cp=with_cp),
            decoder=dict(layers, in_channels=32, channels=32, mask_channels=32, num_queries=6, with_cp=with_cp)).train()
        (module(maps, embedding)[-1].mask_logits**2).sum().backward()
        gradients.append({name: value.grad for name, value in module.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(name.startswith('decoder.feature_injectors') for name in gradients[0])
    assert any(name.startswith('sam_branch.encoder') for name in gradients[0])
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain)


def test_the_map_of_sam_is_resized_at_test_time_only(generator):
    module, sam_map = decoder(), inputs(generator)[2]
    assert module.sam_memory(sam_map, (3, 4)).size == (3, 4)
    assert module.train().sam_memory(sam_map, (3, 4)).size == (5, 5)


def test_an_embedding_of_another_width_is_refused(generator):
    levels, features, sam_map, _ = inputs(generator)
    with pytest.raises(ValueError, match="SAM's embedding has 8 channels and the mask features 16"):
        decoder()(levels, features, sam_map, torch.zeros(1, 8, 10, 10))


def test_impossible_residues_are_refused():
    with pytest.raises(ValueError, match='query_residue must be 0, 1 or 2, got 3'):
        decoder(query_residue=3)


def test_flat_attention_reads_the_gapless_memory(generator):
    torch.manual_seed(0)
    module = FlatDeformableAttention(8, 2, 3, 4, dropout=0.0, batch_first=True)
    torch.nn.init.normal_(module.sampling_offsets.weight)
    torch.nn.init.normal_(module.attention_weights.weight)
    query = torch.randn(2, 6, 8, generator=generator)
    shapes, points = torch.tensor([[2, 3]]), torch.rand(2, 6, 1, 2, generator=generator)
    together = module(query, reference_points=points, spatial_shapes=shapes)
    alone = module(query[1:], reference_points=points[1:], spatial_shapes=shapes)
    # the second image of a batch reads what belongs to the first: the official kernel mixes images
    assert (together[1] - alone[0]).abs().max() > 1e-3


@pytest.mark.parametrize('change', [dict(spatial_shapes=torch.tensor([[2, 3], [1, 1]])), dict(reference_points=None)])
def test_flat_attention_takes_one_map(generator, change):
    module = FlatDeformableAttention(8, 2, 3, 4, dropout=0.0, batch_first=True)
    arguments = dict(dict(spatial_shapes=torch.tensor([[2, 3]]), reference_points=torch.rand(1, 6, 1, 2)), **change)
    with pytest.raises(ValueError, match='flat deformable attention takes one map'):
        module(torch.randn(1, 6, 8, generator=generator), **arguments)


def test_a_batch_does_not_mix_images_with_a_single_level(generator):
    embedding, module = torch.randn(2, 32, 8, 8, generator=generator), branch()
    torch.testing.assert_close(module(embedding)[1:], module(embedding[1:]))


def test_a_checkpoint_of_the_other_arithmetic_is_refused():
    state = branch(compat=True).state_dict()
    with pytest.raises(UserError, match='trained with compat=True, but this model has compat=False'):
        branch().load_state_dict(state)
    with pytest.raises(UserError, match='set mask_generator.sam_branch.compat=False'):
        branch(compat=True).load_state_dict(branch().state_dict())


@pytest.mark.parametrize(('old', 'new'), [('official_flat', True), ('single', False)])
def test_the_old_name_of_the_arithmetic_works(old, new):
    with pytest.warns(FutureWarning, match=f"level_mode='{old}' is now called compat={new}"):
        assert branch(level_mode=old).compat is new


def test_an_arithmetic_that_does_not_exist_is_refused():
    with pytest.warns(FutureWarning), pytest.raises(UserError, match="True .*or False, got 'flat'"):
        branch(level_mode='flat')


def test_the_branch_computes_in_float32_under_autocast(generator):
    module, embedding = branch(), torch.randn(1, 32, 8, 8, generator=generator)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(module(embedding), branch()(embedding)) and module(embedding).dtype == torch.float32


def test_sam_sees_its_own_normalisation_whatever_the_pipeline_did(generator):
    pixels = torch.randint(0, 256, (1, 3, 20, 30), generator=generator).float()
    stats = ImageStats((10.0, 20.0, 30.0), (2.0, 3.0, 4.0), 'bgr')
    mean, std = stats.tensors(pixels)
    bgr = (pixels.flip(1) - mean) / std
    from_bgr = normalise_and_pad(bgr, [(20, 25)], stats)
    from_raw = normalise_and_pad(pixels, [(20, 25)], ImageStats())
    torch.testing.assert_close(from_bgr, from_raw, atol=1e-5, rtol=1e-5)
    assert from_raw.shape == (1, 3, 32, 32) and not from_raw[..., 25:].any() and not from_raw[..., 20:, :].any()
    torch.testing.assert_close(from_raw[0, 0, 0, 0], (pixels[0, 0, 0, 0] - SAM_STATS.mean[0]) / SAM_STATS.std[0])
    assert stretch(from_raw, (32, 32)) is from_raw and stretch(from_raw, (48, 48)).shape[-2:] == (48, 48)
