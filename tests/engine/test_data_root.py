from __future__ import annotations

import json

import pytest
from mmengine.config import Config

from frozenmm.engine.data_root import VARIABLE, requested_data_root, use_data_root


def _config() -> Config:
    def loader(split, wrap=False):
        dataset = dict(type='frozenmm.GeneratedScenes', data_root='old', split=split, settings=dict(size=64))
        return dict(dataset=dict(type='RepeatDataset', times=2, dataset=dataset) if wrap else dataset)

    return Config(dict(train_dataloader=loader('train', wrap=True), val_dataloader=loader('val'), test_dataloader=None,
                       val_evaluator=dict(type='CocoMetric', ann_file='old.json'),
                       model=dict(bbox_head=dict(num_classes=8), stages=[dict(num_classes=8)])))


def _layout(root, annotations='instances_{}.json', images='images/{}'):
    for split in 'train', 'val':
        file = root / 'annotations' / annotations.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({'categories': [{'id': 3, 'name': 'cat'}, {'id': 9, 'name': 'dog'}]}))
        (root / images.format(split)).mkdir(parents=True)


def test_a_test_loader_may_read_training_images_on_purpose(tmp_path):
    _layout(tmp_path)
    cfg = _config()
    cfg.val_dataloader.dataset = dict(type='CocoDataset', ann_file='annotations/instances_train2017.json')
    use_data_root(cfg, tmp_path)
    assert cfg.val_dataloader.dataset.ann_file == 'annotations/instances_train.json'
    assert cfg.val_dataloader.dataset.data_prefix.img == 'images/train/'


@pytest.mark.parametrize(('annotations', 'images'), [('instances_{}.json', 'images/{}'),
                                                     ('instances_{}2017.json', '{}2017')])
def test_loaders_metric_and_class_counts_follow_the_folder(tmp_path, annotations, images):
    _layout(tmp_path, annotations, images)
    cfg = _config()
    use_data_root(cfg, tmp_path)
    train = cfg.train_dataloader.dataset.dataset
    assert train.type == 'mmdet.CocoDataset' and train.metainfo.classes == ('cat', 'dog')
    assert train.ann_file == f'annotations/{annotations.format("train")}'
    assert train.data_prefix.img == f'{images.format("train")}/'
    assert 'split' not in train and 'settings' not in train
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'annotations' / annotations.format('val'))
    assert cfg.model.bbox_head.num_classes == cfg.model.stages[0].num_classes == 2


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone does not exist'):
        use_data_root(_config(), tmp_path / 'gone')


def test_a_folder_of_another_layout_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match='no train split of COCO layout .*train.json.*instances_train2017.json'):
        use_data_root(_config(), tmp_path)


def test_the_option_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'from_environment')
    assert requested_data_root({'data_root': 'from_option'}) == 'from_option'
    assert requested_data_root({}) == 'from_environment'
    monkeypatch.delenv(VARIABLE)
    assert requested_data_root({}) is None
