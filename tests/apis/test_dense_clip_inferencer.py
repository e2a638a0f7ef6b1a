"""Training-free models through the same call as all open-vocabulary models."""
from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny_dense_clip import CLIP, PARTS, PREPROCESSOR, TEXT

from frozenmm.apis import OpenVocabularyInferencer, inferencer
from frozenmm.errors import UserError
from frozenmm.registry import MODELS

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 40), keep_ratio=True),
            dict(type='PackSegInputs')]


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))


def config(method='naclip', **options):
    model = dict(type='frozenmm.DenseCLIPSegmentor', tower=CLIP, text_tower=TEXT, method=method,
                 data_preprocessor=PREPROCESSOR)
    return Config(dict(default_scope='mmseg', custom_imports=dict(imports=['frozenmm']),
                       model={**model, **PARTS[method], **options},
                       test_dataloader=dict(dataset=dict(pipeline=PIPELINE))))


def picture(height=36, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('method', ['naclip', 'trident', 'radseg'])
def test_words_become_a_semantic_map_of_the_picture(method, caplog):
    with caplog.at_level(logging.INFO):
        made = inferencer(config(method), ['cat, kitten', 'dog', 'sky'])
    assert type(made) is OpenVocabularyInferencer and 'untrained' not in caplog.text
    found = made(picture())[0]
    assert found.pred_sem_seg.sem_seg.shape == (1, 36, 60) and found.classes == ('cat', 'dog', 'sky')
    assert {info.split()[0] for info in made.summary(found).split(', ')} <= {'cat', 'dog', 'sky'}


def test_other_words_cost_no_reload_and_files_are_written(tmp_path):
    made = inferencer(config(text=dict(background=['wall'])), ['cat'])
    network = made.model.dense.tower.network
    made.set_vocabulary(['cup', 'plate'])
    found = made(picture(), out_dir=tmp_path / 'out')[0]
    assert found.classes == ('background', 'cup', 'plate') and made.model.dense.tower.network is network
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'image_0000_overlay.png', 'results.jsonl', 'semantic', 'semantic_classes.csv']
    legend = (tmp_path / 'out/semantic_classes.csv').read_text().splitlines()
    assert [line.split(',')[2] for line in legend[1:]] == list(found.classes)


def test_a_built_model_works_and_says_that_nothing_was_trained():
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config('sclip').model)
    made = OpenVocabularyInferencer(model, ['cat', 'dog'])
    assert made(picture())[0].pred_sem_seg.sem_seg.shape == (1, 36, 60)
    with pytest.raises(UserError, match='trained on no classes'):
        made.set_vocabulary(['cat'], seen=torch.tensor([True]))
    with pytest.raises(UserError, match='there is no vocabulary'):
        inferencer(config())(picture())
