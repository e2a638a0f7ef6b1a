"""The depth configs on generated rooms: the trainable one two iterations, the shipped network two test images."""
from __future__ import annotations

import pytest
from mmengine.config import Config

from frozenmm.demo.rooms import RoomImages, write_rooms
from frozenmm.engine.launch import evaluate, load_config, train
from frozenmm.foundation import frozen_modules

SETTINGS = dict(train=4, val=2, size=(64, 96))


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    return str(write_rooms(tmp_path_factory.mktemp('rooms'), RoomImages(**SETTINGS)))


def shown(cfg: Config, rooms: str) -> Config:
    """The config on tiny rooms."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            cfg[name].dataset.update(data_root=rooms, settings=SETTINGS)
    cfg.log_level = 'ERROR'
    return cfg


def test_the_demonstration_network_trains_two_iterations_and_is_measured(repo_root, rooms, tmp_path):
    cfg = load_config(repo_root / 'configs/frozen_recon/depth_lite0_rooms.py', [
        'train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
        f'model.backbone.tower.folder={tmp_path / "cache"}'], work_dir=tmp_path)
    runner = train(shown(cfg, rooms))
    assert runner.iter == 2
    state = runner.model.state_dict()
    for place in frozen_modules(runner.model):
        assert {key for key in state if key.startswith(f'{place}.')} <= {f'{place}.frozen_record'}
    for alignment in ('median_scale', 'lsq_scale_shift', 'lwlr'):
        assert 0 < runner.message_hub.get_scalar(f'val/depth/{alignment}/abs_rel').current() < 5
    assert sum(p.numel() for p in runner.model.parameters()) * 4 < 10e6


def test_the_shipped_network_is_tested_without_a_checkpoint(repo_root, rooms, tmp_path):
    cfg = load_config(repo_root / 'configs/frozen_recon/depth_light_rooms.py', work_dir=tmp_path)
    metrics = evaluate(shown(cfg, rooms), None)
    assert 0 < metrics['depth/lsq_scale_shift/abs_rel'] < 1


def test_a_model_with_trained_parts_needs_its_checkpoint(repo_root, rooms, tmp_path):
    cfg = load_config(repo_root / 'configs/frozen_recon/depth_lite0_rooms.py', [
        f'model.backbone.tower.folder={tmp_path / "cache"}'], work_dir=tmp_path)
    with pytest.raises(ValueError, match='has trained parts; give the checkpoint that holds them'):
        evaluate(shown(cfg, rooms), None)
