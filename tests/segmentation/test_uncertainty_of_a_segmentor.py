"""A capped model: predictions unchanged bit for bit, a loss of the cap alone, deviations in the prediction's units."""
from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData

pytest.importorskip('mmseg')
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample

from frozenmm.segmentation.uncertainty import CappedEstimator

SMALL = dict(channels=4, num_blocks=1, kernel=3)


class Tiny(BaseSegmentor):
    """A model with a weight and a batch norm; one channel is depth, more are classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3, padding=1), torch.nn.BatchNorm2d(channels))

    def extract_feat(self, inputs):
        return self.body(inputs)

    def encode_decode(self, inputs, batch_img_metas):
        values = self.body(inputs)
        return values.abs() + 5 if values.shape[1] == 1 else values

    def _forward(self, inputs, data_samples=None):
        return self.body(inputs)

    def loss(self, inputs, data_samples):
        raise AssertionError('the frozen model is not trained')

    def predict(self, inputs, data_samples=None):
        output = self.encode_decode(inputs, [])
        for values, sample in zip(output, data_samples):
            sample.set_data({'pred_depth_map' if len(values) == 1 else 'seg_logits': PixelData(data=values)})
        return data_samples


def samples(images, generator):
    found = []
    for image in images:
        sample = SegDataSample(metainfo=dict(img_shape=tuple(image.shape[-2:]), ori_shape=tuple(image.shape[-2:])))
        sample.gt_depth_map = PixelData(data=torch.rand(1, *image.shape[-2:], generator=generator) + 1)
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, *image.shape[-2:]), generator=generator))
        found.append(sample)
    return found


@pytest.mark.parametrize(('task', 'channels'), [('depth', 1), ('segmentation', 3)])
def test_predictions_and_weights_stay_bit_for_bit_while_the_cap_learns(task, channels, generator):
    base = Tiny(channels)
    model = CappedEstimator(base, task=task, cap=SMALL, stride=2)
    images = torch.randn(2, 3, 16, 24, generator=generator)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    alone = base.eval().predict(images, samples(images, generator))
    model.train()
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        sum(model.loss(images, samples(images, generator)).values()).backward()
        optimizer.step()
    assert {name.split('.')[0] for name, _ in model.named_parameters()} == {'cap'}
    assert all(torch.equal(value, base.state_dict()[key]) for key, value in before.items())
    assert 'base.frozen_record' in model.state_dict() and not [k for k in model.state_dict() if 'body.0' in k[:11]]
    found = model.eval().predict(images, samples(images, generator))
    key, sigma = ('pred_depth_map', 'pred_depth_sigma') if task == 'depth' else ('seg_logits', 'pred_sem_seg_sigma')
    for one, other in zip(found, alone):
        assert torch.equal(one.get(key).data, other.get(key).data)
        assert one.get(sigma).data.shape == (1, 16, 24) and one.get(sigma).data.min() > 0


def test_deviation_has_the_unit_of_the_prediction(generator):
    model = CappedEstimator(Tiny(1), cap=SMALL, stride=1).eval()
    depth = torch.rand(1, 1, 8, 8, generator=generator) + 1
    (sigma, shape), (other, same) = model.uncertainty(depth), model.uncertainty(1000 * depth)
    torch.testing.assert_close(1000 * sigma, other, rtol=1e-4, atol=0)
    torch.testing.assert_close(shape, same, rtol=1e-4, atol=1e-5)


def test_what_is_no_model_of_mmseg_and_truth_of_another_size_are_refused(generator):
    with pytest.raises(TypeError, match='base must be a model of mmseg, got Conv2d'):
        CappedEstimator(torch.nn.Conv2d(1, 1, 1))
    model = CappedEstimator(Tiny(1), cap=SMALL)
    with pytest.raises(ValueError, match=r'gives \(16, 16\) pixels and the truth has \(8, 8\)'):
        model.loss(torch.randn(1, 3, 16, 16), samples(torch.randn(1, 3, 8, 8), generator))
