from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from frozenmm.foundation.image_towers.clip import MODELS_BY_NAME, CLIPTower, clip_model, image_part
from frozenmm.foundation.image_towers.clip_resnet import AttentionPool, ModifiedResNet
from frozenmm.foundation.image_towers.clip_vit import CLIPVisionTransformer
from frozenmm.foundation.masked_tokens import multi_token_mask
from frozenmm.registry import MODELS

TINY_RESNET = dict(input_resolution=64, layers=(1, 1, 1, 1), width=8, heads=4, output_dim=12)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 3, 40, 56, generator=generator) * 255


def _network(case) -> CLIPVisionTransformer:
    keys = ('input_resolution', 'patch_size', 'width', 'layers', 'heads', 'output_dim')
    network = CLIPVisionTransformer(**{key: case.params[key] for key in keys})
    network.load_state_dict(case.weights, strict=True)
    return network.eval()


@pytest.mark.parity
@pytest.mark.parametrize('name', ['t5_g6', 't14_g6'])
@torch.no_grad()
def test_masked_class_tokens_equal_the_recorded_ones(golden_case, name: str) -> None:
    case = golden_case('frozen_detr', f'clip_multi_class_token__{name}')
    count = case.params['num_class_tokens']
    network = _network(case)
    maps, tokens = network(case.inputs['image'], count)
    case.check('patch_map', maps['patch'])
    case.check('class_tokens', tokens)
    case.check('plain_class_token', network(case.inputs['image'])[1][:, 0])
    assert torch.equal(multi_token_mask(case.params['patch_grid'], count), case.outputs['attn_mask'].bool())


@pytest.mark.parity
@torch.no_grad()
def test_projected_patches_equal_the_recorded_visual_tokens(golden_case) -> None:
    case = golden_case('fusioner', 'clip_visual_tokens__p4_r16')
    maps, tokens = _network(case)(case.inputs['image'], 1, 'projected')
    found = maps['patch'].flatten(2).transpose(1, 2)
    case.check('tokens', found)
    case.check('unit_tokens', found / found.norm(dim=-1, keepdim=True))
    case.check('cls', tokens[:, 0])


@pytest.mark.parity
@torch.no_grad()
def test_pooling_of_masks_equals_the_recorded_one(golden_case) -> None:
    case = golden_case('fc_clip', 'clip_visual_prediction__resnet_attnpool')
    width = case.inputs['features'].shape[1]
    pool = AttentionPool(case.params['position_side'], width, case.params['num_heads'], case.params['embed_dim'])
    prefix = 'visual.attnpool.'
    pool.load_state_dict({key[len(prefix):]: value for key, value in case.weights.items()}, strict=True)
    case.check('embedding', pool.pool_masks(case.inputs['features'], case.inputs['mask_logits'] > 0))


@torch.no_grad()
def test_an_empty_mask_pools_to_the_output_bias(generator: torch.Generator) -> None:
    pool = AttentionPool(2, 8, 2, 4)
    inside = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    inside[0, 0, 0, 0] = True
    found = pool.pool_masks(torch.randn(1, 8, 2, 2, generator=generator), inside)
    assert torch.equal(found[0, 1], pool.c_proj.bias) and found.isfinite().all()


@pytest.mark.parametrize('sizes', [TINY_RESNET, dict(input_resolution=24, patch_size=4, width=32, layers=2, heads=4,
                                                     output_dim=12)])
@torch.no_grad()
def test_one_token_is_the_first_of_five(sizes: dict, generator: torch.Generator) -> None:
    network = clip_model(sizes)[1].build().eval()
    side = sizes['input_resolution']
    pixels = torch.randn(2, 3, side, side, generator=generator)
    (maps, one), (maps_of_five, five) = network(pixels, 1), network(pixels, 5)
    torch.testing.assert_close(five[:, :1], one)
    torch.testing.assert_close(list(maps_of_five.values()), list(maps.values()))
    assert not torch.allclose(five[:, 1], five[:, 2])


