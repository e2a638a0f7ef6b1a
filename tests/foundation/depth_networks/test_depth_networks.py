from __future__ import annotations

import json

import pytest
import torch

from frozenmm.foundation.depth_networks import DepthNetwork, HFDepth, LeReS
from frozenmm.foundation.depth_networks.hf import _Preprocessing, prediction_kind
from frozenmm.foundation.depth_networks.leres import official_state
from frozenmm.foundation.depth_networks.leres_network import LeReSNetwork


@pytest.fixture(scope='module')
def network() -> LeReSNetwork:
    return LeReSNetwork('resnet50').eval()


def test_sizes_equal_the_official_network():
    for encoder, tensors, millions in (('resnet50', 406, 52.13), ('resnext101', 712, 115.36)):
        with torch.device('meta'):
            built = LeReSNetwork(encoder)
        assert len(built.state_dict()) == tensors
        assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_an_official_file_loads_under_its_nested_keys(network, tmp_path):
    state = {f'module.depth_model.{key}': value for key, value in network.state_dict().items()}
    torch.save({'depth_model': state, 'shift_model': {}, 'focal_model': {}}, tmp_path / 'res50.pth')
    depth = LeReS('resnet50', weights=tmp_path / 'res50.pth')
    images = torch.randint(0, 255, (2, 3, 40, 60), generator=torch.Generator().manual_seed(0))
    both = depth.predict(images)
    assert both.values.shape == (2, 40, 60) and both.features.shape == (2, 2048, 14, 14)
    torch.testing.assert_close(depth.predict(images[1:]).values, both.values[1:], rtol=1e-3, atol=1e-3)
    assert both.values.min() > 0 and both.kind == 'affine_depth'


def test_keys_without_prefixes_stay():
    assert official_state({'a.b': torch.zeros(1)}) == {'a.b': torch.zeros(1)}


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError, match='needs the official file res101.pth.*AdelaiDepth'):
        LeReS(weights=tmp_path / 'res101.pth')
    with pytest.raises(ValueError, match="encoder must be one of .*'resnet5'"):
        LeReS('resnet5')


def test_the_network_interface_needs_a_predict():
    with pytest.raises(NotImplementedError, match='must define `predict`'):
        DepthNetwork(torch.nn.Identity()).predict(torch.zeros(1, 3, 4, 4))


def _tiny_dpt(folder):
    transformers = pytest.importorskip('transformers')
    config = transformers.DPTConfig(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
                                    image_size=64, patch_size=16, backbone_out_indices=[0, 1, 2, 3],
                                    neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False)
    transformers.DPTForDepthEstimation(config).save_pretrained(folder)


def test_a_model_of_transformers_predicts_at_the_images_size(tmp_path):
    _tiny_dpt(tmp_path)
    depth = HFDepth(tmp_path)
    prediction = depth.predict(torch.full((1, 3, 48, 64), 128.0))
    assert prediction.values.shape == (1, 48, 64) and prediction.kind == 'affine_disparity'
    assert prediction.values.min() > 0
    with pytest.raises(ValueError, match=r'takes images \(B, 3, H, W\)'):
        depth.predict(torch.zeros(3, 48, 64))
    with pytest.raises(ValueError, match='kind must be one of'):
        HFDepth(tmp_path, kind='disparity')


def test_size_and_normalisation_follow_the_preprocessor(tmp_path):
    _tiny_dpt(tmp_path)
    assert HFDepth(tmp_path).preprocessing.input_size(48, 64) == (64, 64)  # a square table of positions
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'depth_anything'}))
    given = {'size': {'height': 28, 'width': 28}, 'keep_aspect_ratio': True, 'ensure_multiple_of': 14,
             'image_mean': [0.5] * 3, 'image_std': [0.25] * 3}
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(given))
    wanted = _Preprocessing.read(tmp_path, {'model_type': 'depth_anything'}, None)
    assert wanted.input_size(48, 96) == (28, 56) and wanted.mean == (0.5, 0.5, 0.5) and wanted.std == (0.25, ) * 3


def test_kinds_follow_the_config(tmp_path):
    assert prediction_kind({'model_type': 'depth_anything', 'depth_estimation_type': 'metric'}) == 'metric'
    assert prediction_kind({'model_type': 'depth_anything'}) == 'affine_disparity'
    assert prediction_kind({'model_type': 'zoedepth'}) == 'metric'
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert'}))
    with pytest.raises(ValueError, match="a model of type 'bert'"):
        HFDepth(tmp_path)
    with pytest.raises(FileNotFoundError, match='holds no config.json'):
        HFDepth(tmp_path / 'nothing')
