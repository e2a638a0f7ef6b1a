"""The open-vocabulary configs on embedded networks train two iterations as they are and are evaluated."""
from __future__ import annotations

import math

import pytest

from frozenmm.engine.launch import load_config, train
from frozenmm.foundation import frozen_modules

TINY = ['model.mask_generator.decoder.num_queries=10', 'model.criterion.num_points=64',
        'train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2', 'log_level=ERROR']


def shown(cfg, *, root, **changes):
    """The config on another folder, with few images."""
    for loader in 'train_dataloader', 'val_dataloader', 'test_dataloader':
        cfg[loader].dataset.update(data_root=root, indices=2, **changes)
    for metric in cfg.val_evaluator:
        for key in 'ann_file', 'seg_prefix':
            if key in metric:
                metric[key] = metric[key].replace(cfg.data_root, f'{root}/')
    cfg.custom_hooks = [dict(type='frozenmm.AccelerateHook')]
    return cfg


def check(runner):
    assert runner.iter == 2
    state = runner.model.state_dict()
    for place in frozen_modules(runner.model):
        # a frozen network leaves its record, not its weights
        assert {key for key in state if key.startswith(f'{place}.')} <= {f'{place}.frozen_record'}
    assert sum(parameter.numel() for parameter in runner.model.parameters()) < 2.5e6
    return {key: runner.message_hub.get_scalar(f'val/{key}').current() for key in (
        'panoptic/PQ', 'panoptic/PQ_seen', 'panoptic/PQ_unseen', 'semantic/mIoU', 'semantic/mIoU_unseen')}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path_factory.getbasetemp() / 'home'))


@pytest.mark.parametrize(('name', 'trained'), [('', 133), ('_unseen17', 116)])
def test_a_config_of_coco_mini_trains_and_is_evaluated(repo_root, shared_dir, tmp_path, name, trained):
    cfg = load_config(repo_root / f'configs/fc_clip/fc_clip_conse-lite0_coco-mini{name}.py', TINY, work_dir=tmp_path)
    cfg.val_evaluator = cfg.val_evaluator[:2]  # the truth of mask AP holds all images
    runner = train(shown(cfg, root=str(shared_dir / 'data/coco_mini')))
    found = check(runner)
    assert len(runner.train_dataloader.dataset.metainfo['classes']) == trained
    assert runner.model.classifier.rows_of(training=True).num_classes == trained
    assert runner.model.classifier.rows_of(training=False).seen.sum() == trained
    assert 0 <= found['panoptic/PQ'] <= 100 and 0 <= found['semantic/mIoU'] <= 100
    if trained == 133:
        assert math.isnan(found['panoptic/PQ_unseen'])


def test_the_demonstration_model_for_words_trains_and_is_evaluated(repo_root, shared_dir, tmp_path):
    cfg = load_config(repo_root / 'configs/fc_clip/word_cells_lite0_coco-mini.py', TINY[2:], work_dir=tmp_path)
    cfg.val_evaluator = cfg.val_evaluator[:2]
    found = check(train(shown(cfg, root=str(shared_dir / 'data/coco_mini'))))
    assert 0 <= found['panoptic/PQ'] <= 100 and 0 <= found['semantic/mIoU'] <= 100
