"""Test-time augmentation: what the tool makes of a config, and that it changes results as it should."""
from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from frozenmm.engine.launch import build_runner, load_config, use_tta


def test_a_detector_is_tested_at_two_scales_and_mirrored(repo_root, tiny_coco, tmp_path):
    cfg = load_config(repo_root / 'configs/quickstart/dino_frozen_scenes_tta.py', [f'data_root={tiny_coco}'],
                      work_dir=tmp_path)
    cfg.log_level = 'ERROR'
    cfg.custom_hooks = []
    use_tta(cfg)
    runner = build_runner(cfg)
    seen = []
    runner.model.module.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    predict = runner.model.module.predict
    shapes = []

    def watched(inputs, samples, **options):
        shapes.extend((sample.img_shape, sample.flip) for sample in samples)
        return predict(inputs, samples, **options)

    runner.model.module.predict = watched
    with torch.no_grad():
        runner.model.eval()
        (batch, ) = [next(iter(runner.test_dataloader))]
        results = runner.model.test_step(batch)
    # two images, four views each
    assert len(results) == 2 and len(shapes) == 8
    assert {flip for _, flip in shapes} == {True, False} and len({shape for shape, _ in shapes}) == 2


def test_a_config_without_it_is_answered():
    with pytest.raises(ValueError, match='--tta needs tta_model and tta_pipeline'):
        use_tta(Config(dict(model=dict(type='a'))))
