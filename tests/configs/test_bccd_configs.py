"""The configs of configs/bccd build, train two steps and detect, with a random frozen network."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import frozenmm  # noqa: F401
from frozenmm.foundation import frozen_modules
from frozenmm.registry import MODELS

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / 'bccd'
CONFIGS = sorted(path.stem for path in FOLDER.glob('*.py'))


def batch() -> dict:
    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for number in range(2):
        images.append(torch.randint(0, 256, (3, 96, 128), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0),
                                             img_id=number))
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 40], [50, 30, 90, 80]]),
                                           labels=torch.tensor([number, 2]))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


@pytest.mark.parametrize('name', CONFIGS)
def test_it_trains_two_steps_and_detects(name):
    config = Config.fromfile(FOLDER / f'{name}.py')
    assert f'configs/bccd/{name}.py' in (FOLDER / f'{name}.py').read_text()
    for holder in (config.model.backbone, *config.model.get('enhancers', ())):
        tower = holder.get('model', holder.get('tower'))
        if tower is not None:
            tower.tower.weights = 'random'
    with DefaultScope.overwrite_default_scope('mmdet'), torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        assert len(frozen_modules(model)) == (0 if 'scratch' in name else 1)
        optimizer = build_optim_wrapper(model, config.optim_wrapper)
        model.train()
        for _ in range(2):
            losses = model.train_step(batch(), optimizer)
            assert all(torch.isfinite(value).all() for value in losses.values())
        model.eval()
        with torch.no_grad():
            found = model.test_step(batch())
    assert all(0 < len(one.pred_instances) <= 100 for one in found)
