"""Parts inside frozen transformers: against the formulas, and bit for bit the frozen tower where they are off."""
from __future__ import annotations

import threading

import pytest
import torch
from torch.nn import functional as F

from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.inner_adaptor import InnerAdaptor
from frozenmm.foundation.layer_analysis import (
    SkippingTower,
    block_cosines,
    block_tokens,
    modality_cosines,
    skip_table,
)
from frozenmm.foundation.space_time import SpaceTimeAdapter, SpaceTimeNeck, TimeAttention


@pytest.fixture(params=['clip', 'dinov2', 'timm', 'sam'])
def vit(request, tiny_clip):
    """A small ViT with random weights of every family."""
    if request.param == 'clip':
        return CLIPTower(tiny_clip, 'random:3')
    if request.param == 'dinov2':
        from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
        return DINOv2Tower(dict(embed_dim=32, depth=3, num_heads=2, patch_size=14, img_size=28), 'random:3', size=28)
    if request.param == 'timm':
        pytest.importorskip('timm')
        from frozenmm.foundation.image_towers.timm import TimmTower
        return TimmTower('vit_tiny_patch16_224', 'random:3', size=32)
    from frozenmm.foundation.image_towers.sam import SAMTower
    return SAMTower(dict(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, global_attn_indexes=(1, ),
                         window_size=3, out_chans=16), 'random:3')


@pytest.fixture
def images(generator):
    return 255 * torch.rand(4, 3, 30, 40, generator=generator)


def outputs(tower, images):
    features = tower(images)
    return [*features.maps.values(), *([] if features.class_token is None else [features.class_token])]


def strong(module, generator):
    for parameter in module.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)


def test_one_frame_is_the_image_tower_bit_for_bit_and_more_are_not(vit, images, generator):
    tower = SpaceTimeAdapter(vit, frames=4, heads=2)
    frozen = outputs(vit, images)
    torch.testing.assert_close(outputs(tower, images), frozen, rtol=1e-5, atol=1e-5)  # x + 0 through other kernels
    strong(tower.time, generator)
    found = tower(images)
    assert (found.map() - vit(images).map()).abs().max() > 1e-3
    found.map().square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in tower.named_parameters() if 'qkv.weight' in name)
    tower.frames = 1
    assert all(torch.equal(a, b) for a, b in zip(outputs(tower, images), frozen))
    assert set(tower.state_dict()) == {'frozen_record', *(name for name, _ in tower.named_parameters())}


def test_a_block_attends_in_space_to_what_time_added_but_adds_to_its_own_input(tiny_clip, images, generator):
    """s = x + A(LN1(x + T(x))), out = s + M(LN2(s)), with T written out frame by frame."""
    vit = CLIPTower(tiny_clip, 'random:3')
    tower = SpaceTimeAdapter(vit, frames=2, blocks=[1], heads=2)
    strong(tower.time, generator)
    block, time = vit.network.transformer.resblocks[1], tower.time[0]
    seen = {}
    handles = [block.register_forward_pre_hook(lambda module, given: seen.update(x=given[0], cells=given[1])),
               block.register_forward_hook(lambda module, given, output: seen.update(out=output))]
    with torch.no_grad():
        tower(images)
    for handle in handles:
        handle.remove()
    x = seen['x']
    added = torch.zeros_like(x)
    for clip in (0, 2):
        for place in range(x.shape[1]):
            tokens = time.norm(x[clip:clip + 2, place]) + time.position[:2]
            q, k, v = time.qkv(tokens).view(2, 3, 2, -1).unbind(1)
            mixed = torch.stack([torch.softmax(q[:, h] @ k[:, h].T / 16**0.5, -1) @ v[:, h] for h in range(2)], 1)
            added[clip:clip + 2, place] = time.project(mixed.flatten(1))
    s = x + block.attn(block.ln_1(x + added), seen['cells'])
    torch.testing.assert_close(seen['out'], s + block.mlp(block.ln_2(s)), rtol=1e-4, atol=1e-5)


def test_inner_layers_are_off_for_nobody_and_at_the_start(vit, images, generator):
    tower = InnerAdaptor(vit, after=[0, 1], tasks=['one', 'two'])
    frozen = outputs(vit, images)
    torch.testing.assert_close(outputs(tower, images), frozen, rtol=1e-4, atol=1e-4)  # x + 0 (copy - x)
    with torch.no_grad():
        for layer in tower.layers['one']:
            layer.gate.fill_(0.7)
    on = outputs(tower, images)
    assert (on[0] - frozen[0]).abs().max() > 1e-3
    on[0].square().sum().backward()
    assert tower.layers['one'][0].gate.grad.abs() > 0 and tower.layers['two'][0].gate.grad is None
    assert not any(parameter.requires_grad for parameter in vit.network.parameters())
    tower.task = 'two'
    torch.testing.assert_close(outputs(tower, images), frozen, rtol=1e-4, atol=1e-4)
    tower.task = None
    assert all(torch.equal(a, b) for a, b in zip(outputs(tower, images), frozen))


