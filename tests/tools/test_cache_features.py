"""tools/cache_features.py: fill, go on, check, prune, estimate; and the training that then reads what it stored."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from frozenmm.datasets.self_made import make_missing_files
from frozenmm.engine.cache_filling import _TowerRun, build_cached_model, cached_towers, estimate, fill_caches
from frozenmm.engine.launch import load_config
from frozenmm.errors import UserError

NAME = 'configs/fusioner/fusioner_lite0_minilm_scenes.py'
SETTINGS = "{'train':3,'val':2,'size':64,'objects':(3,4)}"


@pytest.fixture(autouse=True)
def _scope_and_home(tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    yield
    init_default_scope('mmengine')


def options(tmp_path):
    result = [f'model.backbone.tower.folder={tmp_path}/cache', '+model.backbone.tower.tower.weights=random',
              'model.decode_head.fusion.num_layers=1', 'model.decode_head.channels=16',
              'model.decode_head.templates=simple', '+model.decode_head.store_text=False',
              'train_dataloader.dataset.pipeline.0.variants=2']
    for loader in 'train_dataloader', 'val_dataloader', 'test_dataloader':
        result += [f'{loader}.dataset.data_root={tmp_path}/scenes', f'+{loader}.dataset.settings={SETTINGS}']
    return result


@pytest.fixture
def config(demo_room, tmp_path, repo_root):
    return load_config(repo_root / NAME, options(tmp_path), work_dir=tmp_path / 'work')


def episodes(config, split):
    from frozenmm.registry import DATASETS
    make_missing_files(config[f'{split}_dataloader'])
    return len(DATASETS.build(config[f'{split}_dataloader'].dataset))


def test_filling_computes_every_variant_once_and_goes_on_where_it_stopped(config):
    model = build_cached_model(config)
    (tower, ) = cached_towers(model)
    passes = []
    network = tower.inner.inner  # ConSETower makes its text map of what EfficientNet-Lite0 computes
    extract = network.extract
    network.extract = lambda net, pixels, tokens: passes.append(len(pixels)) or extract(net, pixels, tokens)
    train, val = episodes(config, 'train'), episodes(config, 'val')
    first = fill_caches(config, model, ['train'])
    # an image is an episode in training here, so each is new once per variant
    assert first['images'] == 2 * train and sum(passes) == first['computed'] <= 2 * train
    both = fill_caches(config, model, ['train', 'val'])
    assert both['images'] == 2 * train + val and both['read'] >= 2 * train
    assert both['computed'] == sum(passes) - first['computed'] <= val
    again = fill_caches(config, build_cached_model(config), ['train', 'val'])
    assert again['computed'] == 0 and again['read'] == 2 * train + val


def test_filling_runs_the_towers_alone_in_training(config):
    model = build_cached_model(config)

    def refuse(*_, **__):
        raise AssertionError('the head was run')

    model.decode_head.loss = refuse
    assert fill_caches(config, model, ['train'])['computed'] > 0


def test_a_tower_outside_the_features_is_filled_by_the_whole_step():
    class Enhanced(BaseModel):
        """A model whose tower is no part of its features."""

        def __init__(self):
            super().__init__()
            self.tower, self.steps = torch.nn.Identity(), []

        def extract_feat(self, inputs):
            self.steps.append('features')

        def forward(self, inputs, data_samples=None, mode='tensor'):
            self.steps.append(mode)
            self.tower(inputs)

    model = Enhanced()
    run = _TowerRun(model, [model.tower])
    data = dict(inputs=torch.zeros(1, 3, 4, 4))
    run(data, training=True)
    run(data, training=True)
    run(data, training=False)
    assert model.steps == ['features', 'loss', 'loss', 'predict']
    model.tower = torch.nn.Identity()
    with pytest.raises(UserError, match='1 of 1 cached towers did not run'):
        run(data, training=True)


def test_training_after_filling_runs_no_tower(config, tmp_path):
    from frozenmm.engine.launch import build_runner, run_training
    fill_caches(config, build_cached_model(config), ['train', 'val'])
    config.model.backbone.tower.mode = 'read'
    config.train_cfg.update(max_iters=3, val_interval=3)
    config.visualizer.vis_backends = []
    with torch.random.fork_rng():
        runner = build_runner(config)
        run_training(runner)
    (tower, ) = cached_towers(runner.model)
    assert tower.misses == 0 and tower.hits > 3


def test_the_estimate_is_the_size_of_the_filled_cache(config, tmp_path):
    guess = estimate(config, ['train'])
    assert not (tmp_path / 'cache').exists()
    model = build_cached_model(config)
    fill_caches(config, model, ['train'])
    (tower, ) = cached_towers(model)
    assert guess.images == 2 * episodes(config, 'train')
    assert guess.image_bytes == pytest.approx(tower.cache.size / len(tower.cache), rel=0.1)


def test_a_pipeline_that_never_gives_the_same_pixels_is_refused(config):
    inside = config.train_dataloader.dataset.pipeline[0].transforms
    config.train_dataloader.dataset.pipeline = [*inside, config.train_dataloader.dataset.pipeline[1]]
    with pytest.raises(ValueError, match='would never be read again; put its random transforms into StoredVariants'):
        fill_caches(config, build_cached_model(config), ['train'])


def test_two_places_of_variants_are_refused(config):
    pipeline = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset.pipeline = [pipeline[0], dict(type='frozenmm.StoredVariants', transforms=[]),
                                                pipeline[1]]
    with pytest.raises(ValueError, match='has 2 StoredVariants, which draw independently'):
        fill_caches(config, build_cached_model(config), ['train'])


def test_a_config_without_cache_or_split_is_told_so(config):
    with pytest.raises(ValueError, match="a split is one of .*, got 'dev'"):
        fill_caches(config, build_cached_model(config), ['dev'])
    config.val_dataloader = None
    with pytest.raises(ValueError, match='the config has no val_dataloader'):
        fill_caches(config, build_cached_model(config), ['val'])
    config.model.backbone.tower = config.model.backbone.tower.pop('tower')
    with pytest.raises(ValueError, match="has no CachedTower; put one around its tower"):
        build_cached_model(config)


@pytest.mark.journey
def test_the_command_line_fills_checks_prunes_and_finds_damage(demo_room, tmp_path, repo_root):
    def run(*arguments, more=()):
        return subprocess.run([sys.executable, 'tools/cache_features.py', NAME, *arguments, '--cfg-options',
                               *options(tmp_path), *more], cwd=repo_root, capture_output=True, text=True, timeout=300,
                              env={**os.environ, 'OMP_NUM_THREADS': '1', 'FROZENMM_HOME': str(tmp_path / 'home')})

    filled = run('--prune')
    assert filled.returncode == 0, filled.stderr
    assert 's left' in filled.stderr and 'deleted 0 and 0 damaged shards' in filled.stdout
    other = run(more=['+model.backbone.tower.tower.quantise=True'])
    assert other.returncode == 2 and 'quantise: False in the cache, True in the config' in other.stderr
    shard = next((tmp_path / 'cache' / 'shards').iterdir())
    os.truncate(shard, shard.stat().st_size // 2)
    checked = run('--verify')
    assert checked.returncode == 1 and 'truncated' in checked.stdout
    full = run(more=['model.backbone.tower.quota_gb=1e-9'])
    assert full.returncode == 2 and 'has no room for a shard' in full.stderr and 'Traceback' not in full.stderr
