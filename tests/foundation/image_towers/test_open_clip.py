from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import frozenmm  # noqa: F401  (its stand-ins make open_clip importable)
from frozenmm.foundation.image_towers.open_clip import OpenCLIPTower, build_visual, open_clip_model, published_file
from frozenmm.foundation.image_towers.timm_reader import TimmVisual
from frozenmm.registry import MODELS

open_clip = pytest.importorskip('open_clip')
timm = pytest.importorskip('timm')
VIT = dict(embed_dim=24, vision_cfg=dict(image_size=32, layers=2, width=32, head_width=8, patch_size=8, mlp_ratio=2.0))
RESNET = dict(embed_dim=24, vision_cfg=dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=8, patch_size=None))
CONVNEXT = dict(embed_dim=24, vision_cfg=dict(image_size=64, timm_model_name='convnext_atto', timm_pool='',
                                              timm_proj='mlp'))
MEAN_POOL = dict(embed_dim=24, vision_cfg=dict(image_size=32, layers=2, width=32, head_width=8, patch_size=8,
                                               pool_type='avg', no_ln_pre=True, final_ln_after_pool=True))
TRUNK_VIT = dict(embed_dim=192, vision_cfg=dict(image_size=224, timm_model_name='vit_tiny_patch16_224',
                                                timm_pool='token', timm_proj='none'))
CONFIGS = dict(vit=VIT, resnet=RESNET, convnext=CONVNEXT, mean_pool=MEAN_POOL, trunk_vit=TRUNK_VIT)


def _official(config: dict, quick_gelu: bool = False) -> torch.nn.Module:
    return open_clip.model._build_vision_tower(config['embed_dim'], dict(config['vision_cfg']), quick_gelu).eval()


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 3, 70, 100, generator=generator) * 255


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('quick_gelu', [False, True])
def test_embeddings_are_those_of_open_clip_with_the_weights_of_the_file(name: str, quick_gelu: bool, images: Tensor,
                                                                        tmp_path: Path) -> None:
    config = {**CONFIGS[name], 'quick_gelu': quick_gelu}
    official = _official(config, quick_gelu)
    state = {f'visual.{key}': value for key, value in official.state_dict().items()}
    torch.save({**state, 'logit_scale': torch.ones(1)}, tmp_path / 'clip.pt')
    tower = OpenCLIPTower(config, tmp_path / 'clip.pt')
    mean, std = tower.input.stats.tensors(images)
    pixels = torch.rand(2, 3, tower.size, tower.size)
    features = tower(pixels * std + mean)
    with torch.no_grad():
        torch.testing.assert_close(features.class_token, official(pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name, maps, width', [
    ('vit', ['patch'], 24), ('resnet', ['res2', 'res3', 'res4', 'res5', 'clip_vis_dense'], 24),
    ('convnext', ['res2', 'res3', 'res4', 'res5', 'clip_vis_dense'], 24), ('mean_pool', ['patch'], 32),
    ('trunk_vit', ['patch'], 192)])
def test_a_tower_gives_what_it_says(name: str, maps: list[str], width: int, images: Tensor) -> None:
    tower = MODELS.build(dict(type='frozenmm.OpenCLIPTower', model=CONFIGS[name], weights='random'))
    for count in (1, 5):
        features = tower(images, num_tokens=count)
        assert features.tokens.shape == (2, count, width) and tower.token_channels == width
    assert list(features.maps) == maps == list(tower.channels)
    for key, value in features.maps.items():
        side = tower.size // tower.strides[key]
        assert value.shape == (2, tower.channels[key], side, side)
    assert features.class_token.shape == (2, CONFIGS[name]['embed_dim'])


def test_the_image_token_of_a_convnext_is_its_embedding_and_cells_are_pooled_alike(images: Tensor) -> None:
    tower = OpenCLIPTower(CONVNEXT, 'random')
    one, five = tower(images, num_tokens=1), tower(images, num_tokens=5)
    assert torch.equal(one.tokens[:, 0], one.class_token)
    torch.testing.assert_close(five.tokens[:, 0], one.class_token, atol=1e-5, rtol=1e-5)
    corner = five.map('clip_vis_dense')[:, :, :1, :1].mean((2, 3))
    torch.testing.assert_close(five.tokens[:, 1], tower.visual_prediction(corner))


def test_projected_cells_have_the_mean_of_their_pooling(images: Tensor) -> None:
    tower = OpenCLIPTower(CONVNEXT, 'random', patch_output='projected')
    features = tower(images)
    assert tower.channels['patch'] == 24 and tower.strides['patch'] == 32
    cell = features.map('clip_vis_dense')[:, :, 1, 0]
    torch.testing.assert_close(features.map('patch')[:, :, 1, 0], tower.visual_prediction(cell))


def projection_head(kind: str, inputs: int, output: int) -> nn.Sequential:
    """The projection of an open_clip model with a timm trunk, under its key names."""
    if kind == 'linear':
        return nn.Sequential(OrderedDict(proj=nn.Linear(inputs, output, bias=False)))
    mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(inputs, 2 * output), act=nn.GELU(),
                                    fc2=nn.Linear(2 * output, output, bias=False)))
    return nn.Sequential(OrderedDict(mlp=mlp))