@torch.no_grad()
def test_a_cell_token_sees_only_its_cell(tiny_clip: dict, generator: torch.Generator) -> None:
    network = CLIPVisionTransformer(**{**tiny_clip, 'layers': 1})
    pixels = torch.randn(1, 3, 24, 24, generator=generator)
    other = pixels.clone()
    other[..., 12:] += 1  # right half
    before, after = network(pixels, 5)[1], network(other, 5)[1]
    assert torch.equal(before[:, [1, 3]], after[:, [1, 3]])
    assert not torch.allclose(before[:, [2, 4]], after[:, [2, 4]])


@pytest.mark.parametrize('name, widths, heads', [
    ('RN50', [256, 512, 1024, 2048], 32), ('RN50x4', [320, 640, 1280, 2560], 40),
    ('RN50x16', [384, 768, 1536, 3072], 48), ('RN50x64', [512, 1024, 2048, 4096], 64)])
def test_resnets_have_the_published_widths(name: str, widths: list[int], heads: int) -> None:
    with torch.device('meta'):
        network = MODELS_BY_NAME[name].build()
    assert list(network.channels.values()) == widths and network.attnpool.heads == heads
    assert network.attnpool.v_proj.in_features == widths[-1]


@pytest.mark.parametrize('name, millions', [('ViT-B/32', 87.85), ('ViT-B/16', 86.19), ('ViT-L/14', 303.97),
                                            ('ViT-L/14@336px', 304.29), ('RN50', 38.32), ('RN101', 56.26)])
def test_published_sizes_have_the_published_number_of_parameters(name: str, millions: float) -> None:
    with torch.device('meta'):
        network = MODELS_BY_NAME[name].build()
    assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize('output, width', [('raw', 32), ('normed', 32), ('projected', 24)])
def test_a_vit_tower_gives_what_it_says(tiny_clip: dict, images: Tensor, output: str, width: int) -> None:
    tower = MODELS.build(dict(type='frozenmm.CLIPTower', model=tiny_clip, weights='random', patch_output=output))
    features = tower(images, [(40, 56), (30, 41)], num_tokens=5)
    assert features.map('patch').shape == (2, width, 6, 6) and tower.channels == {'patch': width}
    assert tower.strides == {'patch': 4} and features.tokens.shape == (2, 5, 24) and tower.token_channels == 24
    assert torch.equal(features.class_token, features.tokens[:, 0])


@pytest.mark.parametrize('output', ['raw', 'projected'])
def test_a_resnet_tower_gives_what_it_says(images: Tensor, output: str) -> None:
    tower = CLIPTower(TINY_RESNET, 'random', patch_output=output, resize_mode='none')
    features = tower(images, num_tokens=14)
    names = ['res2', 'res3', 'res4', 'res5'] + (['patch'] if output == 'projected' else [])
    assert list(features.maps) == names == list(tower.channels)
    for key, value in features.maps.items():
        assert value.shape == (2, tower.channels[key], 64 // tower.strides[key], 64 // tower.strides[key])
    assert features.tokens.shape == (2, 14, 12) and tower.token_channels == 12


def test_other_sizes_resize_the_positions(tiny_clip: dict, images: Tensor) -> None:
    larger = CLIPTower(tiny_clip, 'random', size=48)(images, num_tokens=14)
    assert larger.map().shape == (2, 32, 12, 12) and larger.tokens.shape == (2, 14, 24)
    assert CLIPTower(tiny_clip, 'random', resize_mode='none')(images).map().shape == (2, 32, 10, 14)


@torch.no_grad()
def test_resized_positions_keep_the_class_row_and_interpolate_bilinearly(tiny_clip: dict) -> None:
    network = CLIPVisionTransformer(**tiny_clip)
    table = network.positions((12, 6))
    assert torch.equal(table[0], network.positional_embedding[0]) and table.shape == (73, 32)
    rows = network.positional_embedding[1:].view(6, 6, 32)
    torch.testing.assert_close(table[1:].view(12, 6, 32)[1], 0.75 * rows[0] + 0.25 * rows[1])


def test_towers_of_one_model_share_a_network(tiny_clip: dict) -> None:
    first, second = CLIPTower(tiny_clip, 'random'), CLIPTower(tiny_clip, 'random', resize_mode='squash', size=48)
    assert first.network is second.network
    assert CLIPTower(tiny_clip, 'random:1').network is not first.network


class OfficialCLIP(nn.Module):
    """The outline of an official file: image encoder, text, scale; half precision, TorchScript."""

    def __init__(self, sizes: dict) -> None:
        super().__init__()
        self.visual = CLIPVisionTransformer(**sizes)
        self.token_embedding = nn.Embedding(5, 4)
        self.logit_scale = nn.Parameter(torch.ones([]))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)[1] * self.logit_scale


