from __future__ import annotations

import pytest
import torch

from frozenmm.demo.quickstart import ROWS
from frozenmm.engine.launch import load_config, train
from frozenmm.foundation import frozen_modules

CONFIGS = sorted({row.config for row in ROWS})
TINY = ['model.encoder.num_layers=1', 'model.decoder.num_layers=2', 'train_dataloader.batch_size=2',
        'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2', 'log_level=ERROR']


def _tiny(repo_root, tiny_scenes, folder, name):
    root, settings = tiny_scenes
    cfg = load_config(repo_root / 'configs/quickstart' / name, TINY, work_dir=folder)
    cfg.custom_hooks = [dict(type='frozenmm.AccelerateHook')]
    for loader in 'train_dataloader', 'val_dataloader', 'test_dataloader':
        cfg[loader].dataset.update(data_root=root, settings=settings)
    for evaluator in 'val_evaluator', 'test_evaluator':
        cfg[evaluator].ann_file = f'{root}/annotations/instances_val.json'
    return cfg


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_builds_trains_two_iterations_and_is_evaluated(repo_root, tiny_scenes, tmp_path, name):
    runner = train(_tiny(repo_root, tiny_scenes, tmp_path, name))
    assert runner.iter == 2
    assert 0 <= runner.message_hub.get_scalar('val/coco/bbox_mAP').current() <= 1
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    networks = frozen_modules(runner.model)
    assert bool(networks) == (name != 'dino_scratch_scenes.py')
    for place, module in networks.items():
        assert {key for key in saved if key.startswith(f'{place}.')} == {f'{place}.frozen_record'}
        # the same images came back in the second iteration at least in part, or were new: all are accounted for
        assert module.memory.hits + module.memory.misses == 4


def test_the_variants_state_only_their_difference(repo_root):
    """At most 15 lines turn the plain detector into an enhanced one."""
    for name in CONFIGS:
        if name == 'dino_scratch_scenes.py':
            continue
        text = (repo_root / 'configs/quickstart' / name).read_text()
        code = [line for line in text.split('"""')[2].splitlines() if line.strip()]
        assert len(code) <= 15, name


def test_all_rows_share_data_schedule_and_detector(repo_root):
    base, *others = (load_config(repo_root / 'configs/quickstart' / name) for name in
                     ['dino_scratch_scenes.py', *(name for name in CONFIGS if name != 'dino_scratch_scenes.py')])
    for other in others:
        for key in ('train_dataloader', 'test_dataloader', 'optim_wrapper', 'custom_hooks', 'test_evaluator'):
            assert other[key] == base[key], key
        for key in ('encoder', 'decoder', 'bbox_head', 'dn_cfg', 'train_cfg', 'test_cfg', 'num_queries'):
            assert other.model[key] == base.model[key], key


@pytest.mark.parametrize('name', ['dino_enhanced_coco.py', 'dino_enhanced_overfit20.py'])
def test_a_config_of_real_images_trains_two_iterations_on_coco_layout(repo_root, shared_dir, tmp_path, name):
    cfg = load_config(repo_root / 'configs/quickstart' / name, [
        *TINY, f'data_root={shared_dir / "data/coco_mini"}', '+val_dataloader.dataset.indices=4',
        '+train_dataloader.dataset.indices=4'], work_dir=tmp_path)
    cfg.custom_hooks = [dict(type='frozenmm.AccelerateHook')]
    if name == 'dino_enhanced_coco.py':  # the file's truth holds all images
        cfg.val_evaluator.ann_file = None
        cfg.val_dataloader.dataset.pipeline[-1].meta_keys += ('instances', )
    runner = train(cfg)
    assert runner.iter == 2 and len(runner.train_dataloader.dataset) == 4
    assert runner.model.bbox_head.num_classes == len(runner.train_dataloader.dataset.metainfo['classes']) == 80
    assert 0 <= runner.message_hub.get_scalar('val/coco/bbox_mAP').current() <= 1
