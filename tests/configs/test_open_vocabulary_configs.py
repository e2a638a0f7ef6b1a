"""Every config of FC-CLIP and FrozenSeg builds, trains two steps and predicts, with small random frozen networks."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import frozenmm  # noqa: F401  (fills the holes of the installation before mmdet is imported)
from frozenmm.foundation import fingerprint
from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for system in ('fc_clip', 'frozen_seg') for path in (ROOT / 'configs' / system).glob('*.py')
                 if 'lite0' not in path.stem)  # those run as they are, see test_laptop_configs
CONVNEXT = dict(embed_dim=16, vision_cfg=dict(timm_model_name='convnext_atto', timm_model_pretrained=False,
                                              timm_pool='', timm_proj='mlp', timm_drop=0.0, timm_drop_path=0.0,
                                              image_size=64))
RESNET = dict(input_resolution=64, width=8, layers=(1, 1, 1, 1), heads=4, output_dim=16)
SAM = dict(img_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, global_attn_indexes=(0,), window_size=2,
           out_chans=32)


def shrunk(path: Path) -> Config:
    """The config, shrunk."""
    return shrink(Config.fromfile(path))


def shrink(config: Config) -> Config:
    """Networks that need no file, a narrow decoder and a short vocabulary, in place."""
    model = config.model.get('model', config.model)
    is_resnet = model.tower.type == 'frozenmm.CLIPTower'
    model.tower.update(model=RESNET if is_resnet else CONVNEXT, weights='random')
    model.classifier.update(embed_channels=16, channels=32, train_vocabulary=['cat', 'dog', 'sky'],
                            vocabulary=['cat', 'zebra'], templates='none',
                            text_tower=dict(type='frozenmm.CLIPTextTower', weights='random', _delete_=True,
                                            model=dict(width=16, layers=1, heads=2, output_dim=16)))
    model.classifier.text_tower.pop('_delete_')
    model.mask_generator.pixel_decoder.update(channels=32, mask_channels=32, num_layers=1, feedforward_channels=16)
    model.mask_generator.decoder.update(in_channels=32, channels=32, mask_channels=32, num_queries=6, num_layers=4,
                                        feedforward_channels=16)
    if 'sam_tower' in model:
        model.sam_tower.update(model=SAM, weights='random')
        model.mask_generator.sam_branch.update(channels=32, num_layers=1, feedforward_channels=16)
    model.criterion = dict(model.get('criterion', {}), num_points=64)
    return config


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))


def batch() -> dict:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData
    sample = DetDataSample(metainfo=dict(img_shape=(64, 80), ori_shape=(32, 40), img_id=0))
    masks = np.zeros((1, 64, 80), np.uint8)
    masks[:, 8:40, 8:40] = 1
    sample.gt_instances = InstanceData(labels=torch.tensor([1]), masks=BitmapMasks(masks, 64, 80))
    sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(np.where(masks > 0, 1, 2)))
    image = torch.randint(0, 255, (3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return dict(inputs=[image], data_samples=[sample])


@pytest.mark.parametrize('path', CONFIGS, ids=[path.stem for path in CONFIGS])
def test_config_trains_two_steps_and_predicts(path):
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    config = shrunk(path)
    init_default_scope(config.default_scope)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(config.model).train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    frozen = {place: fingerprint(module.network) for place, module in frozen_modules(model).items()}
    before = [parameter.clone() for parameter in model.parameters()]
    for _ in range(2):
        losses = model.train_step(batch(), optimizer)
        assert torch.isfinite(losses['loss'])
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters()))
    assert {place: fingerprint(module.network) for place, module in frozen_modules(model).items()} == frozen
    with torch.no_grad():
        found = model.eval().test_step(batch())[0]
    assert found.pred_sem_seg.sem_seg.shape == found.pred_panoptic_seg.sem_seg.shape == (1, 32, 40)


def test_norms_and_embeddings_are_not_decayed():
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    config = shrunk(CONFIGS[0])
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = {names[id(parameter)] for group in optimizer.param_groups if group['weight_decay'] == 0
            for parameter in group['params']}
    decayed = set(names.values()) - free
    assert {'classifier.void_embedding.weight', 'mask_generator.decoder.query_feat.weight',
            'mask_generator.decoder.query_embed.weight', 'mask_generator.decoder.level_embed.weight',
            'mask_generator.pixel_decoder.encoder.layers.0.norms.0.weight',
            'mask_generator.pixel_decoder.input_convs.0.gn.weight'} <= free
    assert {'classifier.logit_scale', 'mask_generator.pixel_decoder.level_encoding.weight',
            'mask_generator.decoder.mask_embed.0.weight'} <= decayed
