"""Every config under configs/generic builds, trains two steps and predicts, with small or random frozen networks."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.registry import MODELS

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / 'generic'
CONFIGS = sorted(path.stem for path in FOLDER.glob('*.py'))
SIDE = 96


def shrunk(name: str) -> Config:
    """The config with networks that need no file and narrow heads."""
    config = Config.fromfile(FOLDER / f'{name}.py')
    model = config.model
    for part in [part for part in (model.backbone, model.get('neck') or {}) if 'tower' in part]:
        part.tower = part.tower.get('tower', part.tower)  # without a cache on disk
        part.tower.weights = 'random'
        if part.tower.get('model', '').startswith('vit_base_patch16_224'):
            part.tower.model = 'vit_tiny_patch16_224'
    if model.type == 'MaskRCNN':
        if model.backbone.type == 'ResNet':
            model.backbone.update(depth=18, init_cfg=None)
            model.neck.neck.in_channels = [64, 128, 256, 512]
        model.roi_head.bbox_head.fc_out_channels = 64
        model.train_cfg.rpn_proposal.max_per_img = 50
        model.train_cfg.rcnn.sampler.num = 32
        model.test_cfg.rpn.max_per_img = 20
    if model.type == 'EncoderDecoder':
        model.decode_head.update(channels=32, num_classes=7)
        model.data_preprocessor.update(size=(SIDE, SIDE))
    return config


def batch(config: Config, generator: torch.Generator) -> dict:
    """Two images as a data loader hands them over; a bright square is the object."""
    images, samples = [], []
    for index in range(2):
        image = torch.randint(0, 60, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        top, left = 16, 24 + 8 * index
        image[:, top:top + 40, left:left + 40] += 150
        images.append(image)
        meta = dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0), img_id=index,
                    pad_shape=(SIDE, SIDE))
        mask = torch.zeros(SIDE, SIDE, dtype=torch.long)
        mask[top:top + 40, left:left + 40] = 1
        if config.default_scope == 'mmdet':
            from mmdet.structures import DetDataSample
            from mmdet.structures.mask import BitmapMasks
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([[left, top, left + 40, top + 40]], dtype=torch.float32),
                labels=torch.tensor([1]))
            if config.model.type == 'MaskRCNN':
                sample.gt_instances.masks = BitmapMasks([mask.numpy().astype('uint8')], SIDE, SIDE)
        else:
            from mmseg.structures import SegDataSample
            sample = SegDataSample(metainfo=meta)
            sample.gt_sem_seg = PixelData(data=mask[None])
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def build(config: Config) -> torch.nn.Module:
    scope = config.default_scope
    if scope == 'mmdet':
        from mmdet.utils import register_all_modules
    else:
        from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    init_default_scope(scope)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
    return model


@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_two_steps_and_predicts(name, generator):
    config = shrunk(name)
    model = build(config)
    frozen = frozen_modules(model)
    assert len(frozen) == ('scratch' not in name)
    before = [{key: value.clone() for key, value in tower.network.state_dict().items()} for tower in frozen.values()]
    start = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    data = batch(config, generator)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for _ in range(2):
            losses = model.train_step(data, optimizer)
            assert all(torch.isfinite(value).all() for value in losses.values())
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, start[key])]
    trainable = [key for key, value in model.named_parameters() if value.requires_grad]
    assert len(moved) > 0.9 * len(trainable)
    assert all(torch.equal(value, old[key]) for tower, old in zip(frozen.values(), before)
               for key, value in tower.network.state_dict().items())
    model.eval()
    with torch.no_grad():
        results = model.test_step(data)
    assert len(results) == 2


@pytest.mark.parametrize('name', CONFIGS)
def test_config_is_self_contained_and_says_what_it_is(name):
    text = (FOLDER / f'{name}.py').read_text()
    assert text.startswith('"""') and 'Metric:' in text
    assert f'Command: python tools/train.py configs/generic/{name}.py' in text
    assert '::' not in text
    config = Config.fromfile(FOLDER / f'{name}.py')
    assert config.default_scope in ('mmdet', 'mmseg')
    assert config.custom_imports.imports == ['frozenmm']


def test_every_config_is_in_the_metafile():
    metafile = Config.fromfile(FOLDER / 'metafile.yml')
    assert sorted(model.Name for model in metafile.Models) == CONFIGS
    assert all((FOLDER.parents[1] / model.Config).is_file() for model in metafile.Models)
    assert all(f'`{name}.py`' in (FOLDER / 'README.md').read_text() for name in CONFIGS)


def test_mask_rcnn_base_equals_mmdets():
    from mmengine.utils import get_installed_path
    stock = Path(get_installed_path('mmdet'), '.mim', 'configs', '_base_', 'models', 'mask-rcnn_r50_fpn.py')
    if not stock.is_file():
        pytest.skip('this mmdet ships no configs')
    assert Config.fromfile(FOLDER / '_base_' / 'mask-rcnn.py').model == Config.fromfile(stock).model