def test_an_inner_layer_is_a_copy_of_the_block_before_it(tiny_clip, images):
    vit = CLIPTower(tiny_clip, 'random:3')
    tower = InnerAdaptor(vit, after=[1], gated=False)
    seen = {}
    block = vit.network.transformer.resblocks[1]
    handle = block.register_forward_hook(lambda module, given, output: seen.update(twice=(output, given[1])))
    found = tower(images).map()
    handle.remove()
    twice = block(*seen['twice'])
    assert (found - vit(images).map()).abs().max() > 1e-4
    torch.testing.assert_close(tower.layers['main'][0](*seen['twice']), twice)


def test_other_threads_see_the_frozen_tower(tiny_clip, images, generator):
    vit = CLIPTower(tiny_clip, 'random:3')
    tower = SpaceTimeAdapter(vit, frames=2, heads=2)
    strong(tower.time, generator)
    frozen, inside = vit(images).map(), []
    time = tower.time[0].forward

    def meanwhile(*given):
        thread = threading.Thread(target=lambda: inside.append(vit(images).map()))
        thread.start()
        thread.join()
        return time(*given)

    tower.time[0].forward = meanwhile
    with torch.no_grad():
        tower(images)
    assert torch.equal(inside[0], frozen)


def test_skipped_blocks_are_not_there(tiny_clip, images):
    vit = CLIPTower({**tiny_clip, 'layers': 4}, 'random:3')
    tokens = block_tokens(vit, images)
    assert len(tokens) == 5
    expected = [F.cosine_similarity(a, b, dim=-1).mean().item() for a, b in zip(tokens, tokens[1:])]
    assert block_cosines(tokens) == pytest.approx(expected)
    tower, seen = SkippingTower(vit, [1, 2]), []
    blocks = vit.network.transformer.resblocks
    handle = blocks[3].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    tower(images)
    handle.remove()
    assert torch.equal(seen[0], tokens[1])
    assert torch.equal(vit(images).map(), SkippingTower(vit, [])(images).map())
    rows = skip_table(vit, images, [0, 1, 3], repeats=1)
    assert [len(row.blocks) for row in rows] == [0, 1, 3] and rows[0].error == 0 < rows[1].error
    assert rows[1].blocks == (max(range(4), key=expected.__getitem__), )
    assert modality_cosines(tokens, tokens) == pytest.approx([1] * 5)


def test_features_are_not_cached_under_the_name_of_the_network_alone(tiny_clip):
    from frozenmm.foundation.remembering_tower import RememberingTower
    with pytest.raises(ValueError, match='whose features cannot be reused'):
        RememberingTower(SkippingTower(CLIPTower(tiny_clip, 'random:3'), [0]))


def test_behind_maps_a_single_picture_and_the_start_stay_as_they_are(generator):
    neck = SpaceTimeNeck([4, 8], frames=3)
    maps = [torch.randn(6, 4, 4, 4, generator=generator), torch.randn(6, 8, 2, 2, generator=generator)]
    assert torch.equal(neck(maps)[1], maps[1])
    strong(neck, generator)
    found = neck(maps)
    assert found[0] is maps[0] and not torch.equal(found[1], maps[1])
    torch.testing.assert_close(neck([part[:3] for part in maps])[1], found[1][:3])  # clips do not hear each other
    assert torch.equal(neck.eval()([part[:1] for part in maps])[1], maps[1][:1])


def test_what_has_no_such_blocks_is_refused(tiny_clip, images):
    vit = CLIPTower(tiny_clip, 'random:3')
    for part in (lambda tower: SpaceTimeAdapter(tower, frames=2), lambda tower: InnerAdaptor(tower, [0])):
        with pytest.raises(ValueError, match='is no stack of transformer blocks'):
            part(EfficientNetLiteTower('random'))
    with pytest.raises(ValueError, match=r'different blocks from 0 to 1, got \[2\]'):
        InnerAdaptor(vit, [2])
    with pytest.raises(ValueError, match="task must be one of .'main'., got 'other'"):
        InnerAdaptor(vit, [0]).task = 'other'
    with pytest.raises(ValueError, match=r'some of the blocks 0 to 1, got \[0, 1\]'):
        SkippingTower(vit, [0, 1])
    with pytest.raises(ValueError, match='has 2 blocks, of which 0 to 1 can be left out'):
        skip_table(vit, images, [2])
    with pytest.raises(ValueError, match='4 pictures are no clips of 3 frames'):
        SpaceTimeAdapter(vit, frames=3)(images)
    with pytest.raises(ValueError, match='3 heads do not divide the width 8'):
        TimeAttention(8, 3, 2)
    with pytest.raises(ValueError, match='level must be the place of one of the 1 maps, got 1'):
        SpaceTimeNeck([4], 2, level=1)
    with pytest.raises(ValueError, match='compared in one space'):
        modality_cosines([torch.ones(1, 2, 3)], [torch.ones(1, 2, 4)])
