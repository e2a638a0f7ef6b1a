from __future__ import annotations

import json
import shutil

import pytest
import torch
from mmengine.config import Config

from frozenmm.engine import ThreadsHook
from frozenmm.engine.launch import (
    _how_to_go_on,
    build_runner,
    evaluate,
    load_config,
    train,
    use_amp,
    use_training_defaults,
)
from frozenmm.registry import OPTIM_WRAPPERS

CONFIG = 'configs/quickstart/dino_scratch_scenes.py'


def _tiny(repo_root, tiny_coco, folder, *options):
    return load_config(repo_root / CONFIG, [
        'model.backbone.base_channels=8', 'model.neck.in_channels=[16,32,64]', 'model.encoder.num_layers=1',
        'model.decoder.num_layers=2', 'train_dataloader.batch_size=2', 'env_cfg.dist_cfg.backend=gloo',
        'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=1', 'log_level=ERROR',
        'custom_hooks=[]', f'data_root={tiny_coco}', *options], work_dir=folder)


@pytest.fixture(scope='module')
def trained(repo_root, tiny_coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    train(_tiny(repo_root, tiny_coco, folder))
    return folder


def test_training_validates_and_leaves_a_checkpoint(trained):
    assert (trained / 'iter_2.pth').is_file()
    scalars = [json.loads(line) for line in next(trained.rglob('scalars.json')).read_text().splitlines()]
    assert any('coco/bbox_mAP' in entry for entry in scalars)


def test_a_resumed_training_goes_on_where_it_was(repo_root, tiny_coco, trained, tmp_path):
    shutil.copy(trained / 'iter_2.pth', tmp_path)
    cfg = _tiny(repo_root, tiny_coco, tmp_path, 'train_cfg.max_iters=3', 'train_cfg.val_interval=9')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'iter_2.pth')
    runner = train(cfg)
    scalars = next(tmp_path.rglob('scalars.json')).read_text()
    assert runner.iter == 3 and (tmp_path / 'iter_3.pth').is_file() and '"step": 1' not in scalars


def test_a_checkpoint_is_tested_drawn_and_its_metrics_written(repo_root, tiny_coco, trained, tmp_path):
    cfg = _tiny(repo_root, tiny_coco, tmp_path)
    metrics = evaluate(cfg, trained / 'iter_2.pth', show_dir=tmp_path / 'pictures', show_count=1,
                       out=tmp_path / 'm.json')
    assert json.loads((tmp_path / 'm.json').read_text()) == metrics
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    assert [path.name for path in (tmp_path / 'pictures').iterdir()] == ['val_00000.png']


def test_a_missing_checkpoint_lists_those_that_exist(repo_root, tiny_coco, trained, tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint .*iter_7.pth.*that folder holds .*iter_2.pth'):
        evaluate(_tiny(repo_root, tiny_coco, tmp_path), trained / 'iter_7.pth')
    with pytest.raises(FileNotFoundError, match='train first'):
        evaluate(_tiny(repo_root, tiny_coco, tmp_path), tmp_path / 'nowhere/iter_7.pth')


def test_a_missing_config_lists_the_nearest(repo_root):
    with pytest.raises(FileNotFoundError, match='no config .*scratch_scene.py.*did you mean .*dino_scratch_scenes.py'):
        load_config(repo_root / 'configs/quickstart/dino_scratch_scene.py')


def test_a_data_set_emptied_by_its_filter_is_refused(repo_root, tiny_coco, tmp_path):
    cfg = _tiny(repo_root, tiny_coco, tmp_path, 'train_dataloader.dataset.filter_cfg={"min_size": 999}')
    with pytest.raises(ValueError, match='no image left after filtering with filter_cfg=.*999'):
        train(cfg)


def test_a_batch_larger_than_the_data_set_is_refused_where_it_would_be_dropped(repo_root, tiny_coco, tmp_path):
    cfg = _tiny(repo_root, tiny_coco, tmp_path, 'train_dataloader.batch_size=9', '+train_dataloader.drop_last=True',
                'train_dataloader.sampler.type=DefaultSampler')
    with pytest.raises(ValueError, match='4 images make no batch of 9'):
        train(cfg)


def test_an_unregistered_model_is_explained(repo_root, tiny_coco, tmp_path):
    cfg = _tiny(repo_root, tiny_coco, tmp_path, 'model.backbone.type=ResNett')
    with pytest.raises(KeyError, match='no model is registered as \'ResNett\' \\(nearest: .*mmdet.ResNet'):
        train(cfg)


def test_the_work_folder_is_named_after_the_config(repo_root):
    assert load_config(repo_root / CONFIG).work_dir == 'work_dirs/dino_scratch_scenes'


def test_amp_is_bfloat16_where_the_config_does_not_say_otherwise():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1))))
    use_amp(cfg)
    assert cfg.optim_wrapper.type == 'frozenmm.AutocastOptimWrapper'
    half = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
    cfg = Config(dict(optim_wrapper=half))
    use_amp(cfg)
    assert cfg.optim_wrapper == half
    with pytest.raises(ValueError, match='uses \'DeepSpeedOptimWrapper\''):
        use_amp(Config(dict(optim_wrapper=dict(type='DeepSpeedOptimWrapper'))))


