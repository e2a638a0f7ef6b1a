from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from frozenmm.foundation.depth_networks.base import DepthNetwork, DepthPrediction
from frozenmm.reconstruction.mmseg_depth import AffineDepthLoss, FrozenDepthEstimator

STATS = dict(mean=[127.0] * 3, std=[128.0] * 3)


class RampDepth(DepthNetwork):
    """Depth, or disparity, that grows along the columns."""

    def __init__(self, kind='affine_depth'):
        super().__init__(torch.nn.Identity())
        self.kind = kind

    def predict(self, images):
        ramp = torch.linspace(1, 2, images.shape[3]).expand(len(images), *images.shape[2:])
        return DepthPrediction(ramp * (1 + 0 * images[:, 0]), self.kind)


def sample(depth, **meta):
    found = SegDataSample(metainfo=dict(ori_shape=depth.shape, img_shape=depth.shape, **meta))
    found.set_data({'gt_depth_map': PixelData(data=depth[None])})
    return found


def test_the_loss_does_not_see_scale_and_its_shape_term_does_not_see_shift():
    draw = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, 32, 40, generator=draw) + 1
    truth[:, :, :5] = 0
    loss = AffineDepthLoss()
    safe = truth.clamp(min=0.5)
    assert loss(safe * 3.7, truth) < 1e-5
    only_shape = AffineDepthLoss(log_weight=0, step_weight=0)
    assert only_shape(safe * 2 + 5, truth) < 1e-5
    assert loss(safe * 2 + 5, truth) > 0.05


def test_the_loss_ignores_unknown_pixels_and_images_without_truth():
    draw = torch.Generator().manual_seed(0)
    prediction, truth = (torch.rand(1, 1, 32, 40, generator=draw) + 1 for _ in range(2))
    truth[..., 20:] = 0
    other = prediction.clone()
    other[..., 20:] = 9
    torch.testing.assert_close(AffineDepthLoss()(prediction, truth), AffineDepthLoss()(other, truth))
    leaf = prediction.clone().requires_grad_()
    AffineDepthLoss()(leaf, truth * 0).backward()
    assert leaf.grad.eq(0).all()
    with pytest.raises(ValueError, match=r'of one shape \(B, 1, H, W\)'):
        AffineDepthLoss()(prediction, truth[..., :10])


def test_the_gradient_of_the_loss_is_right():
    """Of the smooth part: the offset by the median is held, as a median moves with single pixels."""
    draw = torch.Generator().manual_seed(1)
    truth = (torch.rand(1, 1, 12, 12, generator=draw) + 1).double()
    prediction = (torch.rand(1, 1, 12, 12, generator=draw) + 1).double().requires_grad_()
    loss = AffineDepthLoss(log_weight=0)
    loss(prediction, truth).backward()
    step = 1e-3 * torch.randn(1, 1, 12, 12, generator=draw).double()
    change = loss(prediction.detach() + step, truth) - loss(prediction.detach() - step, truth)
    assert float(change / 2) == pytest.approx(float((prediction.grad * step).sum()), rel=0.05, abs=2e-6)


def test_a_prediction_is_bent_to_points_of_known_depth():
    truth = 3 + 2 * torch.linspace(1, 2, 64).expand(48, 64) + torch.linspace(0, 0.6, 48)[:, None]
    rows, columns = (axis.flatten() for axis in np.meshgrid(np.arange(2, 48, 6), np.arange(2, 64, 6), indexing='ij'))
    points = np.stack((rows, columns, truth.numpy()[rows, columns]), 1).astype(np.float32)
    inputs = torch.full((1, 3, 48, 64), 10.0)
    plain = FrozenDepthEstimator(RampDepth()).predict(inputs, [sample(truth, depth_points=points)])
    bent = FrozenDepthEstimator(RampDepth(), correction={}).predict(inputs, [sample(truth, depth_points=points)])
    error = [float((s[0].pred_depth_map.data[0] - truth).abs().mean()) for s in (plain, bent)]
    assert error[0] > 3 and error[1] < 0.1
    with pytest.raises(ValueError, match=r'at least 2 points of known depth per image.*SampleDepthPoints'):
        FrozenDepthEstimator(RampDepth(), correction={}).predict(inputs, [sample(truth)])


def test_a_frozen_network_predicts_at_the_original_size_and_turns_disparity_into_depth():
    model = FrozenDepthEstimator(RampDepth('affine_disparity'))
    meta = sample(torch.ones(48, 64))
    meta.set_metainfo(dict(ori_shape=(96, 128), img_shape=(40, 64)))
    found = model.predict(torch.zeros(1, 3, 48, 64), [meta])[0].pred_depth_map.data
    assert found.shape == (1, 96, 128) and (found.diff(dim=2) <= 0).all() and found.min() > 0
    with pytest.raises(TypeError, match='no trainable part'):
        model.loss(torch.zeros(1, 3, 8, 8), [])
    with pytest.raises(TypeError, match='must be a depth network'):
        FrozenDepthEstimator(torch.nn.Identity())
    with pytest.raises(ValueError, match='remove mean and std'):
        FrozenDepthEstimator(RampDepth(), data_preprocessor=dict(type='mmseg.SegDataPreProcessor', **STATS))
