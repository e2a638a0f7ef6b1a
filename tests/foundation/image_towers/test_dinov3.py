"""DINOv3: the layouts of transformers, timm and the official code give the same features; messages."""
from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import frozenmm  # noqa: F401  (before timm, so that the holes of the installation are filled)
from frozenmm.foundation.image_towers.dinov3 import MODEL_NAMES, DINOv3Tower, dinov3_model
from frozenmm.foundation.image_towers.dinov3_vit import DINOv3VisionTransformer

SIZES = dict(embed_dim=48, depth=3, num_heads=3, hidden_dim=96, num_register_tokens=2)
STATS = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(0))


def features(tower, pixels):
    from frozenmm.structures import ImageStats
    return tower(pixels, image_stats=ImageStats(**STATS))


def spread(module):
    """Weights far from their start, so that every one of them counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


@pytest.mark.parametrize('gated', [False, True])
def test_a_folder_of_the_transformers_library_gives_its_features(tmp_path, pixels, gated):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel
    theirs = spread(DINOv3ViTModel(DINOv3ViTConfig(
        patch_size=16, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96,
        num_register_tokens=2, use_gated_mlp=gated, hidden_act='silu' if gated else 'gelu')))
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(pixels, output_hidden_states=True)
    found = features(DINOv3Tower(None, tmp_path, resize_mode='none', taps=(1, 2)), pixels)
    torch.testing.assert_close(found.taps[2], expected.last_hidden_state, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.taps[1], theirs.norm(expected.hidden_states[2]).detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.class_token, expected.last_hidden_state[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.map('patch'), found.taps[2][:, 3:].transpose(1, 2).unflatten(2, (3, 5)))


def timm_model(bias, gated=False):
    import timm
    name = 'vit_small_plus_patch16_dinov3' if gated else 'vit_small_patch16_dinov3'
    more = dict(swiglu_align_to=8) if gated else {}
    return spread(timm.create_model(name + ('_qkvb' if bias else ''), num_classes=0, embed_dim=48, depth=3, num_heads=3,
                                    mlp_ratio=2.0, num_reg_tokens=2, **more))


@pytest.mark.parametrize(('bias', 'gated'), [(True, False), (False, False), (True, True)])
def test_a_file_of_timm_gives_its_features(tmp_path, pixels, bias, gated):
    theirs = timm_model(bias, gated)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, tmp_path / 'timm.safetensors')
    found = features(DINOv3Tower(dict(SIZES, gated=gated), tmp_path / 'timm.safetensors', resize_mode='none'), pixels)
    with torch.no_grad():
        expected = theirs.forward_features(pixels)
    torch.testing.assert_close(found.map('patch').flatten(2).transpose(1, 2), expected[:, 3:], rtol=1e-4, atol=1e-4)


def test_the_official_layout_is_that_of_timm_by_other_names(tmp_path, pixels):
    theirs = timm_model(True).state_dict()
    official = {'mask_token': torch.zeros(1, 48), 'rope_embed.periods': torch.ones(4)}
    for key, value in theirs.items():
        new = key.replace('gamma_', 'ls').replace('reg_token', 'storage_tokens')
        if 'ls1' in new or 'ls2' in new:
            new += '.gamma'
        if '_bias' not in key:
            official[new] = value
    for block in range(3):
        start = f'blocks.{block}.attn.'
        query, value = theirs[f'{start}q_bias'], theirs[f'{start}v_bias']
        official[f'{start}qkv.bias'] = torch.cat([query, torch.full_like(query, 7), value])
        official[f'{start}qkv.bias_mask'] = torch.ones(144)
    for name, state in (('timm', theirs), ('official', official)):
        torch.save(dict(state), tmp_path / f'{name}.pth')
    one, other = (features(DINOv3Tower(SIZES, tmp_path / f'{name}.pth', resize_mode='none'), pixels).map()
                  for name in ('timm', 'official'))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_names_sizes_and_licence():
    assert dinov3_model('vits16')[0] == dinov3_model('facebook/dinov3-vits16-pretrain-lvd1689m')[0] == 'dinov3_vits16'
    name, sizes, file = dinov3_model('facebook/dinov3-vitl16-pretrain-sat493m')
    assert name == 'dinov3_vitl16_sat493m' and 'sat493m' in file.url and 'not Apache' in file.license
    for name in MODEL_NAMES:
        _, sizes, file = dinov3_model(name)
        with torch.device('meta'):
            network = DINOv3VisionTransformer(**sizes)
        megabytes = sum(p.numel() for p in network.parameters()) * 4 / 1e6
        assert megabytes == pytest.approx(file.megabytes, rel=0.02), name


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="unknown DINOv3 model 'dinov3_vitx16'; did you mean"):
        DINOv3Tower('vitx16', 'random')
    with pytest.raises(ValueError, match="unknown size of a DINOv3 model 'depht'"):
        DINOv3Tower(dict(depht=3), 'random')
    with pytest.raises(ValueError, match='takes the sizes from a transformers folder'):
        DINOv3Tower(None, 'random')
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='vit')))
    with pytest.raises(ValueError, match="type 'vit'; DINOv3Tower reads 'dinov3_vit'"):
        DINOv3Tower(None, tmp_path)
