"""Taps: the whole token sequence of a ViT after any block, through the final norm, prefix tokens first."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frozenmm.foundation.feature_cache.cached_tower import CachedTower
from frozenmm.foundation.feature_cache.shards import from_tensors, to_tensors
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
from frozenmm.foundation.image_towers.open_clip import OpenCLIPTower
from frozenmm.foundation.image_towers.sam import MobileSAMTower, SAMTower
from frozenmm.foundation.image_towers.timm import TimmTower
from frozenmm.foundation.remembering_tower import RememberingTower

DINO = dict(img_size=56, embed_dim=24, depth=3, num_heads=3, num_register_tokens=2)
CLIP = dict(input_resolution=64, patch_size=16, width=32, layers=3, heads=4, output_dim=16)
OPEN_CLIP = dict(embed_dim=16, vision_cfg=dict(image_size=64, patch_size=16, width=32, layers=3, head_width=8),
                 text_cfg=dict(context_length=8, vocab_size=64, width=16, heads=2, layers=1))
SAM = dict(img_size=64, embed_dim=24, depth=3, num_heads=3, out_chans=16, window_size=2, global_attn_indexes=(1, 2))
FAMILIES = {
    'DINOv2 with registers': (lambda **more: DINOv2Tower(DINO, 'random:1', **more), 3, 24),
    'CLIP': (lambda **more: CLIPTower(CLIP, 'random:1', **more), 1, 32),
    'open_clip': (lambda **more: OpenCLIPTower(OPEN_CLIP, 'random:1', **more), 1, 32),
    'SAM': (lambda **more: SAMTower(SAM, 'random:1', **more), 0, 24),
    'timm DINOv3': (lambda **more: TimmTower('vit_tiny_patch16_dinov3_qkvb', 'random:1', **more), 5, 192),
    'timm ViT': (lambda **more: TimmTower('test_vit', 'random:1', **more), 1, 64),
}


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 224, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize('family', FAMILIES)
def test_a_tap_is_the_whole_sequence_and_the_last_one_holds_the_normed_map(images, family):
    make, prefix, width = FAMILIES[family]
    plain = make(resize_mode='none')(images)
    tower = make(resize_mode='none', taps=(2, 0))
    features = tower(images)
    grid = tuple(features.map().shape[-2:])
    assert list(features.taps) == [0, 2] and grid[1] == 2 * grid[0]
    assert all(tap.shape == (2, prefix + grid[0] * grid[1], width) for tap in features.taps.values())
    for name, value in plain.maps.items():
        torch.testing.assert_close(features.map(name), value)
    if family not in ('CLIP', 'open_clip', 'SAM'):  # whose map is not after the final norm
        patches = features.taps[max(features.taps)][:, prefix:].transpose(1, 2).unflatten(2, grid)
        assert torch.allclose(patches, features.map('patch')) == (family == 'DINOv2 with registers')


def test_taps_of_a_timm_vit_pass_its_last_norm(images):
    tower = TimmTower('test_vit', 'random:1', resize_mode='none', taps=(1, 5))
    trunk = tower.network.trunk
    depth = len(trunk.blocks)
    assert depth == 6
    features = tower(images)
    patches = features.taps[depth - 1][:, 1:].transpose(1, 2).unflatten(2, features.map().shape[-2:])
    torch.testing.assert_close(patches, features.map('patch'))
    assert features.class_token.shape == (2, 64)
    normed = features.taps[1]
    torch.testing.assert_close(normed, F.layer_norm(normed, (64, ), eps=1e-6), rtol=1e-3, atol=1e-3)


def test_more_image_tokens_leave_taps_as_they_are(images):
    for tower in DINOv2Tower(DINO, 'random:1', taps=(1,)), CLIPTower(CLIP, 'random:1', taps=(1,)):
        torch.testing.assert_close(tower(images, num_tokens=14).taps[1], tower(images).taps[1])


def test_blocks_that_a_network_does_not_have_are_refused():
    with pytest.raises(ValueError, match='different blocks from 0 to 2, got \\[3\\]'):
        DINOv2Tower(DINO, 'random:1', taps=[3])
    with pytest.raises(ValueError, match='different blocks from 0 to 2, got \\[1, 1\\]'):
        DINOv2Tower(DINO, 'random:1', taps=[1, 1])
    with pytest.raises(ValueError, match='no transformer blocks to tap; .* take its maps .*res5'):
        TimmTower('test_resnet', 'random:1', taps=[0])
    with pytest.raises(ValueError, match='no transformer blocks to tap'):
        MobileSAMTower('random:1', taps=[0])


def test_towers_that_answer_without_the_network_give_taps_too(tmp_path, images):
    tower = DINOv2Tower(DINO, 'random:1', taps=(0, 2))
    expected = tower(images).taps
    memory = RememberingTower(tower).train()
    cached = CachedTower(tower, tmp_path / 'cache')
    for wrapped in memory, cached:
        assert wrapped.taps == (0, 2)
        for _ in range(2):
            torch.testing.assert_close(wrapped(images).taps, expected, rtol=0, atol=0)
    assert memory.memory.hits == 2 and cached.hits == 2


def test_a_rounded_store_rounds_taps_but_not_where_they_lie(images):
    features = DINOv2Tower(DINO, 'random:1', taps=(1,))(images[:1])
    stored = to_tensors(features, 'bf16')
    assert stored['taps.1'].dtype == torch.bfloat16 and stored['region'].dtype == torch.float32
    torch.testing.assert_close(from_tensors(stored, features.maps).taps[1], features.taps[1].bfloat16().float())
