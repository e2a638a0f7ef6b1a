"""Every training-free config builds and labels a picture through its own pipeline; one per method is tested whole."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import raw_layouts
import yaml
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.utils import register_all_modules
from tiny_dense_clip import CLIP, DINO, RADIO, SAM, TEXT

import frozenmm  # noqa: F401  (fills the holes of the installation before mmseg is imported)
from frozenmm.datasets.prepare import prepare
from frozenmm.engine.launch import evaluate, load_config
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.registry import MODELS, TRANSFORMS

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / 'dense_clip'
CONFIGS = sorted(path.stem for path in FOLDER.glob('*.py'))
WITH_BACKGROUND = ('pascal-voc-21', 'pascal-context-60', 'coco-object')


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path_factory.getbasetemp() / 'home'))


def tiny(cfg):
    """The config with tiny towers, small windows and small pictures; method, words and rule stay."""
    model = cfg.model
    model.tower = RADIO if 'RADIO' in model.tower.type else CLIP
    model.text_tower = TEXT
    model.text.templates = 'none'
    if 'proxy' in model:
        model.proxy = DINO
    if 'sam' in model:
        model.sam = SAM
        model.refine.sam.area = 4
    if model.test_cfg.mode == 'slide':
        model.test_cfg.update(crop_size=(24, 24), stride=(16, 16))
    if 'pamr' in model.get('refine', {}):
        model.refine.pamr.dilations = (1, 2)
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (80, 40)
    cfg.update(log_level='ERROR')
    return cfg


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_labels_a_picture_through_its_pipeline(name, tmp_path):
    register_all_modules(init_default_scope=False)
    cfg = tiny(load_config(FOLDER / f'{name}.py'))
    raw_layouts.picture(tmp_path / 'p.jpg', (30, 44))
    raw_layouts.array(tmp_path / 'p.png', np.zeros((30, 44), np.uint8))
    with DefaultScope.overwrite_default_scope('mmseg'):
        item = dict(img_path=str(tmp_path / 'p.jpg'), seg_map_path=str(tmp_path / 'p.png'), reduce_zero_label=False,
                    label_map=None, seg_fields=[], instances=[])
        for step in cfg.test_dataloader.dataset.pipeline:
            item = TRANSFORMS.build(step)(item)
        model = MODELS.build(cfg.model).eval()
        found = model.test_step(pseudo_collate([item]))[0]
    classes = Vocabulary.read(cfg.test_dataloader.dataset.vocabulary)
    assert found.pred_sem_seg.data.shape == (1, 30, 44) and found.pred_sem_seg.data.max() < len(classes)
    assert model.vocabulary.names == classes.names
    assert (model.vocabulary.names[0] == 'background') == name.endswith(WITH_BACKGROUND)
    assert (cfg.model.rule.get('threshold', 0) > 0) <= name.endswith(WITH_BACKGROUND)


@pytest.mark.parametrize('method', ['sclip', 'naclip', 'proxyclip', 'trident', 'radseg'])
def test_it_is_tested_without_a_checkpoint(method, tmp_path):
    raw_layouts.pascal_voc(tmp_path)
    prepare('pascal_voc', tmp_path, download=False)
    name = next(name for name in CONFIGS if name.startswith(method) and name.endswith('pascal-voc-20'))
    cfg = tiny(load_config(FOLDER / f'{name}.py'))
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'VOCdevkit/VOC2012') + '/'
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.work_dir = str(tmp_path / 'work')
    assert 0 <= evaluate(cfg, None)['semantic/mIoU'] <= 100


def test_every_config_is_in_the_metafile_with_the_number_of_its_docstring():
    models = yaml.safe_load((FOLDER / 'metafile.yml').read_text())['Models']
    assert sorted(entry['Name'] for entry in models) == CONFIGS
    readme = (FOLDER / 'README.md').read_text()
    for entry in models:
        text = (FOLDER / f'{entry["Name"]}.py').read_text()
        for result in entry.get('Results', ()):
            assert f'mIoU {result["Metrics"]["mIoU"]} ' in text and result['Source'] == 'published'
            assert f'| {result["Metrics"]["mIoU"]} |' in readme
