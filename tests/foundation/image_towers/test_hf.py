"""Encoders of the transformers library in its own file layout, small and at random, against the library itself."""
from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import frozenmm  # noqa: F401  (fills the holes of the installation before transformers is imported)
from frozenmm.errors import MissingFile, UserError
from frozenmm.foundation.image_towers.hf import HFTower
from frozenmm.structures import ImageStats

transformers = pytest.importorskip('transformers')
PLAIN = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96)
SQUARE = dict(PLAIN, image_size=64, patch_size=16)
STAGES = dict(depths=[1, 1, 1, 1])
WINDOWS = dict(STAGES, embed_dim=24, num_heads=[2, 2, 2, 2], image_size=64)
CONFIGS = {
    'ViT': SQUARE, 'DeiT': SQUARE, 'IJepa': SQUARE, 'SiglipVision': SQUARE,
    'Beit': dict(SQUARE, use_relative_position_bias=True), 'CLIPVision': SQUARE, 'Aimv2Vision': SQUARE,
    'Dinov2WithRegisters': dict(PLAIN, image_size=56, patch_size=14),
    'DINOv3ViT': dict(PLAIN, image_size=64, num_register_tokens=4),
    'Swin': dict(WINDOWS, window_size=2), 'Hiera': dict(STAGES, embed_dim=24, num_heads=[1] * 4, image_size=[64, 64]),
    'ConvNext': dict(STAGES, hidden_sizes=[16, 24, 32, 48]),
    'DINOv3ConvNext': dict(STAGES, hidden_sizes=[16, 24, 32, 48]),
}
NORM_OF_PATCHES = {'CLIPVision': 'post_layernorm', 'Beit': 'pooler.layernorm'}
"""Models whose own output is not behind their last norm, which stands in front of their classifier."""


def save(folder, kind, generator):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(getattr(transformers, f'{kind}Config')(**CONFIGS[kind])).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.bias += torch.randn(module.bias.shape, generator=generator)
    model.save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps(dict(
        image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.25, 0.5], resample=2)))
    return model


@pytest.mark.parametrize('kind', CONFIGS)
def test_features_are_those_of_the_library(kind, tmp_path, generator):
    model = save(tmp_path, kind, generator)
    tower = HFTower(tmp_path)
    images = torch.rand(2, 3, 70, 90, generator=generator) * 255
    features = tower(images, num_tokens=1)
    pixels, _, _ = tower.prepare(images, [(70, 90)] * 2, ImageStats())
    with torch.no_grad():
        expected = model(pixel_values=pixels).last_hidden_state
        for name in [NORM_OF_PATCHES.get(kind)] if kind in NORM_OF_PATCHES else []:
            expected = model.get_submodule(name)(expected)
        if kind == 'ConvNext':
            expected = model.layernorm(expected.movedim(1, -1)).movedim(-1, 1)
        if kind == 'Hiera':
            expected = model(pixel_values=pixels, output_hidden_states=True).reshaped_hidden_states[-1]
            expected = model.pooler.layernorm(expected).movedim(-1, 1)
    last = features.map()
    if expected.dim() == 3:
        if expected.shape[1] > last.shape[-2:].numel():
            torch.testing.assert_close(features.class_token, expected[:, 0])
        expected = expected[:, -last.shape[-2:].numel():].transpose(1, 2).reshape(last.shape)
    torch.testing.assert_close(last, expected)
    assert {name: value.shape[1] for name, value in features.maps.items()} == tower.channels
    assert all(value.shape[-1] == tower.size // tower.strides[name] for name, value in features.maps.items())


def test_taps_of_a_plain_network_stand_behind_its_last_norm(tmp_path, generator):
    model = save(tmp_path, 'DeiT', generator)
    tower = HFTower(tmp_path, taps=[0, 2])
    images = torch.rand(1, 3, 64, 64, generator=generator) * 255
    features = tower(images)
    pixels, _, _ = tower.prepare(images, [(64, 64)], ImageStats())
    with torch.no_grad():
        result = model(pixel_values=pixels, output_hidden_states=True)
        torch.testing.assert_close(features.taps[0], model.layernorm(result.hidden_states[1]))
    torch.testing.assert_close(features.taps[2], result.last_hidden_state)  # two prefix tokens and sixteen patches
    torch.testing.assert_close(features.map().flatten(2), result.last_hidden_state[:, 2:].transpose(1, 2))
    raw = HFTower(tmp_path, patch_output='raw')(images)
    torch.testing.assert_close(raw.map().flatten(2), result.hidden_states[-1][:, 2:].transpose(1, 2))


def test_preprocessing_is_read_from_the_folder_and_other_sizes_work(tmp_path, generator):
    save(tmp_path, 'ViT', generator)
    tower = HFTower(tmp_path, resize_mode='none')
    assert tower.input.stats == ImageStats((127.5, 102.0, 76.5), (51.0, 63.75, 127.5))
    assert tower.input.interpolation == 'bilinear' and tower.input.size == 64
    assert tower(torch.rand(1, 3, 50, 100, generator=generator) * 255).map().shape == (1, 48, 4, 7)


def test_a_name_that_the_hubs_client_has_stored_is_found(tmp_path, generator, monkeypatch):
    stored = tmp_path / 'models--someone--small' / 'snapshots' / ('0' * 40)
    stored.mkdir(parents=True)
    save(stored, 'ViT', generator)
    (tmp_path / 'models--someone--small' / 'refs').mkdir()
    (tmp_path / 'models--someone--small' / 'refs' / 'main').write_text('0' * 40)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    assert HFTower('someone/small').channels == {'patch': 48}
    with pytest.raises(MissingFile, match='someone/other is neither a folder with a config.json nor a model'):
        HFTower('someone/other')


def test_a_text_encoder_is_refused(tmp_path):
    config = transformers.BertConfig(**PLAIN, vocab_size=100)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="a transformers model of type 'bert' takes .*; HFTower reads image encoders"):
        HFTower(tmp_path)


def test_damaged_weights_are_refused(tmp_path, generator):
    save(tmp_path, 'ViT', generator)
    (tmp_path / 'model.safetensors').write_bytes(b'no weights')
    with pytest.raises(UserError, match='an image encoder'):
        HFTower(tmp_path)
