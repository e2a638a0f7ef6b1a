"""The configs of the further systems train two iterations through their runner and are evaluated."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from frozenmm.engine.launch import load_config, train
from frozenmm.foundation.frozen_module import frozen_modules

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'configs' / 'further'
CONFIGS = sorted(path.stem for path in FOLDER.glob('*.py'))
TINY = ['train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'log_level=ERROR',
        'default_hooks.checkpoint.interval=2']
SMALL_SAM = dict(type='frozenmm.SAMPrompter', weights='random', decoder=dict(
    channels=32, depth=2, heads=4, mlp_channels=32, iou_channels=32), model=dict(
        img_size=64, patch_size=16, embed_dim=16, depth=2, num_heads=2, global_attn_indexes=(1, ), window_size=3,
        out_chans=32))


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))


def data_of(cfg: Config, root: str, tmp_path: Path) -> None:
    """Two pictures of a folder, and caches of their own."""
    for split, loader in ('train', cfg.train_dataloader), ('val', cfg.val_dataloader), ('val', cfg.test_dataloader):
        loader.dataset.update(data_root=root, indices=2)
        if 'seg_map_path' in loader.dataset.get('data_prefix', {}) and 'maps' in loader.dataset:
            loader.dataset.data_prefix.seg_map_path = str(tmp_path / f'semantic_{split}')
    for metric in cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else []:
        for key in {'ann_file', 'seg_prefix'} & set(metric):
            metric[key] = metric[key].replace(cfg.data_root, f'{root}/')


def caches(node: object, folder: str) -> None:
    if isinstance(node, dict):
        if node.get('type') == 'frozenmm.CachedTower':
            node['folder'] = folder
        for value in node.values():
            caches(value, folder)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_two_iterations_and_is_evaluated(name, shared_dir, tmp_path, request):
    cfg = load_config(FOLDER / f'{name}.py', TINY, work_dir=tmp_path / 'run')
    data = shared_dir / 'data' / ('camvid' if 'camvid' in name else 'coco_mini')
    if 'rooms' in name:
        request.getfixturevalue('demo_room')
        from frozenmm.demo.rooms import RoomImages, write_rooms
        settings = dict(train=2, val=2, size=(64, 96))
        data = write_rooms(tmp_path / 'rooms', RoomImages(**settings))
        for loader in cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader:
            loader.dataset.settings = settings
    data_of(cfg, str(data), tmp_path)
    caches(cfg.model, str(tmp_path / 'cache'))
    if 'space-time' in name:
        cfg.train_dataloader.batch_size = 4
        cfg.train_dataloader.dataset.indices = 4
    if 'vit-s' in name:
        tower = cfg.model.backbone.tower.tower
        tower.update(model='vit_tiny_patch16_224', weights='random')
        cfg.model.decode_head.in_channels = 192
        cfg.model.data_preprocessor.size = (96, 128)
        resize = dict(type='RandomResize', scale=(128, 96), ratio_range=(1.0, 1.0))
        cfg.train_dataloader.dataset.pipeline.insert(-1, resize)
    if 'f-lmm' in name:
        cfg.model.refiner.sam = SMALL_SAM
        cfg.model.head = dict(channels=4)
    if 'long-captions' in name:
        sys.path.insert(0, str(ROOT / 'tests' / 'foundation' / 'text_towers'))
        from test_long_caption import folder
        cfg.model.decode_head.text_tower.folder = str(folder(tmp_path / 'llama', 'llama'))
    if 'fc-clip' in name:
        cfg.val_evaluator = cfg.val_evaluator[:2]
        cfg.model.mask_generator.decoder.num_queries = 10
        cfg.model.criterion.num_points = 64
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks', []) if 'Budget' not in hook.type]
    runner = train(cfg)
    assert runner.iter == 2
    state = runner.model.state_dict()
    places = frozen_modules(runner.model)
    assert places
    records = [key for key in state if key.endswith('frozen_record')]
    assert len(records) >= 1 and not any('.network.' in key and 'decode_head' not in key for key in state)


def test_every_config_is_in_the_metafile_and_the_readme():
    metafile = Config.fromfile(FOLDER / 'metafile.yml')
    assert sorted(model.Name for model in metafile.Models) == CONFIGS
    assert all(f'`{name}.py`' in (FOLDER / 'README.md').read_text() for name in CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_says_what_it_is(name):
    text = (FOLDER / f'{name}.py').read_text()
    assert text.startswith('"""') and 'Metric:' in text and 'Source:' in text
    assert f'Command: python tools/train.py configs/further/{name}.py' in text
