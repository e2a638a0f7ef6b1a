"""The demonstration depth network: decoder, head in mmseg, and the shipped weights."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.demo.light_depth import LightDepth, LightDepthDecoder
from frozenmm.demo.light_depth_head import LightDepthHead
from frozenmm.reconstruction.mmseg_depth import AffineDepthLoss
from frozenmm.registry import MODELS

STATS = dict(mean=[127.0] * 3, std=[128.0] * 3)



def sample(depth, **meta):
    found = SegDataSample(metainfo=dict(ori_shape=depth.shape, img_shape=depth.shape, **meta))
    found.set_data({'gt_depth_map': PixelData(data=depth[None])})
    return found

def test_the_decoder_learns_a_depth_from_maps():
    """Two hundred steps on one image bring the loss far down: gradients reach every part."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    decoder = LightDepthDecoder([8, 8, 8, 8], channels=16)
    maps = [torch.randn(1, 8, 32 // s, 32 // s, generator=draw) for s in (1, 2, 4, 8)]
    truth = 1 + maps[0][:, :1].abs().clamp(max=2)
    optimizer, loss = torch.optim.Adam(decoder.parameters(), 5e-3), AffineDepthLoss()
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        losses.append(loss(decoder(maps), truth))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())
    with pytest.raises(ValueError, match='takes 4 maps'):
        LightDepthDecoder([8, 8])


def estimator(**options):
    return MODELS.build(dict(
        type='frozenmm.CorrectedDepthEstimator', _scope_='mmseg',
        data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, size_divisor=32, **STATS),
        backbone=dict(type='frozenmm.FrozenBackbone', out_indices=(1, 2, 3, 4),
                      tower=dict(type='frozenmm.EfficientNetLiteTower', weights='random')),
        decode_head=dict(type='frozenmm.LightDepthHead', in_channels=[24, 40, 112, 320], channels=16),
        test_cfg=ConfigDict(mode='whole'), **options))


def test_the_head_trains_in_a_depth_estimator_and_its_prediction_has_the_image_size():
    model = estimator()
    batch = model.data_preprocessor(dict(inputs=[torch.full((3, 60, 90), 90, dtype=torch.uint8)] * 2, data_samples=[
        sample(torch.rand(60, 90) + 1) for _ in range(2)]), training=True)
    losses = model(**batch, mode='loss')
    losses['decode.loss_depth'].backward()
    assert all(p.grad is not None for p in model.decode_head.parameters())
    points = np.array([[5, 5, 2.0], [50, 80, 4.0], [20, 40, 3.0]], np.float32)
    batch = model.data_preprocessor(dict(inputs=[torch.full((3, 60, 90), 90, dtype=torch.uint8)], data_samples=[
        sample(torch.rand(60, 90) + 1, depth_points=points)]), training=False)
    with torch.no_grad():
        found = model(**batch, mode='predict')[0].pred_depth_map.data
    assert found.shape == (1, 60, 90)
    with pytest.raises(ValueError, match='loss_stride must be at least 1'):
        LightDepthHead([8, 8, 8, 8], channels=16, loss_stride=0)


@pytest.fixture
def light_file(tmp_path):
    """A decoder drawn at random, in the layout of a shipped file."""
    from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
    tower = EfficientNetLiteTower()
    torch.manual_seed(0)
    path = tmp_path / 'light.safetensors'
    save_checkpoint_file(path, LightDepthDecoder([24, 40, 112, 320]).state_dict(),
                         dict(base_models={tower.name: tower.fingerprint}))
    return path


def test_light_depth_takes_images_of_any_size(light_file):
    network = LightDepth(light_file)
    images = torch.randint(0, 255, (2, 3, 100, 170), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = network.predict(images)
    assert found.values.shape == (2, 100, 170) and found.kind == 'affine_depth' and found.values.min() > 0
    assert found.features.shape[:2] == (2, 320)
    alone = network.predict(images[1:])
    torch.testing.assert_close(alone.values[0], found.values[1], rtol=1e-4, atol=1e-5)


def test_light_depth_refuses_other_files(light_file, tmp_path):
    state = LightDepthDecoder([24, 40, 112, 320]).state_dict()
    other = tmp_path / 'other.safetensors'
    save_checkpoint_file(other, state, dict(base_models={'EfficientNet-Lite0': '0' * 16}))
    with pytest.raises(ValueError, match='was trained on the frozen networks'):
        LightDepth(other)
    with pytest.raises(FileNotFoundError):
        LightDepth(tmp_path / 'nothing.safetensors')
    with pytest.raises(ValueError, match='side must be a positive multiple of 32'):
        LightDepth(light_file, side=100)


def test_the_shipped_network_sees_depth_in_a_room_it_never_saw():
    from frozenmm.demo.light_depth import shipped_file
    from frozenmm.demo.rooms import paint_room
    from frozenmm.evaluation.depth import align_depth, depth_errors
    network, gain = LightDepth(), []
    assert shipped_file().stat().st_size < 10_000_000
    for seed in range(4):
        picture = paint_room('val', (192, 256), np.random.default_rng([99, seed]))
        image = torch.from_numpy(picture.image[..., ::-1].copy()).permute(2, 0, 1)[None]
        truth = torch.from_numpy(picture.depth)
        errors = [depth_errors(align_depth(values, truth, method='lsq_scale'), truth)['abs_rel']
                  for values in (network.predict(image).values[0], torch.ones_like(truth))]
        gain.append(errors[0] / errors[1])
    assert np.mean(gain) < 0.75, json.dumps(gain)  # a constant depth is what knows nothing
