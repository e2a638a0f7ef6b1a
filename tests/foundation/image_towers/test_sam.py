from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import frozenmm  # noqa: F401  (its stand-ins make segment_anything importable)
from frozenmm.errors import UnknownName
from frozenmm.foundation.image_towers.sam import SAM_MODELS, MobileSAMTower, SAMTower
from frozenmm.foundation.image_towers.sam_vit import ImageEncoderViT, SAMSizes, in_windows, relative_table
from frozenmm.foundation.image_towers.tiny_vit_network import TinyViT
from frozenmm.registry import MODELS

VIT = dict(img_size=128, patch_size=16, embed_dim=48, depth=3, num_heads=4, window_size=3, global_attn_indexes=[1],
           out_chans=32)
TINY = dict(img_size=64, embed_dims=[8, 12, 16, 24], depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2],
            window_sizes=[3, 3, 4, 3], neck_chans=16)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 3, 70, 100, generator=generator) * 255


@pytest.mark.parity
@pytest.mark.parametrize('name, family', [
    ('vit_windows', lambda **sizes: ImageEncoderViT(SAMSizes(**sizes))), ('tinyvit', TinyViT)])
@torch.no_grad()
def test_maps_equal_the_recorded_ones(golden_case, name: str, family: Callable[..., nn.Module]) -> None:
    case = golden_case('frozen_seg', f'sam_image_features__{name}')
    network = family(**{key: value for key, value in case.params.items() if key != 'type'}).eval()
    network.load_state_dict(case.weights, strict=True)
    maps = network(case.inputs['image'])
    case.check('embedding', maps.pop('neck'))
    recorded = [key for key in case.outputs if key.startswith('interm')]
    assert len(maps) == len(recorded)
    for index, value in enumerate(maps.values()):
        case.check(f'interm.{index}', value)


