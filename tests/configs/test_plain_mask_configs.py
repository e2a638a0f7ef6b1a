"""Every config of PMT builds, trains two steps and predicts; those of a laptop run through their runner as they are."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from test_open_vocabulary_configs import batch

import frozenmm  # noqa: F401  (fills the holes of the installation before mmdet is imported)
from frozenmm.engine.launch import load_config, train
from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.registry import HOOKS, MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs' / 'plain_mask').glob('*.py') if 'lite0' not in path.stem)


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))


def shrunk(path):
    """The config with a small random tower of as many blocks, and a narrow decoder."""
    config = Config.fromfile(path)
    model = config.model.get('model', config.model)
    assert model.tower.type == 'frozenmm.DINOv3Tower'
    model.tower.update(weights='random', model=dict(embed_dim=48, depth=max(model.taps) + 1, num_heads=3))
    model.mask_generator.update(num_heads=3, num_queries=10)
    model.classifier = dict(vocabulary=['cat', 'dog', dict(name='sky', isthing=False)])
    model.criterion = dict(num_points=64)
    config.model.data_preprocessor.update(dict(size=(64, 80)) if config.default_scope == 'mmseg' else dict(
        pad_size_divisor=1))
    return config


@pytest.mark.parametrize('path', CONFIGS, ids=[path.stem for path in CONFIGS])
def test_config_trains_two_steps_and_predicts(path):
    config = shrunk(path)
    if config.default_scope == 'mmseg':
        from mmseg.structures import SegDataSample
        from mmseg.utils import register_all_modules
    else:
        from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    init_default_scope(config.default_scope)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(config.model).train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    hook = next(HOOKS.build(hook) for hook in config.custom_hooks if 'Annealing' in hook.type)
    assert len(hook.start) == config.model.get('model', config.model).mask_generator.num_blocks == 6
    data = batch()
    if config.default_scope == 'mmseg':
        sample = SegDataSample(metainfo=dict(img_shape=(64, 80), ori_shape=(32, 40)))
        sample.gt_sem_seg = PixelData(data=data['data_samples'][0].gt_sem_seg.sem_seg)
        data['data_samples'] = [sample]
    before = [parameter.clone() for parameter in model.parameters()]
    for _ in range(2):
        losses = model.train_step(data, optimizer)
        assert torch.isfinite(losses['loss']) and 'd5.loss_mask' in losses
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters()))
    with torch.no_grad():
        found = model.eval().test_step(data)[0]
    assert {'pred_sem_seg', 'pred_panoptic_seg', 'pred_instances'} & set(found.keys())


def test_published_learning_rate_rises_for_6000_steps_and_falls_to_1e_9():
    config = Config.fromfile(CONFIGS[2])
    rise, fall = config.param_scheduler
    assert rise.end == fall.begin == 6000 and fall.end == config.train_cfg.max_iters == 88716
    assert fall.eta_min == 1e-9 and config.optim_wrapper.clip_grad.max_norm == 0.01


TINY = ['train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2', 'log_level=ERROR']


def check(runner):
    assert runner.iter == 2
    state = runner.model.state_dict()
    for place in frozen_modules(runner.model):
        assert {key for key in state if key.startswith(f'{place}.')} <= {f'{place}.frozen_record'}
    assert sum(parameter.numel() for parameter in runner.model.parameters()) < 2.5e6


def test_camvid_trains_through_its_runner_with_cached_features(repo_root, shared_dir, tmp_path):
    config = load_config(repo_root / 'configs/plain_mask/plain_mask_lite0_camvid.py', [
        *TINY, f'model.model.tower.folder={tmp_path / "cache"}', 'custom_hooks.1.iterations=2',
        'model.model.criterion.num_points=64'], work_dir=tmp_path)
    for loader in config.train_dataloader, config.val_dataloader:
        loader.dataset.update(data_root=str(shared_dir / 'data/camvid'), indices=2)
    runner = train(config)
    check(runner)
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    tower = runner.model.model.image_tower
    assert tower.hits + tower.misses == 6 and tower.misses and (tmp_path / 'cache' / 'recipe.json').is_file()


def test_coco_mini_trains_through_its_runner_and_masked_attention_fades(repo_root, shared_dir, tmp_path):
    root = str(shared_dir / 'data/coco_mini')
    config = load_config(repo_root / 'configs/plain_mask/plain_mask_lite0_coco-mini.py', [
        *TINY, 'model.criterion.num_points=64', 'model.mask_generator.num_queries=10'], work_dir=tmp_path)
    config.val_evaluator = config.val_evaluator[:2]  # the truth of mask AP holds all images
    for loader in config.train_dataloader, config.val_dataloader, config.test_dataloader:
        loader.dataset.update(data_root=root, indices=2)
    for metric in config.val_evaluator:
        for key in {'ann_file', 'seg_prefix'} & set(metric):
            metric[key] = metric[key].replace(config.data_root, f'{root}/')
    config.custom_hooks = [dict(type='frozenmm.MaskAnnealingHook', start=[0, 300], end=[2, 1200])]
    runner = train(config)
    check(runner)
    assert runner.model.mask_generator.attn_mask_probs.tolist() == pytest.approx([0.5**0.9, 1.0])
    assert 0 <= runner.message_hub.get_scalar('val/panoptic/PQ').current() <= 100