@pytest.mark.parametrize('kind', ['torchscript', 'state', 'image encoder alone'])
def test_weights_load_from_every_form_of_file(tiny_clip: dict, tmp_path: Path, images: Tensor, kind: str) -> None:
    official = OfficialCLIP(tiny_clip).eval()
    official.load_state_dict({key: value.half().float() for key, value in official.state_dict().items()})
    path = tmp_path / 'clip.pt'
    if kind == 'torchscript':
        torch.jit.trace(official.half().float(), torch.zeros(1, 3, 24, 24), strict=False).save(str(path))
    else:
        part = official if kind == 'state' else official.visual
        torch.save({key: value.half() for key, value in part.state_dict().items()}, path)
    tower = CLIPTower(tiny_clip, path)
    assert tower.network.proj.dtype == torch.float32 and tower.name == 'CLIP custom (clip.pt)'
    assert torch.equal(tower.network.proj, official.visual.proj)
    pixels, _, _ = tower.prepare(images, [(40, 56)] * 2, CLIPTower(tiny_clip, 'random').input.stats)
    torch.testing.assert_close(tower(images, None, tower.input.stats).class_token, official.visual(pixels)[1][:, 0])


def test_the_file_of_another_model_is_recognised(tiny_clip: dict, tmp_path: Path) -> None:
    torch.save(OfficialCLIP(tiny_clip).state_dict(), tmp_path / 'small.pt')
    wider = {**tiny_clip, 'width': 64}
    with pytest.raises(ValueError, match=r'small.pt does not fit CLIP custom .*: wrong shape: class_embedding is '
                       r'\(32,\), not \(64,\).*The file looks like a CLIP ViT of width 32, patch 4, 24 px'):
        CLIPTower(wider, tmp_path / 'small.pt')
    torch.save(ModifiedResNet(**TINY_RESNET).state_dict(), tmp_path / 'resnet.pt')
    with pytest.raises(ValueError, match='The file looks like a CLIP ResNet of width 8'):
        CLIPTower(tiny_clip, tmp_path / 'resnet.pt')


def test_published_weights_that_are_absent_are_described(weights_home: Path) -> None:
    with pytest.raises(FileNotFoundError, match='weights of CLIP ViT-L/14@336px are not on this machine: '
                       'ViT-L-14-336px.pt .about 934 MB, licence: MIT.*openaipublic'):
        CLIPTower('ViT-L-14-336px')


@pytest.mark.parametrize('options, message', [
    (dict(model='ViT-L/15'), "unknown CLIP model 'ViT-L/15'; did you mean one of .*'ViT-L/14'"),
    (dict(model=dict(width=3)), r'sizes of a CLIP model are .*got \[\'width\'\]'),
    (dict(model=TINY_RESNET, weights='random', patch_output='normed'), "patch_output='normed' needs a ViT"),
    (dict(model=TINY_RESNET, weights='random', patch_output='dense'), "patch_output must be one of .*got 'dense'"),
])
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPTower(**options)


def test_an_unknown_activation_is_refused(tiny_clip: dict) -> None:
    with pytest.raises(ValueError, match="activation must be one of .*got 'relu'"):
        CLIPVisionTransformer(**tiny_clip, activation='relu')


def test_an_image_encoder_alone_passes_through() -> None:
    state = {'proj': torch.zeros(1)}
    assert image_part(state) is state


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_lower_precision_stays_near(tiny_clip: dict, images: Tensor, precision: str) -> None:
    expected = CLIPTower(tiny_clip, 'random')(images, num_tokens=5)
    found = CLIPTower(tiny_clip, 'random', precision=precision, size=24)(images, num_tokens=5)
    assert found.tokens.dtype == torch.float32
    torch.testing.assert_close(found.tokens, expected.tokens, atol=0.1, rtol=0.1)
