from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from frozenmm.foundation.image_towers.dinov2 import MODEL_NAMES, DINOv2Tower, dinov2_model, official_names
from frozenmm.foundation.image_towers.dinov2_vit import DinoVisionTransformer
from frozenmm.registry import MODELS

TINY = dict(img_size=28, patch_size=4, embed_dim=32, depth=2, num_heads=4)


@pytest.mark.parity
@pytest.mark.parametrize('name', ['interp', 'native'])
@torch.no_grad()
def test_the_patch_map_equals_the_recorded_one(golden_case, name: str) -> None:
    case = golden_case('frozen_detr', f'dinov2_patch_map__{name}')
    params = case.params
    network = DinoVisionTransformer(
        params['native_grid'] * params['patch_size'], params['patch_size'], params['embed_dim'], params['depth'],
        params['num_heads'], params['mlp_ratio'], num_register_tokens=params['num_register_tokens'],
        interpolate_offset=params['interpolate_offset'], interpolate_antialias=params['interpolate_antialias'],
        norm_eps=params['norm_eps'])
    network.load_state_dict(case.weights, strict=True)
    maps, tokens = network(case.inputs['image'])
    case.check('patch_map', maps['patch'])
    case.check('class_token', tokens[:, 0])
    case.check('pos_embed', network.positions((params['input_grid'], ) * 2))


@pytest.mark.parametrize('registers', [0, 3])
@torch.no_grad()
def test_more_image_tokens_change_nothing_else(registers: int, generator: torch.Generator) -> None:
    network = DinoVisionTransformer(**TINY, num_register_tokens=registers)
    pixels = torch.randn(1, 3, 24, 28, generator=generator)
    (maps, one), (maps_of_14, many) = network(pixels), network(pixels, 14)
    torch.testing.assert_close(maps_of_14['patch'], maps['patch'])
    torch.testing.assert_close(many[:, :1], one)
    assert many.shape == (1, 14, 32) and maps['patch'].shape == (1, 32, 6, 7)


@pytest.mark.parametrize('letter, millions', [('s', 22.06), ('b', 86.58), ('l', 304.37), ('g', 1136.48)])
def test_published_sizes_have_the_published_number_of_parameters(letter: str, millions: float) -> None:
    with torch.device('meta'):
        network = DinoVisionTransformer(**dinov2_model(f'vit{letter}14')[1])
    assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert network.pos_embed.shape[1] == 1370


@pytest.mark.parametrize('name', ['dinov2_vits14_reg', 'vits14_reg4', 'DINOv2_ViTS14_reg'])
def test_registers_bring_their_own_resizing_and_file(name: str) -> None:
    key, sizes, file = dinov2_model(name)
    assert key == 'dinov2_vits14_reg' and sizes['num_register_tokens'] == 4 and sizes['interpolate_antialias']
    assert file.url.endswith('/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth')
    assert len(MODEL_NAMES) == 8


def test_a_tower_gives_what_it_says(generator: torch.Generator) -> None:
    tower = MODELS.build(dict(type='frozenmm.DINOv2Tower', model=TINY, weights='random', size=24))
    features = tower(torch.rand(2, 3, 30, 50, generator=generator) * 255, num_tokens=5)
    assert features.map('patch').shape == (2, 32, 6, 6) and features.tokens.shape == (2, 5, 32)
    assert tower.channels == {'patch': 32} and tower.strides == {'patch': 4} and tower.token_channels == 32
    assert torch.equal(features.class_token, features.tokens[:, 0])


def _as(kind: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if kind == 'chunked':
        return {key.replace('blocks.', 'blocks.0.') if key.startswith('blocks.0') else
                key.replace('blocks.', 'blocks.1.'): value for key, value in state.items()}
    if kind == 'training':
        return {'teacher': {**{f'backbone.{key}': value for key, value in state.items()},
                            'dino_head.mlp.weight': torch.zeros(1)}}
    return state


@pytest.mark.parametrize('kind', ['plain', 'chunked', 'training'])
def test_weights_load_from_every_layout(tmp_path: Path, kind: str) -> None:
    network = DinoVisionTransformer(**TINY)
    torch.save(_as(kind, network.state_dict()), tmp_path / 'dino.pth')
    tower = DINOv2Tower(TINY, tmp_path / 'dino.pth')
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in tower.network.state_dict().items())


def test_chunked_names_keep_the_index_of_the_block() -> None:
    assert list(official_names({'blocks.2.17.norm1.weight': torch.zeros(1)})) == ['blocks.17.norm1.weight']


def test_the_file_of_another_size_is_recognised(tmp_path: Path) -> None:
    torch.save(DinoVisionTransformer(**{**TINY, 'embed_dim': 64}).state_dict(), tmp_path / 'wide.pth')
    with pytest.raises(ValueError, match='wrong shape: cls_token .*The file looks like a DINOv2 ViT of width 64'):
        DINOv2Tower(TINY, tmp_path / 'wide.pth')


def test_antialias_can_be_chosen() -> None:
    tower = DINOv2Tower(TINY, 'random', interpolate_antialias=True)
    assert tower.network.interpolate_antialias and not DINOv2Tower(TINY, 'random').network.interpolate_antialias


@pytest.mark.parametrize('model, message', [('dinov2_vitx14', "unknown DINOv2 model 'dinov2_vitx14'; did you mean"),
                                            (dict(width=3), r"unknown sizes of a DINOv2 model \['width'\]")])
def test_wrong_models_are_refused(model: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DINOv2Tower(model, 'random')


def test_published_weights_that_are_absent_are_described(weights_home: Path) -> None:
    with pytest.raises(FileNotFoundError, match='dinov2_vitl14_pretrain.pth .about 1218 MB, licence: Apache-2.0'):
        DINOv2Tower()


def test_swiglu_width_is_rounded_up_to_a_multiple_of_eight() -> None:
    network = DinoVisionTransformer(**TINY, swiglu=True)
    assert network.blocks[0].mlp.w3.in_features == 88
    assert network(torch.zeros(1, 3, 28, 28))[0]['patch'].shape == (1, 32, 7, 7)
