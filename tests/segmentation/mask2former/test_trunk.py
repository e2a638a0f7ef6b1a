"""Pixel decoder and masked-attention decoder."""
from __future__ import annotations

import pytest
import torch
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import nn

from frozenmm.segmentation.mask2former.decoder import MaskedAttentionDecoder, MaskMaker, attend
from frozenmm.segmentation.mask2former.generator import MaskGenerator
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.mask2former.pixel_decoder import PixelDecoder, encoder_config

CHANNELS = (4, 6, 8, 10)


def pyramid(generator, count=2, side=32):
    return [torch.randn(count, width, side >> level, side >> level, generator=generator)
            for level, width in enumerate(CHANNELS)]


def pixel_decoder(**options):
    torch.manual_seed(0)
    return PixelDecoder(CHANNELS, channels=32, mask_channels=32, num_layers=2, num_heads=4, feedforward_channels=16,
                        **options)


def decoder(**options):
    torch.manual_seed(0)
    options = dict(dict(in_channels=16, channels=16, mask_channels=16, num_queries=6, num_layers=4, num_heads=4,
                        feedforward_channels=16), **options)
    return MaskedAttentionDecoder(**options).eval()


def decoder_inputs(generator, count=1):
    levels = [torch.randn(count, 16, 3 * 2**i, 4 * 2**i, generator=generator) for i in range(3)]
    return levels, torch.randn(count, 16, 24, 32, generator=generator)


def test_pixel_decoder_equals_that_of_mmdet(generator):
    ours = pixel_decoder()
    encoder = encoder_config(channels=32, num_layers=2, num_levels=3, num_heads=4, num_points=4,
                             feedforward_channels=16)
    theirs = MSDeformAttnPixelDecoder(list(CHANNELS), feat_channels=32, out_channels=32, encoder=encoder,
                                      positional_encoding=dict(num_feats=16, normalize=True))
    theirs.load_state_dict(ours.state_dict())
    maps = pyramid(generator)
    mask_features, levels = ours(maps)
    their_features, their_levels = theirs(maps)
    torch.testing.assert_close(mask_features, their_features, atol=1e-5, rtol=1e-5)
    for mine, other in zip(levels, their_levels):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_pixel_decoder_computes_in_float32_under_autocast(generator):
    module, maps = pixel_decoder(), pyramid(generator)
    plain = module(maps)[0]
    with torch.autocast('cpu', torch.bfloat16):
        mixed = module(maps)[0]
    assert mixed.dtype == torch.float32 and torch.equal(plain, mixed)


def test_recomputed_activations_give_the_same_gradients(generator):
    maps, gradients = pyramid(generator), []
    for with_cp in (False, True):
        generator_ = MaskGenerator(CHANNELS, pixel_decoder=pixel_decoder(with_cp=with_cp),
                                   decoder=decoder(in_channels=32, channels=32, mask_channels=32, with_cp=with_cp))
        generator_.train()
        sum(layer.embeddings.sum() + layer.mask_logits.sum() for layer in generator_(maps)).backward()
        gradients.append([parameter.grad for parameter in generator_.parameters() if parameter.grad is not None])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(plain, recomputed)


def test_pixel_decoder_wants_four_maps():
    with pytest.raises(ValueError, match='takes four maps, res2 to res5; got in_channels='):
        PixelDecoder([4, 8])


def test_attention_equals_that_of_torch(generator):
    module = nn.MultiheadAttention(16, 4, batch_first=True)
    query, key, value = (torch.randn(2, length, 16, generator=generator) for length in (5, 7, 7))
    blocked = torch.rand(2, 5, 7, generator=generator) < 0.4
    blocked[..., 0] = False
    expected = module(query, key, value, attn_mask=blocked.repeat_interleave(4, 0))[0]
    torch.testing.assert_close(attend(module, query, key, value, blocked), expected, atol=1e-6, rtol=1e-5)


def test_the_test_path_gives_the_last_layer_of_the_training_path(generator):
    module = decoder()
    levels, features = decoder_inputs(generator)
    every, last = module(levels, features, all_layers=True), module(levels, features, all_layers=False)
    assert len(every) == 5 and len(last) == 1
    torch.testing.assert_close(last[0].mask_logits, every[-1].mask_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last[0].embeddings, every[-1].embeddings, atol=1e-4, rtol=1e-4)


def test_the_mode_decides_which_layers_are_returned(generator):
    module, inputs = decoder(), decoder_inputs(generator)
    assert len(module.train()(*inputs)) == 5 and len(module.eval()(*inputs)) == 1


def test_two_images_together_are_two_images_alone(generator):
    module = decoder()
    levels, features = decoder_inputs(generator, 2)
    together = module(levels, features)[-1]
    for index in range(2):
        part = slice(index, index + 1)
        alone = module([level[part] for level in levels], features[part])[-1]
        torch.testing.assert_close(together.mask_logits[part], alone.mask_logits, atol=1e-4, rtol=1e-4)


def test_a_query_without_mask_may_look_everywhere(generator):
    maker = MaskMaker(nn.Identity(), torch.rand(1, 16, 8, 8, generator=generator) + 0.1, keep=False)
    queries = torch.stack([-torch.ones(16), torch.ones(16)])[None]
    assert maker.outside(queries, (4, 4))[0, 0].all() and not maker.blocked(queries, (4, 4)).any()


def test_widths_that_cannot_be_added_are_refused():
    with pytest.raises(ValueError, match=r'channels \(16\) and mask_channels \(8\) must be equal'):
        MaskedAttentionDecoder(16, channels=16, mask_channels=8)


def test_the_decoder_counts_its_maps(generator):
    with pytest.raises(ValueError, match='takes 3 maps from coarse to fine, got 2'):
        decoder()(decoder_inputs(generator)[0][:2], torch.zeros(1, 16, 8, 8))


def test_padding_is_left_out_of_attention_and_pooling(generator):
    module = decoder()
    levels, features = decoder_inputs(generator)
    changed = [level.clone() for level in levels], features.clone()
    for tensor in (*changed[0], changed[1]):
        tensor[..., tensor.shape[-1] // 2:] += 3.0
    padding = Padding([(24, 16)], (24, 32), features.device)
    first = module(levels, features, padding=padding)[-1]
    second = module(*changed, padding=padding)[-1]
    torch.testing.assert_close(first.embeddings, second.embeddings)
    without = module(*changed)[-1]
    assert (module(levels, features)[-1].embeddings - without.embeddings).abs().max() > 1e-2


def test_padding_cells_are_those_whose_centre_lies_outside():
    padding = Padding([(10, 16), (16, 7)], (16, 16), torch.device('cpu'))
    cells = padding.at((4, 4))
    assert cells.shape == (2, 1, 4, 4)
    assert cells[0, 0, :, 0].tolist() == [False, False, True, True]
    assert cells[1, 0, 0].tolist() == [False, False, True, True]
