from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import frozenmm  # noqa: F401  (its stand-ins make timm importable)
from frozenmm.foundation.feature_cache.recipe import differences, recipe_of
from frozenmm.foundation.image_towers.dinov2_vit import DinoVisionTransformer
from frozenmm.foundation.image_towers.timm import TimmTower, published_file
from frozenmm.foundation.image_towers.timm_reader import TimmReader
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

timm = pytest.importorskip('timm')
SMALL = {
    'resnet10t': ['res1', 'res2', 'res3', 'res4', 'res5'],
    'convnext_atto': ['res2', 'res3', 'res4', 'res5'],
    'mobilenetv3_small_050': ['res1', 'res2', 'res3', 'res4', 'res5'],
    'pvt_v2_b0': ['res2', 'res3', 'res4', 'res5'],
    'vit_tiny_patch16_224': ['patch'],
    'xcit_nano_12_p16_224': ['patch'],
}


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 3, 70, 100, generator=generator) * 255


@pytest.mark.parametrize('model', SMALL)
def test_maps_have_the_stated_names_widths_and_strides(model: str, images: Tensor) -> None:
    tower = MODELS.build(dict(type='frozenmm.TimmTower', model=model, weights='random'))
    features = tower(images, num_tokens=1)
    assert list(features.maps) == SMALL[model]
    for key, value in features.maps.items():
        side = tower.size // tower.strides[key]
        assert value.shape == (2, tower.channels[key], side, side)
    assert features.tokens.shape == (2, 1, tower.token_channels)


def _reference(model: nn.Module, tower: TimmTower, images: Tensor) -> Tensor:
    pixels, _, _ = tower.prepare(images, [tuple(images.shape[-2:])] * len(images), ImageStats())
    with torch.no_grad():
        return model.forward_features(pixels)


