"""Every evaluation config runs, on small data in the publisher's layout that was prepared as users prepare it."""
from __future__ import annotations

import math
from pathlib import Path

import pytest
import raw_layouts
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from test_open_vocabulary_configs import shrink

import frozenmm  # noqa: F401  (fills the holes of the installation before mmdet is imported)
from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.datasets.prepare import PREPARATIONS, prepare
from frozenmm.engine.launch import evaluate, load_config
from frozenmm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2] / 'configs'
DATA = sorted(path for path in (ROOT / '_base_' / 'datasets').glob('*.py') if 'vocabulary' in path.read_text())
EVALUATIONS = sorted(path for system in ('fc_clip', 'frozen_seg') for folder in ('evaluation', 'mmseg')
                     for path in (ROOT / system / folder).glob('*.py'))
PREPARED_BY = {data: name for name, preparation in PREPARATIONS.items() for data in preparation.evaluated_by}
METRICS = {'panoptic': 'panoptic/PQ', 'semantic': 'semantic/mIoU', 'instance': 'coco/segm_mAP'}


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path_factory.getbasetemp() / 'home'))


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Gives the root of all data, with a data set in it that is prepared when first asked for."""
    root, done = tmp_path_factory.mktemp('data'), set()

    def ready(name):
        if name not in done:
            getattr(raw_layouts, name)(root)
            prepare(name, root, download=False)
            done.add(name)
        return root
    return ready


def on_small_pictures(cfg, root, work_dir):
    """The config with a tiny model, small pictures and the test's data; its vocabulary, tasks and metrics stay."""
    words = cfg.model.get('model', cfg.model).classifier.vocabulary
    shrink(cfg)
    inner = cfg.model.get('model', cfg.model)
    inner.classifier.vocabulary = str(root / words[len('data/'):]) if str(words).startswith('data/') else words
    inner.classifier.train_vocabulary = 'coco_panoptic_133'
    if 'sam_branch' in inner.mask_generator:
        inner.mask_generator.sam_branch.compat = False
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.merge_from_dict(moved(dict(test_dataloader=cfg.test_dataloader, test_evaluator=cfg.test_evaluator), root))
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (80, 64)
    cfg.update(work_dir=str(work_dir), log_level='ERROR', load_from=None)
    return cfg


def moved(node, root):
    if isinstance(node, dict):
        return {key: moved(value, root) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [moved(value, root) for value in node]
    return f'{root}/{node[len("data/"):]}' if isinstance(node, str) and node.startswith('data/') else node


def run(cfg, tmp_path):
    from mmdet.utils import register_all_modules
    from mmseg.utils import register_all_modules as register_mmseg
    register_all_modules(init_default_scope=False)
    register_mmseg(init_default_scope=False)
    with torch.random.fork_rng(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        state = MODELS.build(cfg.model).state_dict()
    save_checkpoint_file(tmp_path / 'w.safetensors', {key: value.contiguous() for key, value in state.items()}, {})
    return evaluate(cfg, tmp_path / 'w.safetensors')


def data_of(path):
    return next(Path(base).stem for base in Config._get_base_files(str(path)) if 'datasets' in base)


@pytest.mark.parametrize('path', EVALUATIONS, ids=[str(path.relative_to(ROOT)) for path in EVALUATIONS])
def test_an_evaluation_config_gives_the_metrics_of_its_tasks(path, prepared, tmp_path):
    root = prepared(PREPARED_BY[data_of(path).removesuffix('_semantic') if data_of(path) not in PREPARED_BY
                                else data_of(path)])
    cfg = on_small_pictures(load_config(path), root, tmp_path)
    check(cfg, run(cfg, tmp_path))


def check(cfg, found):
    tasks = cfg.model.get('model', cfg.model).postprocess.tasks
    if cfg.test_dataloader.dataset.type == 'frozenmm.LVISImages':
        assert 0 <= found['lvis/AP'] <= 100 and math.isnan(found['lvis/APr'])
        return
    for task in tasks:
        assert 0 <= found[METRICS[task]] <= 100
    assert any(key.endswith('_unseen') for key in found)


@pytest.mark.parametrize('data', ['coco_panoptic', 'ade20k_150_semantic', 'cityscapes_semantic', 'pascal_voc_20'])
def test_any_model_is_evaluated_on_another_data_set_by_one_option(data, prepared, tmp_path):
    name = PREPARED_BY.get(data) or PREPARED_BY[data.removesuffix('_semantic')]
    path = ROOT / 'fc_clip' / 'fc_clip_rn50_8xb2-369k_coco-panoptic.py'
    cfg = load_config(path, data=data)
    assert 'train_dataloader' not in cfg and 'optim_wrapper' not in cfg
    cfg = on_small_pictures(cfg, prepared(name), tmp_path)
    check(cfg, run(cfg, tmp_path))


def test_every_data_set_file_has_an_evaluation_or_is_the_training_set():
    used = {data_of(path) for path in EVALUATIONS}
    assert {path.stem for path in DATA} - used == {'coco_panoptic', 'lvis_boxes'}
    assert set(PREPARED_BY) <= {path.stem for path in DATA}


def test_an_option_for_another_data_set_is_checked(tmp_path):
    path = ROOT / 'fc_clip' / 'fc_clip_rn50_8xb2-369k_coco-panoptic.py'
    with pytest.raises(ValueError, match=r"unknown data set 'ade20k'; did you mean one of \['ade20k_"):
        load_config(path, data='ade20k')
    (tmp_path / 'x.py').write_text('a = 1')
    with pytest.raises(ValueError, match='x.py is no data set for open-vocabulary models'):
        load_config(path, data=tmp_path / 'x.py')
    with pytest.raises(ValueError, match='has no classifier'):
        load_config(ROOT / 'quickstart' / 'dino_enhanced_coco.py', data='ade20k_150')
