"""The parts of training-free segmentation, each against its definition, and defaults beside the official defects."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_dense_clip import CLIP, DINO, RADIO, SAM

from frozenmm.errors import UserError
from frozenmm.registry import MODELS
from frozenmm.segmentation.dense_clip.aggregation import SamAggregation, SamCells, SelfAggregation
from frozenmm.segmentation.dense_clip.attention import (
    ATTENTIONS,
    Surroundings,
    attention_of,
    gaussian_window,
    mean_similarity,
    neighbour_bias,
    proxy_attention,
)
from frozenmm.segmentation.dense_clip.labels import LabelRule, drop_absent, smooth_by_keys
from frozenmm.segmentation.dense_clip.method import METHODS, method_of
from frozenmm.segmentation.dense_clip.model import DenseCLIP
from frozenmm.segmentation.dense_clip.pamr import PAMR
from frozenmm.segmentation.dense_clip.positions import resized_positions
from frozenmm.segmentation.dense_clip.sam_reading import SamReader, last_block, rounded_picture
from frozenmm.segmentation.dense_clip.sam_refinement import PictureFrame, SamRefinement, connected_regions, embed_mask
from frozenmm.segmentation.dense_clip.windows import (
    CellMaps,
    Placing,
    fitted_size,
    resize_matrix,
    split_padding,
    stitch,
    window_plan,
)
from frozenmm.structures import ImageStats


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------------- attention
def around(grid=(3, 4)):
    return Surroundings(grid, lambda x: x)


@pytest.mark.parametrize('kind', sorted(set(ATTENTIONS) - {'proxy'}))
def test_mixing_is_weighting(kind):
    query, key, value = (draw(2, 3, 13, 8, seed=seed) for seed in range(3))
    attention = attention_of(kind)
    if kind == 'recursive':
        return  # its weights depend on the values, too
    weights = attention.weights(query, key, around())
    torch.testing.assert_close(weights @ value, attention.mix(query, key, value, around()))
    torch.testing.assert_close(weights.sum(-1), torch.full((2, 3, 13), 2.0 if kind == 'self_self' else 1.0))


def test_near_cells_weigh_more_and_the_class_token_is_no_cell():
    window = gaussian_window((3, 4), 2.0)
    assert window.shape == (5, 7) and window[2, 3] == 1 and torch.equal(window, window.flip(0, 1))
    bias = neighbour_bias((3, 4), 2.0, 13)
    assert not bias[0].any() and not bias[:, 0].any() and torch.equal(bias, bias.T)
    assert bias[1, 2] == window[2, 4] and bias[1, 5] == window[3, 3]
    assert neighbour_bias((3, 4), 5.0, 13)[1, 2] > bias[1, 2]  # the official cache ignores the deviation


def test_the_mean_similarity_needs_no_table_of_pairs():
    maps = draw(2, 6, 4, 5)
    unit = F.normalize(maps.flatten(2), dim=1)
    torch.testing.assert_close(mean_similarity(maps), (unit.transpose(1, 2) @ unit).mean((1, 2)))


def test_a_flat_proxy_map_gives_nan_in_compat_only():
    maps = torch.ones(1, 4, 3, 3)
    mean = mean_similarity(maps)
    assert proxy_attention(maps, mean, compat=True).isnan().all()
    torch.testing.assert_close(proxy_attention(maps, mean), torch.eye(9)[None])


# ---------------------------------------------------------------------------------------------------- positions
def test_a_grid_with_as_many_cells_gets_its_own_positions():
    table = draw(17, 6)
    assert resized_positions(table, 4, (2, 8), compat=True) is table
    resized = resized_positions(table, 4, (2, 8))
    assert resized.shape == (17, 6) and torch.equal(resized[0], table[0]) and not torch.equal(resized, table)
    assert resized_positions(table, 4, (4, 4)) is table


def test_the_factor_and_the_size_map_coordinates_differently():
    table = draw(17, 6)
    assert (resized_positions(table, 4, (6, 6)) - resized_positions(table, 4, (6, 6), rule='size')).abs().max() > 1e-3


# ---------------------------------------------------------------------------------------------------- windows
def by_hand(maps, plan, shown, before, size):
    """Mean of windows as the official procedures write it."""
    height, width = plan.size
    total, counts = torch.zeros(1, maps.shape[1], height, width), torch.zeros(1, 1, height, width)
    for one, (top, left, bottom, right) in zip(maps, plan.boxes):
        big = F.interpolate(one[None], shown, mode='bilinear', align_corners=False)
        total[..., top:bottom, left:right] += big[..., before[0]:before[0] + bottom - top,
                                                  before[1]:before[1] + right - left]
        counts[..., top:bottom, left:right] += 1
    assert counts.min() > 0
    return F.interpolate(total / counts, size, mode='bilinear', align_corners=False)


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.integers(4, 24), st.integers(1, 24), st.integers(0, 6))
def test_stitching_is_resizing_cutting_and_averaging(height, width, crop, stride, padding):
    plan = window_plan((height, width), (crop, crop), (min(stride, crop),) * 2)
    assert all(bottom <= height and right <= width for _, _, bottom, right in plan.boxes)
    maps = draw(len(plan.boxes), 3, 3, 2)
    shown, before = (plan.window[0] + padding, plan.window[1] + padding), (padding // 2, padding // 2)
    found = stitch(maps, Placing(plan, shown, before, (17, 23)))
    torch.testing.assert_close(found, by_hand(maps, plan, shown, before, (17, 23)), atol=1e-5, rtol=1e-4)


def test_a_whole_image_is_resized_once_or_twice():
    plan = window_plan((20, 30), (20, 30), (20, 30))
    maps = draw(1, 2, 4, 5)
    once = CellMaps(maps, Placing(plan, (20, 30))).at((37, 41))
    torch.testing.assert_close(once, F.interpolate(maps, (37, 41), mode='bilinear'), atol=1e-6, rtol=1e-5)
    twice = CellMaps(maps, Placing(plan, (20, 30)), direct=False).at((37, 41))
    torch.testing.assert_close(twice, by_hand(maps, plan, (20, 30), (0, 0), (37, 41)), atol=1e-6, rtol=1e-5)
    assert (once - twice).abs().max() > 1e-3


def test_sizes_are_fitted_and_padded_to_whole_patches():
    assert fitted_size((448, 597), 16, (336, 336)) == (464, 608)
    assert fitted_size((32, 64), 16, (336, 336)) == (32, 64)  # kept, and its windows are of that size
    assert fitted_size((30, 64), 16, (336, 336)) == (336, 336)
    assert split_padding(84, 56) == (14, 14) and split_padding(83, 56) == (14, 15) and split_padding(112, 56) == (0, 0)
    torch.testing.assert_close(resize_matrix(5, 5), torch.eye(5))


def test_an_image_below_the_crop_works(segmentor):
    """The official Trident stops with a RuntimeError here."""
    model = segmentor('trident').dense
    assert model.spliced(draw(1, 3, 24, 64), (32, 32), (16, 16)).shape[-2:] == (6, 16)


# ---------------------------------------------------------------------------------------------------- labels
def test_synonyms_share_the_mass_and_the_best_one_counts():
    rule, index = LabelRule(logit_scale=1.0), torch.tensor([0, 1, 1])
    names = rule.probabilities(torch.zeros(3, 2, 2))
    classes = rule.classes(names, index, 2)
    torch.testing.assert_close(classes, torch.full((2, 2, 2), 1 / 3))
    assert not rule(classes)[1].any()


def test_unsure_pixels_and_small_classes_go_to_the_background():
    classes = torch.tensor([[[0.1, 0.2, 0.3]], [[0.8, 0.7, 0.3]], [[0.1, 0.1, 0.4]]])
    assert LabelRule()(classes)[1].tolist() == [[[1, 1, 2]]]
    assert LabelRule(threshold=0.5)(classes)[1].tolist() == [[[1, 1, 0]]]
    assert LabelRule(area_threshold=0.4)(classes)[1].tolist() == [[[1, 1, 0]]]
    assert LabelRule(denoising=0.5)(classes)[1].tolist() == [[[1, 1, 1]]]


def test_the_rule_of_trident_mistakes_synonyms_of_other_classes():
    names, index = draw(4, 3, 3).softmax(0), torch.tensor([0, 1, 1, 2])
    right = LabelRule().classes(names, index, 3)
    wrong = LabelRule(compat=True).classes(names, index, 3)
    torch.testing.assert_close(right[1], names[1:3].amax(0))
    torch.testing.assert_close(wrong[0], names[:2].amax(0))


def test_absent_names_are_dropped_and_unsure_cells_smoothed():
    logits = torch.tensor([[[[0.9, 0.1]], [[0.1, 0.12]], [[0.0, 0.1]]]])
    assert drop_absent(logits, 0.6)[0, :, 0, 1].tolist() == pytest.approx([0.1, 0.12, -100])
    keys = torch.tensor([[[1.0, 0.0], [1.0, 0.1]]])
    smooth = smooth_by_keys(logits, keys, 0.9)
    assert smooth[0, 0, 0, 1] > 0.5 and smooth.sum(1).allclose(torch.ones(1, 1, 2))
    assert smooth[0, :, 0, 0].allclose((100 * logits[0, :, 0, 0]).softmax(0))
    assert not smooth_by_keys(logits, keys, 0.9, compat=True).sum(1).allclose(torch.ones(1, 1, 2), atol=1e-2)


# ---------------------------------------------------------------------------------------------------- refinement
def test_pamr_keeps_a_flat_map_and_takes_on_the_edge_of_the_image():
    image = torch.zeros(1, 3, 12, 16)
    image[..., 8:] = 5.0
    refine = PAMR(steps=5, dilations=(1, 2))
    torch.testing.assert_close(refine(image, torch.full((1, 2, 3, 4), 0.3)), torch.full((1, 2, 12, 16), 0.3))
    soft = torch.linspace(1, 0, 16).expand(1, 1, 12, 16)
    refined = refine(image, soft)
    assert refined[..., 7].mean() - refined[..., 8].mean() > 2 * (soft[..., 7].mean() - soft[..., 8].mean())


def test_aggregation_alone_and_by_sam_do_not_mix_images_and_survive_flat_ones():
    aggregate, pair = SelfAggregation(), draw(2, 6, 4, 5)
    torch.testing.assert_close(aggregate(pair)[:1], aggregate(pair[:1]))
    assert (SelfAggregation(compat=True)(pair)[:1] - aggregate(pair[:1])).abs().max() > 1e-4
    values, attention = draw(2, 20, 4), draw(2, 20, 20).softmax(-1)
    rows = SamAggregation(factor=100.0).weights(attention, values.abs())
    torch.testing.assert_close(rows.sum(-1), torch.ones(20))
    lonely = torch.zeros(2, 20, 20)
    assert SamAggregation(compat=True).weights(lonely, values).isnan().any()
    torch.testing.assert_close(SamAggregation().weights(lonely, values), torch.eye(20))


def test_halves_are_aggregated_apart():
    cells = [SamCells(draw(2, 6, 6, seed=seed).softmax(-1), draw(2, 6, 4, seed=seed), (2, 3)) for seed in (1, 2)]
    whole = SamAggregation(halves=True)(draw(1, 5, 4, 8), cells)
    assert whole.shape == (1, 5, 2, 6)
    with pytest.raises(ValueError):
        SamAggregation(halves=True)(draw(1, 5, 4, 8), cells[:1])


def test_sams_attention_is_that_of_its_last_block():
    tower = MODELS.build(SAM).tower
    reader = SamReader(tower)
    picture = (draw(3, 30, 50).sigmoid() * 255).round()
    pixels, shown = reader.place(picture)
    assert pixels.shape == (1, 3, 64, 64) and shown == (38, 64)
    network = tower.network
    attention, values = last_block(network, pixels, (4, 4))
    block = network.blocks[-1]
    grid = network.patch_embed(pixels) + network.positions((4, 4))
    for earlier in network.blocks[:-1]:
        grid = earlier(grid)
    mixed = (attention @ values).transpose(0, 1).reshape(1, 4, 4, -1)
    torch.testing.assert_close(block.attn.proj(mixed), block.attn(block.norm1(grid)), atol=1e-5, rtol=1e-4)
    cells = reader.cells(picture)
    assert cells.grid == (2, 4) and cells.attention.shape == (2, 8, 8) and (cells.attention.sum(-1) < 1).all()


def test_a_picture_is_rounded_up_to_the_patch_as_bytes():
    picture = (draw(3, 30, 48).sigmoid() * 255).round()
    assert rounded_picture(picture, 6) is picture
    rounded = rounded_picture(picture, 16)
    assert rounded.shape == (3, 32, 48) and torch.equal(rounded, rounded.round())


def test_regions_come_in_raster_order_and_small_ones_are_left_out():
    mask = torch.tensor([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 1]]).bool()
    regions = connected_regions(mask, 1)
    assert [int(region.sum()) for region in regions] == [1, 2, 1]
    assert regions[0][0, 3] and regions[1][1, 0] and regions[1][2, 1]
    assert len(connected_regions(mask, 2)) == 1


def scene():
    probabilities = torch.full((2, 16, 20), 0.3)
    probabilities[1, 4:12, 6:14] = 0.6
    probabilities[0] = 1 - probabilities[1]
    return probabilities, probabilities.argmax(0)[None]


def test_sam_redraws_what_it_is_sure_of():
    probabilities, labels = scene()
    frame, asked = PictureFrame((16, 20), (51, 64), 64), []

    def decode(prompts):
        asked.append(prompts)
        logits = torch.full((len(prompts.points), 1, 16, 16), -5.0)
        logits[..., 2:10, :] = 5.0 if prompts.boxes[0, 0] > 0 else -5.0  # nothing is background
        return logits, torch.ones(len(prompts.points))

    refined, _ = SamRefinement(coarse=0.1, area=1)(probabilities, labels, frame, decode)
    assert len(asked) == 2 and refined[0, 3:12].all() and not refined[0, :2].any()
    boxes = asked[1].boxes[0] / torch.tensor([6.4, 51 / 8, 6.4, 51 / 8])
    torch.testing.assert_close(boxes, torch.tensor([3.0, 2, 6, 5]))
    same = SamRefinement(coarse=0.1, area=1, iou=1.0)(probabilities, labels, frame, decode)
    assert same[0] is labels and same[1] is probabilities


def test_where_sam_is_unsure_the_more_probable_class_stays():
    probabilities, labels = scene()

    def decode(prompts):
        # the background is sure and its mask covers everything; the thing is not
        is_thing = prompts.boxes[0, 0] > 0
        count = len(prompts.points)
        return torch.full((count, 1, 16, 16), 5.0), torch.full((count,), 0.0 if is_thing else 1.0)

    frame = PictureFrame((16, 20), (51, 64), 64)
    kept, _ = SamRefinement(coarse=0.1, area=1)(probabilities, labels, frame, decode)
    lost, _ = SamRefinement(coarse=0.1, area=1, compat=True)(probabilities, labels, frame, decode)
    assert torch.equal(kept, labels) and not lost[0, 6, 8]


def test_a_mask_prompt_without_batch_axis_is_another_one():
    layers = MODELS.build(SAM).decoder.network.prompt_encoder.mask_downscaling
    mask = draw(1, 1, 16, 16)
    right, wrong = embed_mask(layers, mask), embed_mask(layers, mask, compat=True)
    assert right.shape == wrong.shape == (1, 8, 4, 4) and (right - wrong).abs().max() > 1e-3


# ----------------------------------------------------------------------------------------------- methods and towers
def test_methods_are_the_table_of_the_papers():
    assert set(METHODS) == {'clip', 'maskclip', 'sclip', 'naclip', 'proxyclip', 'trident', 'radseg'}
    trident = method_of(dict(name='trident', attention=dict(beta=1.1), aggregate=dict(factor=3.0)))
    attention = trident.last_block().attention
    assert attention.shared_mean and attention.beta == 1.1 and trident.aggregation().factor == 3.0
    with pytest.raises(UserError, match="splice='features'"):
        method_of(dict(name='sclip', aggregate=dict(type='self')))


def test_plain_attention_is_the_towers_own(segmentor):
    model = segmentor('clip').dense
    pixels = draw(2, 3, 32, 32)
    last = model.dense(pixels)
    maps, tokens = model.tower.network(pixels, patch_output='projected')
    torch.testing.assert_close(model.embed(last.cells.movedim(1, -1)).movedim(-1, 1), maps['patch'], atol=1e-5,
                               rtol=1e-4)
    torch.testing.assert_close(model.embed(last.tokens[:, 0]), tokens[:, 0], atol=1e-5, rtol=1e-4)


def test_maskclip_runs_the_activation_that_the_weights_want(segmentor):
    pixels = draw(1, 3, 32, 32)
    right, official = (segmentor(dict(name='maskclip', compat=compat)).dense.dense(pixels).tokens
                       for compat in (False, True))
    assert (right - official).abs().max() > 1e-4


def test_windows_are_padded_for_both_patches(segmentor):
    model = segmentor('proxyclip', proxy=dict(DINO, model=dict(DINO['model'], patch_size=5, img_size=30))).dense
    assert model.multiple == 40
    padded, shown, before = model.padded(draw(2, 3, 33, 40))
    assert shown == (40, 40) and before == (3, 0) and not padded[:, :, :3].any() and not padded[:, :, -4:].any()


def test_radio_reads_positions_of_any_grid_and_names_missing_adaptors(tmp_path):
    from safetensors.torch import save_file

    from frozenmm.foundation.image_towers.radio import radio_part, radio_sizes
    tower = MODELS.build(RADIO)
    features = tower(draw(2, 3, 24, 40), num_tokens=1)
    assert features.map().shape == (2, 24, 3, 5) and features.class_token.shape == (2, 24)
    own = tower.network.state_dict()
    official = {f'radio_model.{key.replace("base_model", "model")}': value.clone() for key, value in own.items()
                if not key.startswith('adaptor')}
    official |= {f'radio_model._heads.siglip2-g.{key[8:]}': value.clone() for key, value in own.items()
                 if key.startswith('adaptor')}
    part = radio_part(official, 'siglip2-g')
    assert part.keys() == own.keys() and radio_sizes(part, 2)['adaptor'] == (28, 24, 1)
    save_file(official, tmp_path / 'radio.safetensors')
    loaded = MODELS.build(dict(RADIO, weights=str(tmp_path / 'radio.safetensors')))
    torch.testing.assert_close(loaded(draw(1, 3, 24, 40)).map(), tower(draw(1, 3, 24, 40)).map())
    with pytest.raises(UserError, match=r"no language adaptor 'clip'; it has \['siglip2-g'\]"):
        radio_part(official, 'clip')


def test_dino_has_neither_layer_scale_nor_mask_token():
    tower = MODELS.build(DINO)
    assert not {key for key in tower.network.state_dict() if 'ls1' in key or 'mask_token' in key}
    with pytest.raises(UserError, match='unknown sizes of a DINO model'):
        MODELS.build(dict(DINO, model=dict(depth=1, swiglu=True)))
    with pytest.raises(ValueError, match='dino_vitb8'):
        MODELS.build(dict(type='DINOTower', model='dino_vitb9'))


def test_stats_of_the_pipeline_do_not_matter(segmentor):
    model = segmentor('naclip').dense
    raw = (draw(1, 3, 32, 32).sigmoid() * 255).round()
    bgr = ImageStats((1.0, 2.0, 3.0), (5.0, 6.0, 7.0), 'bgr')
    mean, std = bgr.tensors(raw)
    torch.testing.assert_close(model.normalised((raw.flip(1) - mean) / std, bgr), model.normalised(raw, ImageStats()),
                               atol=1e-5, rtol=1e-5)
    assert isinstance(model, DenseCLIP) and CLIP
