"""The open-vocabulary LVIS config, from data to box AP, on 70 pictures of COCO with a made-up split."""
from __future__ import annotations

import copy
import json
import math
from collections import defaultdict

import pytest
import torch
from mmengine.config import Config
from test_frozen_detr_configs import FOLDER, shrunk

import frozenmm  # noqa: F401
from frozenmm.engine.launch import train
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass


def as_lvis(root, split, target):
    """COCO's instances as LVIS writes them: categories in few pictures are rare, of each picture some are absent."""
    content = json.loads((root / f'annotations/instances_{split}.json').read_text())
    found = defaultdict(set)
    for entry in content['annotations']:
        found[entry['image_id']].add(entry['category_id'])
    counts = {entry['id']: sum(entry['id'] in present for present in found.values()) for entry in content['categories']}
    for entry in content['categories']:
        count = counts[entry['id']]
        entry.update(image_count=count, frequency='f' if count > 10 else 'c' if count > 2 else 'r')
    for entry in content['images']:
        entry['coco_url'] = f'http://images/{split}/{entry["file_name"]}'
        absent = [number for number in counts if number not in found[entry['id']]]
        entry.update(neg_category_ids=absent[::9], not_exhaustive_category_ids=absent[1::30])
    target.write_text(json.dumps(content))
    return content


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))


def test_it_trains_on_common_classes_and_is_measured_on_all(shared_dir, tmp_path):
    root = shared_dir / 'data/coco_mini'
    content = as_lvis(root, 'train', tmp_path / 'lvis_v1_train.json')
    as_lvis(root, 'val', tmp_path / 'lvis_v1_val.json')
    categories = sorted(content['categories'], key=lambda entry: entry['id'])
    vocabulary = str(tmp_path / 'vocabulary.json')
    Vocabulary(tuple(VocabularyClass(entry['name'], id=entry['id']) for entry in categories), 'mini').save(vocabulary)

    cfg = Config.fromfile(FOLDER / 'frozen_dino_4scale_r50_clip-l336_2x_lvis-open.py')
    cfg.model = shrunk(cfg.model)
    cfg.model.bbox_head.text_classifier.vocabulary = vocabulary
    cfg.model.bbox_head.loss_cls.counts = str(tmp_path / 'lvis_v1_train.json')
    seen, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    for data in seen.dataset, val:
        data.update(data_root=str(tmp_path), data_prefix=dict(img=str(root / 'images')), vocabulary=vocabulary)
    seen.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
                              dict(type='Resize', scale=(96, 96), keep_ratio=True), dict(type='PackDetInputs')]
    seen.oversample_thr = 0.2  # at the config's 0.001 nothing is rare enough among 70 pictures
    val.pipeline[1].scale = (96, 96)
    val.indices = 8
    for loader in cfg.train_dataloader, cfg.val_dataloader:
        loader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.val_evaluator.ann_file = str(tmp_path / 'lvis_v1_val.json')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    cfg.param_scheduler, cfg.default_hooks, cfg.auto_scale_lr = [], {}, None
    cfg.update(work_dir=str(tmp_path / 'work'), log_level='ERROR', test_cfg=None, test_dataloader=None,
               test_evaluator=None, randomness=dict(seed=0))
    runner = train(cfg)

    data = runner.train_dataloader.dataset
    rare = {index for index, entry in enumerate(categories) if entry['frequency'] == 'r'}
    labels = {entry['bbox_label'] for index in range(len(data.dataset)) for entry in
              data.dataset.get_data_info(index)['instances']}
    assert rare and labels and not labels & rare and len(data) > len(data.dataset)
    model = runner.model
    assert not model.bbox_head.loss_cls.counts[sorted(rare)].any() and model.bbox_head.loss_cls.counts.any()
    assert model.bbox_head.cls_branches[0].vectors.shape == (80, 12)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    found = {key: runner.message_hub.get_scalar(f'val/lvis/{key}').current() for key in ('AP', 'APr', 'APc', 'APf')}
    assert all(math.isnan(value) or 0 <= value <= 100 for value in found.values()) and not math.isnan(found['AP'])
