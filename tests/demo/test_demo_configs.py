"""The open-vocabulary configs on painted data and with the stand-in for SAM train two iterations and are evaluated."""
from __future__ import annotations

import sys
from pathlib import Path

import torch

from frozenmm.engine.launch import load_config, train

sys.path.insert(0, str(Path(__file__).parents[1] / 'configs'))
from test_laptop_configs import TINY, _own_cache, check, shown  # noqa: F401  (one is a fixture)

SMALL_SAM = dict(weights='random', model=dict(channels=64, mask_channels=8, heads=4, neck_depth=1, decoder_depth=1))


def test_the_config_of_scenes_trains_and_is_evaluated(repo_root, tiny_scenes, tmp_path):
    root, settings = tiny_scenes
    cfg = load_config(repo_root / 'configs/fc_clip/fc_clip_conse-lite0_scenes.py', TINY, work_dir=tmp_path)
    runner = train(shown(cfg, root=root, settings=settings))
    check(runner)
    classifier = runner.model.classifier
    assert runner.train_dataloader.dataset.metainfo['classes'] == (
        'cat', 'cup', 'shuttle', 'face', 'motorcycle', 'horse', 'ground')
    assert classifier.rows_of(training=False).seen.tolist() == [True] * 5 + [False] * 2 + [True] * 2
    assert classifier.rows_of(training=False).things == tuple(range(8))
    samples = [runner.train_dataloader.dataset[index]['data_samples'] for index in range(2)]
    labels = torch.cat([sample.gt_sem_seg.sem_seg.unique() for sample in samples])
    assert {6, 255} <= set(labels.tolist()) <= {*range(7), 255}  # ground, and held-out objects that are void


def test_the_config_of_collages_trains_and_meets_unseen_things_in_the_test_alone(repo_root, shared_dir, tmp_path):
    cfg = load_config(repo_root / 'configs/fc_clip/fc_clip_conse-lite0_collages.py', TINY, work_dir=tmp_path)
    for loader in cfg.train_dataloader, cfg.val_dataloader:
        loader.dataset.update(source=str(shared_dir / 'data/coco_mini'), count=4)
    cfg.custom_hooks = [dict(type='frozenmm.AccelerateHook')]
    runner = train(cfg)
    assert runner.iter == 2 and len(runner.train_dataloader.dataset) == 4
    seen = runner.model.classifier.rows_of(training=False).seen
    assert len(seen) == 31 and int((~seen).sum()) == 10
    shown = {name for picture in runner.train_dataloader.dataset.pictures for name in picture.labels}
    assert shown and not shown & set(cfg.unseen)
    assert 0 <= runner.message_hub.get_scalar('val/semantic/mIoU_unseen').current() <= 100


def with_random_sam(cfg):
    """The demonstration model without its weights, in a small size."""
    cfg.model.sam_tower.tower.update(SMALL_SAM)
    cfg.model.sam_masks.automatic.update(points_per_side=2, iou_threshold=0.0)
    cfg.model.sam_masks.automatic.prompter.update(SMALL_SAM)
    return cfg


def test_frozen_seg_of_scenes_trains_and_is_evaluated(repo_root, tiny_scenes, tmp_path):
    root, settings = tiny_scenes
    path = repo_root / 'configs/frozen_seg/frozen_seg_conse-lite0_demo-sam_scenes.py'
    cfg = with_random_sam(load_config(path, TINY, work_dir=tmp_path))
    runner = train(shown(cfg, root=root, settings=settings))
    check(runner)
    generator = runner.model.mask_generator
    assert not generator.sam_branch.compat and len(generator.decoder.feature_injectors) == 2


def test_frozen_seg_of_coco_mini_trains_and_is_evaluated(repo_root, shared_dir, tmp_path):
    path = repo_root / 'configs/frozen_seg/frozen_seg_conse-lite0_demo-sam_coco-mini_unseen17.py'
    cfg = with_random_sam(load_config(path, TINY, work_dir=tmp_path))
    cfg.val_evaluator = cfg.val_evaluator[:2]  # the truth of mask AP holds all images
    runner = train(shown(cfg, root=str(shared_dir / 'data/coco_mini')))
    check(runner)
    assert runner.model.classifier.rows_of(training=True).num_classes == 116


def test_the_demonstration_sam_trains_and_is_evaluated(repo_root, tmp_path):
    path = repo_root / 'configs/frozen_seg/demo_sam_lite0_scenes.py'
    cfg = load_config(path, ['train_dataloader.dataset.count=4', 'train_dataloader.dataset.size=64',
                             'val_dataloader.dataset.count=2', 'val_dataloader.dataset.size=64',
                             'custom_hooks.0.iterations=2', 'log_level=ERROR'], work_dir=tmp_path)
    runner = train(cfg)
    assert runner.iter == 2 and sum(parameter.numel() for parameter in runner.model.parameters()) < 5e6
    assert 0 <= runner.message_hub.get_scalar('val/prompt/box').current() <= 100
    assert not any(key.startswith('image_tower.') and key != 'image_tower.frozen_record'
                   for key in runner.model.state_dict())