@pytest.mark.parity
@pytest.mark.parametrize('name', ['convnext_linear', 'convnext_mlp'])
@torch.no_grad()
def test_visual_prediction_equals_the_recorded_one(golden_case, name: str) -> None:
    case = golden_case('fc_clip', f'clip_visual_prediction__{name}')
    width, output = case.params['channels'], case.params['embed_dim']
    trunk = timm.create_model('convnext_atto', num_classes=0, depths=(1, 1, 1, 1), dims=(2, 4, 6, width))
    network = TimmVisual(trunk, projection_head(case.params['projection'], width, output), output)
    weights = {key.removeprefix('visual.'): value for key, value in case.weights.items()}
    result = network.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys and not [key for key in result.missing_keys if 'head' in key]
    case.check('embedding', network.project(case.inputs['pooled']))


def test_a_plain_vit_takes_any_resolution_and_more_tokens(images: Tensor) -> None:
    tower = OpenCLIPTower(VIT, 'random', resize_mode='none')
    features = tower(images, num_tokens=14)
    assert features.map().shape == (2, 32, 9, 13) and features.tokens.shape == (2, 14, 24)
    projected = OpenCLIPTower(VIT, 'random', resize_mode='none', patch_output='projected')(images).map()
    torch.testing.assert_close(tower.visual_prediction(features.map()[:, :, 0, 0]), projected[:, :, 0, 0])


def test_a_resnet_pools_by_attention_instead(images: Tensor) -> None:
    tower = OpenCLIPTower(RESNET, 'random')
    with pytest.raises(TypeError, match='pools by attention: use `network.attnpool.pool_masks'):
        tower.visual_prediction(torch.zeros(1, 256))
    inside = torch.ones(2, 3, 2, 2, dtype=torch.bool)
    assert tower.network.attnpool.pool_masks(tower(images).map(), inside).shape == (2, 3, 24)


@pytest.mark.parametrize('name, channels', [('convnext_large_d_320', [192, 384, 768, 1536, 1536]),
                                            ('convnext_base_w', [128, 256, 512, 1024, 1024])])
def test_convnext_towers_have_the_published_widths(name: str, channels: list[int]) -> None:
    config = open_clip.get_model_config(name)
    with torch.device('meta'):
        visual = build_visual(config, False)
    assert list(visual.channels.values()) == channels and list(visual.strides.values()) == [4, 8, 16, 32, 32]
    assert visual.output_dim == config['embed_dim']


def test_the_preferred_weights_of_the_segmentors_are_the_default() -> None:
    key, config, description = open_clip_model('convnext_large_d_320', None)
    assert key == 'convnext_large_d_320/laion2b_s29b_b131k_ft_soup'
    file = published_file(key, config, description)
    assert file.url == ('https://huggingface.co/laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup/resolve/main/'
                        'open_clip_model.safetensors')
    assert file.file_name == 'open_clip_convnext_large_d_320.laion2b_s29b_b131k_ft_soup.safetensors'
    assert 1000 < file.megabytes < 2000


def test_openai_weights_bring_their_activation(weights_home: Path) -> None:
    _, config, description = open_clip_model('ViT-B-32', 'openai')
    assert description['quick_gelu'] and 'quick_gelu' not in config
    with pytest.raises(FileNotFoundError, match='weights of open_clip ViT-B-32/openai .*openaipublic.azureedge.net'):
        OpenCLIPTower('ViT-B-32', pretrained='openai')


@pytest.mark.parametrize('options, message', [
    (dict(model='convnext_larg'), "unknown open_clip model 'convnext_larg'; did you mean one of .'convnext_large"),
    (dict(model='ViT-B-32', pretrained='mine'), r"open_clip has no weights 'mine' of ViT-B-32; it has \['openai'"),
    (dict(model=dict(width=3)), r"needs embed_dim and vision_cfg, got \['width'\]"),
    (dict(model=CONVNEXT, weights='random', patch_output='normed'), "patch_output='normed' needs a ViT"),
    (dict(model=TRUNK_VIT, weights='random', patch_output='projected'), 'pools before it projects'),
    (dict(model=VIT, patch_output='dense'), "patch_output must be one of .*got 'dense'"),
    (dict(model=MEAN_POOL, weights='random', size=64), 'built for inputs of 32 pixels; use size=32'),
    (dict(model=MEAN_POOL, weights='random', resize_mode='none'), 'built for inputs of 32 pixels'),
    (dict(model=VIT), "open_clip custom has no published weights; give weights='path/to/file'"),
])
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenCLIPTower(**options)


def test_the_file_of_another_model_is_recognised(tmp_path: Path) -> None:
    state = build_visual(CONVNEXT, False).state_dict()
    torch.save({f'visual.{key}': value for key, value in state.items()}, tmp_path / 'convnext.pt')
    with pytest.raises(ValueError, match='The file looks like an open_clip model with a timm image trunk'):
        OpenCLIPTower(VIT, tmp_path / 'convnext.pt')