@pytest.mark.parametrize('model', ['resnet10t', 'vit_tiny_patch16_224', 'deit_tiny_distilled_patch16_224'])
def test_features_are_those_of_timm_with_the_weights_of_the_file(model: str, images: Tensor, tmp_path: Path) -> None:
    original = timm.create_model(model).eval()
    torch.save({'state_dict': original.state_dict()}, tmp_path / 'net.pth')
    tower = TimmTower(model, tmp_path / 'net.pth')
    expected = _reference(original, tower, images)
    features = tower(images, num_tokens=1)
    if expected.dim() == 3:
        torch.testing.assert_close(features.class_token, expected[:, 0])
        expected = expected[:, original.num_prefix_tokens:].transpose(1, 2).reshape(features.map().shape)
    torch.testing.assert_close(features.map(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tower.input.stats.mean, tuple(255 * value for value in original.pretrained_cfg['mean']))


def test_a_vit_gives_its_class_token_once_and_means_of_patches_beyond(images: Tensor) -> None:
    tower = TimmTower('vit_tiny_patch16_224', 'random', size=96)
    one, five = tower(images, num_tokens=1), tower(images, num_tokens=5)
    assert torch.equal(one.tokens[:, 0], one.class_token) and torch.equal(one.class_token, five.class_token)
    torch.testing.assert_close(five.tokens[:, 0], five.map().mean((2, 3)))


def test_raw_patches_are_those_before_the_final_norm(images: Tensor) -> None:
    normed = TimmTower('vit_tiny_patch16_224', 'random', size=64)
    raw = TimmTower('vit_tiny_patch16_224', 'random', size=64, patch_output='raw')
    assert raw.network is normed.network
    norm = raw.network.trunk.norm
    torch.testing.assert_close(norm(raw(images).map().movedim(1, -1)).movedim(-1, 1), normed(images).map())


def _with_other_norms(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """As drawn, norms do too little to be missed."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight += 0.3 * torch.randn(module.weight.shape, generator=generator)
                module.bias += 0.3 * torch.randn(module.bias.shape, generator=generator)
    return network.eval()


PLAIN = dict(depth=2, embed_dim=48, num_heads=3)
"""Width and depth that timm's entry points accept; the structure is what counts here."""
MODERN = {
    'vit_base_patch16_siglip_224': 'norm',  # SigLIP 2
    'vit_pe_core_tiny_patch16_384': 'norm',  # Perception Encoder
    'vit_pe_spatial_tiny_patch16_512': None,
    'vit_base_patch16_radio_v3': None,  # C-RADIO
    'vit_base_patch14_reg1_tipsv2': 'norm',  # TIPS v2
    'eva02_tiny_patch14_224': 'fc_norm',
    'eva02_base_patch16_clip_224': 'norm',
    'vit_base_patch16_clip_224': 'norm',  # DFN, MetaCLIP
    'beit_base_patch16_224': 'fc_norm',
    'vit_small_patch16_dinov3': 'norm',
}


@pytest.mark.parametrize('model', MODERN)
def test_patches_and_taps_stand_behind_the_last_norm(model: str, generator: torch.Generator) -> None:
    network = _with_other_norms(timm.create_model(model, num_classes=0, **PLAIN), generator)
    reader = TimmReader(network)
    assert reader.last_norm == MODERN[model] and reader.blocks == (2, 48)
    side = reader.patch * 4 if not reader.fixed_size else 224
    if not getattr(network, 'dynamic_img_size', False):
        side = network.patch_embed.img_size[0]
    pixels = torch.randn(1, 3, side, side, generator=generator)
    with torch.no_grad():
        expected = network.forward_features(pixels)  # timm leaves `fc_norm` to its head
        if MODERN[model] == 'fc_norm':
            expected = network.fc_norm(expected)
        maps, class_token = reader(pixels)
        tapped, _ = reader(pixels, True, [0, 1])
        raw, _ = reader(pixels, False, [1])
    patches = maps['patch'].flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, expected[:, -patches.shape[1]:])
    torch.testing.assert_close(tapped['tap1'], expected)
    assert torch.equal(tapped['patch'], maps['patch']) and tapped['tap0'].shape == expected.shape
    assert torch.equal(raw['patch'], maps['patch']) == (MODERN[model] is None)
    if class_token is not None:
        torch.testing.assert_close(class_token, expected[:, 0])


@pytest.mark.parametrize('model', ['swin_tiny_patch4_window7_224', 'vitamin_small_224', 'sam2_hiera_tiny'])
def test_the_last_map_of_a_hierarchical_network_is_normed_where_it_has_a_norm(
        model: str, generator: torch.Generator) -> None:
    tower = TimmTower(model, 'random', **({'size': 256} if model.startswith('sam2') else {}))
    trunk = tower.network.trunk
    images = torch.rand(1, 3, 96, 96, generator=generator) * 255
    pixels, _, _ = tower.prepare(images, [(96, 96)], ImageStats())
    with torch.no_grad():
        expected = trunk.forward_features(pixels)
        if model.startswith('vitamin'):
            rows = tower.size // tower.strides['patch']
            expected = trunk.fc_norm(expected).view(1, rows, rows, -1)
    if expected.shape[1] != tower.channels[list(tower.channels)[-1]]:
        expected = expected.permute(0, 3, 1, 2)
    torch.testing.assert_close(tower(images).map(), expected, atol=1e-5, rtol=1e-5)
    assert tower.last_norm == dict(swin='norm', vitamin='fc_norm').get(model.partition('_')[0])


def test_features_that_were_cached_without_the_last_norm_do_not_fit() -> None:
    tower = TimmTower('swin_tiny_patch4_window7_224', 'random')
    recipe = recipe_of(tower)
    assert differences({key: value for key, value in recipe.items() if key != 'last_norm'}, recipe)
    old = recipe_of(TimmTower('vit_tiny_patch16_224', 'random'))
    assert not differences({key: value for key, value in old.items() if key != 'last_norm'}, old)


@pytest.mark.parametrize('model', ['resnet10t', 'vit_tiny_patch16_224'])
def test_free_resolution_works_where_the_network_allows_it(model: str, images: Tensor) -> None:
    tower = TimmTower(model, 'random', resize_mode='none')
    rows, columns = -(-70 // tower.input.patch), -(-100 // tower.input.patch)
    assert tower(images).map().shape[-2:] == (rows, columns)


def test_a_network_of_one_size_is_built_for_the_size_asked_for(images: Tensor) -> None:
    tower = TimmTower('mixer_s32_224', 'random', size=96)
    assert tower(images).map().shape == (2, 512, 3, 3)
    with pytest.raises(ValueError, match="built for inputs of one size; resize_mode='none' needs a network without"):
        TimmTower('mixer_s32_224', 'random', resize_mode='none')


def test_official_dinov2_files_load_into_timms_network(tmp_path: Path, images: Tensor) -> None:
    official = DinoVisionTransformer().eval()
    torch.save(official.state_dict(), tmp_path / 'dinov2_vits14_pretrain.pth')
    tower = TimmTower('vit_small_patch14_dinov2', tmp_path / 'dinov2_vits14_pretrain.pth')
    # one block of twelve says as much as all
    official.blocks, tower.network.trunk.blocks = official.blocks[:1], tower.network.trunk.blocks[:1]
    tower.network.indices = [0]
    features = tower(images[:1])
    pixels, _, _ = tower.prepare(images[:1], [(70, 100)], ImageStats())
    with torch.no_grad():
        maps, tokens = official(pixels)
    torch.testing.assert_close(features.map(), maps['patch'], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features.class_token, tokens[:, 0], atol=1e-4, rtol=1e-4)


def test_the_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model('resnet18').state_dict(), tmp_path / 'r18.pth')
    with pytest.raises(ValueError, match=r'r18.pth does not fit timm resnet10t .*looks like a ResNet in torchvision'):
        TimmTower('resnet10t', tmp_path / 'r18.pth')


def test_published_weights_are_found_in_the_cache_folder(weights_home: Path) -> None:
    weights_home.mkdir(parents=True)
    original = timm.create_model('resnet10t')
    save_file(original.state_dict(), weights_home / 'resnet10t.c3_in1k.safetensors')
    assert torch.equal(TimmTower('resnet10t').network.trunk.conv1[0].weight, original.conv1[0].weight)


def test_published_weights_that_are_absent_are_described(weights_home: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'resnet18.a1_in1k.safetensors .about 44 MB, licence: apache-2.0. '
                       r'comes from https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors'):
        TimmTower('resnet18')


def test_a_model_without_published_weights_says_so(weights_home: Path) -> None:
    model = 'convnext_atto_rms'
    assert published_file(model, 1) is None
    with pytest.raises(ValueError, match=f'timm {model} has no published weights'):
        TimmTower(model)


@pytest.mark.parametrize('model, message', [
    ('resnt18', "unknown timm model 'resnt18'; did you mean one of .'resnet18'"),
    ('resnet18.nowhere', r"timm has no weights 'nowhere' of resnet18; it has \['resnet18.a1_in1k'"),
])
def test_unknown_names_are_answered_with_known_ones(model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmTower(model)


def test_an_unknown_patch_output_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_output must be 'normed' or 'raw', got 'projected'"):
        TimmTower('resnet10t', 'random', patch_output='projected')


def test_a_model_without_intermediate_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="timm's Linear gives no intermediate maps"):
        TimmReader(nn.Linear(1, 1))
