"""Train, use, share: the folder of a run is what inference needs, and so is the one file that is exported from it."""
from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch

from frozenmm.apis import export_run, inferencer
from frozenmm.apis.depth_inferencer import DepthMap
from frozenmm.compat.checkpoint import load_checkpoint_file, save_checkpoint_file
from frozenmm.engine.launch import load_config, train
from frozenmm.errors import MissingFile, UserError
from frozenmm.foundation import frozen_modules

STEPS = ['train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=1', 'log_level=ERROR']


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path_factory.getbasetemp() / 'home'))


def _detection(repo_root, tiny_coco, folder):
    return load_config(repo_root / 'configs/quickstart/dino_frozen_scenes.py', [
        *STEPS, 'model.encoder.num_layers=1', 'model.decoder.num_layers=2', 'default_hooks.checkpoint.interval=1',
        'custom_hooks=[]', f'data_root={tiny_coco}'], work_dir=folder)


@pytest.fixture(scope='module')
def detector(repo_root, tiny_coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp('detector')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        train(_detection(repo_root, tiny_coco, folder))
    return folder


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def _arrays(result):
    """What is compared of a result, whatever kind it is."""
    if isinstance(result, DepthMap):
        return [result.values]
    if 'pred_sem_seg' in result:
        return [result.pred_sem_seg.sem_seg.numpy()]
    return [result.pred_instances.bboxes.numpy(), result.pred_instances.scores.numpy()]


def _goes_round(run, tmp_path, picture):
    """Inference by the run's folder and by the exported file is the same; returns the two inferencers."""
    by_run = inferencer(weights=run)
    file = export_run(run, tmp_path / 'model.safetensors')
    by_file = inferencer(weights=file)
    (first, ), (second, ) = by_run([picture]), by_file([picture])
    for one, other in zip(_arrays(first), _arrays(second)):
        np.testing.assert_array_equal(one, other)
    content = load_checkpoint_file(file)
    assert set(content) == {'state_dict', 'meta'} and content['meta']['iterations']
    for place in frozen_modules(by_file.model):
        assert {key for key in content['state_dict'] if key.startswith(f'{place}.')} <= {f'{place}.frozen_record'}
    return by_run, by_file


def test_a_detector_goes_from_its_training_to_a_colleague(detector, tmp_path, picture):
    assert len(list(detector.glob('best_coco_bbox_mAP_iter_*.pth'))) == 1
    by_run, by_file = _goes_round(detector, tmp_path, picture)
    assert by_run.classes == by_file.classes and len(by_run.classes) == 2  # the config on disk knows eight
    assert by_file([picture], out_dir=tmp_path / 'out') and list((tmp_path / 'out').glob('*_overlay.png'))


def test_the_run_s_config_counts_where_the_config_it_was_made_from_is_named(repo_root, detector, picture):
    for weights in detector, next(detector.glob('best_*.pth')):
        found = inferencer(repo_root / 'configs/quickstart/dino_frozen_scenes.py', weights=weights)
        assert found.model.bbox_head.num_classes == 2 and len(found([picture])) == 1


def test_an_open_vocabulary_model_goes_the_same_way(repo_root, tiny_scenes, tmp_path, picture):
    root, settings = tiny_scenes
    cfg = load_config(repo_root / 'configs/fc_clip/fc_clip_conse-lite0_scenes.py', [
        *STEPS, 'model.mask_generator.decoder.num_queries=10', 'model.criterion.num_points=64',
        'default_hooks.checkpoint.interval=1'], work_dir=tmp_path / 'run')
    cfg.custom_hooks = []
    for loader in 'train_dataloader', 'val_dataloader', 'test_dataloader':
        cfg[loader].dataset.update(data_root=root, settings=settings)
    for metric in cfg.val_evaluator:
        for key in set(metric) & {'ann_file', 'seg_prefix'}:
            metric[key] = metric[key].replace(cfg.data_root, f'{root}/')
    train(cfg)
    _, by_file = _goes_round(tmp_path / 'run', tmp_path, picture)
    by_file.set_vocabulary(['cup', 'keyboard'])
    assert by_file([picture])[0].classes == ('cup', 'keyboard')


def test_a_depth_model_goes_the_same_way(repo_root, demo_room, tmp_path, picture):
    from frozenmm.demo.rooms import RoomImages, write_rooms
    settings = dict(train=4, val=2, size=(64, 96))
    rooms = str(write_rooms(tmp_path / 'rooms', RoomImages(**settings)))
    cfg = load_config(repo_root / 'configs/frozen_recon/depth_lite0_rooms.py', [
        *STEPS, f'model.backbone.tower.folder={tmp_path / "cache"}'], work_dir=tmp_path / 'run')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset.update(data_root=rooms, settings=settings)
    train(cfg)
    assert next((tmp_path / 'run').glob('best_depth_*abs_rel*.pth')) and list((tmp_path / 'run/samples').glob('*.png'))
    _goes_round(tmp_path / 'run', tmp_path, picture)


def test_a_segmentor_of_fixed_classes_goes_the_same_way(repo_root, tmp_path, picture):
    random = np.random.default_rng(0)
    for folder, content, suffix in (('images', random.integers(0, 256, (64, 96, 3), np.uint8), 'jpg'),
                                    ('labels', random.integers(0, 3, (64, 96), np.uint8), 'png')):
        (tmp_path / folder).mkdir()
        for number in range(2):
            cv2.imwrite(str(tmp_path / folder / f'{number}.{suffix}'), content)
    cfg = load_config(repo_root / 'configs/generic/upernet_frozen-lite0_ade20k.py', STEPS, work_dir=tmp_path / 'run')
    cfg.model.backbone.tower.weights = 'random'
    cfg.model.decode_head.update(channels=32, num_classes=3)
    cfg.model.data_preprocessor.size = (64, 64)
    for step in (*cfg.train_dataloader.dataset.pipeline, *cfg.val_dataloader.dataset.pipeline):
        step.update({key: (64, 64) for key in ('crop_size', ) if key in step})
        step.update({key: (96, 64) for key in ('scale', ) if key in step})
        step.pop('reduce_zero_label', None)
    for name in 'train_dataloader', 'val_dataloader', 'test_dataloader':
        cfg[name].dataset.update(
            type='mmseg.BaseSegDataset', data_root=str(tmp_path), img_suffix='.jpg', seg_map_suffix='.png',
            data_prefix=dict(img_path='images', seg_map_path='labels'), metainfo=dict(classes=('sky', 'road', 'tree')))
        cfg[name].num_workers = 0
        cfg[name].pop('persistent_workers', None)
    train(cfg)
    assert next((tmp_path / 'run').glob('best_mIoU_*.pth'))
    by_run, _ = _goes_round(tmp_path / 'run', tmp_path, picture)
    assert by_run.classes == ('sky', 'road', 'tree')
    assert '%' in by_run.summary(by_run([picture])[0])


def test_what_is_no_run_is_refused_with_what_is_missing(tmp_path, detector):
    with pytest.raises(MissingFile, match='no run folder'):
        export_run(tmp_path / 'nowhere', tmp_path / 'a.safetensors')
    with pytest.raises(MissingFile, match='holds no config of a training'):
        export_run(tmp_path, tmp_path / 'a.safetensors')
    with pytest.raises(MissingFile, match='holds no config of a training'):
        inferencer(weights=tmp_path)
    with pytest.raises(UserError, match='name the file a.safetensors'):
        export_run(detector, tmp_path / 'a.pth')
    save_checkpoint_file(tmp_path / 'plain.safetensors', {'weight': torch.zeros(1)}, {})
    with pytest.raises(UserError, match='brings no config; name it as model'):
        inferencer(weights=tmp_path / 'plain.safetensors')


@pytest.mark.parametrize('kind', ['os.system', 'subprocess.Popen', 'mmengine.fileio.io.remove', 7])
def test_a_header_cannot_name_code_to_run(tmp_path, kind):
    stated = dict(model=dict(type='FrozenBackbone', parts=[dict(type=kind)]))
    save_checkpoint_file(tmp_path / 'a.safetensors', {'weight': torch.zeros(1)}, dict(inference=repr(stated)))
    with pytest.raises(UserError, match='only names of registered classes .* others could run any code'):
        inferencer(weights=tmp_path / 'a.safetensors')


@pytest.mark.parametrize('stated', [dict(default_scope='os', model=dict(type='X')),
                                    dict(model=dict(type='X', parts=[dict(type='Y', _scope_='subprocess')]))])
def test_a_header_cannot_name_modules_to_import(tmp_path, stated):
    save_checkpoint_file(tmp_path / 'a.safetensors', {'weight': torch.zeros(1)}, dict(inference=repr(stated)))
    with pytest.raises(UserError, match='names the scope .* may stand there'):
        inferencer(weights=tmp_path / 'a.safetensors')



@pytest.mark.parametrize(('stated', 'message'), [
    ('[1]', 'states no config with a model'), ('dict(model=1)', 'cannot be read as an exported model'),
    ('{', 'cannot be read as an exported model')])
def test_a_damaged_header_is_refused(tmp_path, stated, message):
    save_checkpoint_file(tmp_path / 'b.safetensors', {'weight': torch.zeros(1)}, dict(inference=stated))
    with pytest.raises(UserError, match=message):
        inferencer(weights=tmp_path / 'b.safetensors')


def test_a_config_that_is_more_than_data_is_not_exported(detector, tmp_path):
    (tmp_path / 'run').mkdir()
    text = next(detector.glob('*.py')).read_text()
    text = text.replace("default_scope", "from mmdet.models import DINOHead\ndefault_scope", 1)
    (tmp_path / 'run/mine.py').write_text(f'{text}\nmodel["bbox_head"]["type"] = DINOHead\n')
    with pytest.raises(UserError, match='the config of .* names the type .*DINOHead.*; only names of registered'):
        export_run(tmp_path / 'run', tmp_path / 'a.safetensors', checkpoint=next(detector.glob('best_*.pth')))