@torch.no_grad()
def test_the_encoder_equals_that_of_segment_anything(generator: torch.Generator) -> None:
    package = pytest.importorskip('segment_anything.modeling')
    official = package.ImageEncoderViT(**VIT, use_rel_pos=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    state = {key: torch.randn(value.shape, generator=generator) * 0.1 for key, value in official.state_dict().items()}
    official.load_state_dict(state)
    network = ImageEncoderViT(SAMSizes(**VIT))
    network.load_state_dict(state, strict=True)
    pixels = torch.randn(2, 3, 128, 128, generator=generator)
    torch.testing.assert_close(network(pixels)['neck'], official(pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name, parameters', [('vit_b', 89_670_912), ('vit_l', 308_278_272), ('vit_h', 637_026_048)])
def test_published_sizes_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device('meta'):
        network = ImageEncoderViT(SAMSizes(**SAM_MODELS[name][0]))
    assert sum(value.numel() for value in network.parameters()) == parameters


def test_mobile_sam_has_the_published_sizes() -> None:
    with torch.device('meta'):
        network = TinyViT()
    assert network.channels == {'stage1': 160, 'stage2': 320, 'stage3': 320, 'neck': 256}
    assert set(network.strides.values()) == {16}


@pytest.mark.parametrize('config', [
    dict(type='frozenmm.SAMTower', model=VIT, out_maps=['global1', 'neck']),
    dict(type='frozenmm.MobileSAMTower', model=TINY, out_maps=['stage1', 'stage3', 'neck'])])
def test_a_tower_gives_what_it_says(config: dict, images: Tensor) -> None:
    tower = MODELS.build(dict(config, weights='random'))
    features = tower(images, [(70, 100), (40, 100)], num_tokens=5)
    side = tower.size // 16
    assert list(features.maps) == config['out_maps']
    for key, value in features.maps.items():
        assert value.shape == (2, tower.channels[key], side, side) and tower.strides[key] == 16
    assert features.tokens.shape == (2, 5, tower.token_channels) and features.class_token is None
    assert features.region[0].tolist() == [0, 0, 100, 100]


@pytest.mark.parametrize('tower', [lambda **options: SAMTower(VIT, 'random', **options),
                                   lambda **options: MobileSAMTower('random', model=TINY, **options)])
def test_other_sizes_work(tower, images: Tensor) -> None:
    assert list(tower().channels) == ['neck']
    assert tower(size=96)(images).map().shape[-2:] == (6, 6)
    assert tower(resize_mode='none')(images).map().shape[-2:] == (5, 7)


def test_relative_positions_are_indexed_by_query_minus_key() -> None:
    table = torch.arange(5.0)[:, None]
    assert relative_table(table, 3)[..., 0].tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert relative_table(table, 2)[..., 0].shape == (2, 2)


def test_windows_are_padded_with_zeros_and_put_back(generator: torch.Generator) -> None:
    cells = torch.randn(2, 4, 5, 3, generator=generator)
    seen = []

    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return 2 * x

    assert torch.equal(in_windows(cells, 3, Double()), 2 * cells)
    assert seen[0].shape == (8, 3, 3, 3)
    assert torch.equal(seen[0][0], cells[0, :3, :3]) and torch.equal(seen[0][3, 1:], torch.zeros(2, 3, 3))


@pytest.mark.parametrize('prefix, extra', [('image_encoder.', {'mask_decoder.x': torch.zeros(1)}), ('', {})])
def test_weights_load_from_whole_files_and_from_encoders(prefix: str, extra: dict, tmp_path: Path) -> None:
    network = ImageEncoderViT(SAMSizes(**VIT))
    torch.save({**{prefix + key: value for key, value in network.state_dict().items()}, **extra}, tmp_path / 'sam.pth')
    tower = SAMTower(VIT, tmp_path / 'sam.pth')
    assert torch.equal(tower.network.pos_embed, network.pos_embed)


def test_the_unused_classifier_of_a_mobile_sam_file_is_left_out(tmp_path: Path) -> None:
    network = TinyViT(**TINY)
    extra = {'norm_head.weight': torch.zeros(1), 'head.bias': torch.zeros(1)}
    torch.save({f'image_encoder.{key}': value for key, value in {**network.state_dict(), **extra}.items()},
               tmp_path / 'mobile_sam.pt')
    tower = MobileSAMTower(tmp_path / 'mobile_sam.pt', model=TINY)
    assert torch.equal(tower.network.neck[0].weight, network.neck[0].weight)


def test_the_file_of_another_model_is_recognised(tmp_path: Path) -> None:
    torch.save(TinyViT(**TINY).state_dict(), tmp_path / 'mobile.pt')
    with pytest.raises(ValueError, match='The file looks like a MobileSAM TinyViT of width 24'):
        SAMTower(VIT, tmp_path / 'mobile.pt')
    torch.save({f'image_encoder.{key}': value for key, value in ImageEncoderViT(SAMSizes(**VIT)).state_dict().items()},
               tmp_path / 'sam.pth')
    with pytest.raises(ValueError, match='The file looks like a SAM image encoder of width 48'):
        MobileSAMTower(tmp_path / 'sam.pth', model=TINY)


def test_published_weights_that_are_absent_are_described(weights_home: Path) -> None:
    with pytest.raises(FileNotFoundError, match='sam_vit_b_01ec64.pth .about 375 MB, licence: Apache-2.0'):
        SAMTower('sam_vit_b')
    with pytest.raises(FileNotFoundError, match='weights of MobileSAM TinyViT .*mobile_sam.pt .about 41 MB'):
        MobileSAMTower()


def test_an_unknown_model_is_answered_with_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown SAM model 'vit_x'; did you mean one of"):
        SAMTower('vit_x')


def test_a_misspelt_size_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown size of a SAM encoder 'embed_dims'; did you mean .*'embed_dim'"):
        SAMTower(dict(VIT, embed_dims=3), 'random')