def test_the_wrapper_computes_in_bfloat16_and_steps_in_float32():
    model = torch.nn.Linear(4, 4)
    wrapper = OPTIM_WRAPPERS.build(dict(type='frozenmm.AutocastOptimWrapper',
                                        optimizer=torch.optim.SGD(model.parameters(), lr=0.1)))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        outputs = model(torch.ones(2, 4))
    assert outputs.dtype == torch.bfloat16
    wrapper.update_params(outputs.float().sum())
    assert model.weight.dtype == torch.float32 and not torch.equal(before, model.weight)


def _bare(folder='run', **parts):
    return Config(dict(work_dir=str(folder), train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
                       val_dataloader=dict(batch_size=1), **parts))


def test_a_training_gets_true_steps_the_best_checkpoint_curves_and_samples():
    cfg = _bare()
    use_training_defaults(cfg)
    assert cfg.default_hooks.logger.log_metric_by_epoch is False
    assert cfg.default_hooks.checkpoint == dict(type='CheckpointHook', save_best='auto')
    assert [hook.type for hook in cfg.custom_hooks] == ['frozenmm.RunPicturesHook', 'frozenmm.SamplesHook']
    epochs = _bare()
    epochs.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    epochs.val_dataloader = None
    use_training_defaults(epochs)
    assert 'log_metric_by_epoch' not in epochs.default_hooks.logger
    assert epochs.default_hooks.checkpoint.type == 'CheckpointHook'
    assert [hook.type for hook in epochs.custom_hooks] == ['frozenmm.RunPicturesHook']


def test_the_config_of_an_earlier_run_gets_nothing_twice():
    cfg = _bare()
    use_training_defaults(cfg)
    once = cfg.to_dict()
    use_training_defaults(cfg)
    assert cfg.to_dict() == once


@pytest.mark.parametrize(('files', 'words'), [
    (['last_checkpoint', 'iter_2.pth'], 'with --resume goes on'), ([], 'the same command begins anew'),
    (['best_mIoU_iter_1.pth'], 'the same command with --overwrite begins anew')])
def test_an_interrupted_training_says_what_is_true(tmp_path, files, words):
    for name in files:
        (tmp_path / name).write_text('')
    assert words in _how_to_go_on(tmp_path)


def test_what_a_config_states_itself_stays():
    own = dict(logger=dict(type='LoggerHook', log_metric_by_epoch=True),
               checkpoint=dict(type='CheckpointHook', save_best='mIoU'))
    cfg = _bare(default_hooks=own)
    use_training_defaults(cfg)
    assert cfg.default_hooks == own


@pytest.mark.parametrize(('parts', 'tuned'), [
    (dict(), True), (dict(custom_hooks=[dict(type='frozenmm.ExactResumeHook')]), False),
    (dict(randomness=dict(seed=0, deterministic=True)), False)])
def test_threads_are_chosen_except_where_the_same_weights_are_promised(repo_root, tiny_coco, tmp_path, parts, tuned):
    cfg = _tiny(repo_root, tiny_coco, tmp_path)
    cfg.merge_from_dict(parts)
    runner = build_runner(cfg)
    assert any(isinstance(hook, ThreadsHook) for hook in runner.hooks) == tuned
