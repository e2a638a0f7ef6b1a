"""The depth configs of frozen networks are tested on two images."""
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from frozenmm.engine.launch import evaluate, load_config


@pytest.fixture(scope='module')
def nyu(tmp_path_factory) -> str:
    """Two images in mmseg's layout of NYU: a floor that recedes, depth in millimetres."""
    root, random = tmp_path_factory.mktemp('nyu'), np.random.default_rng(0)
    depth = np.tile(np.linspace(4000, 1000, 64)[:, None], (1, 96)).astype(np.uint16)
    for number in range(2):
        for folder, content, suffix in (('images', random.integers(0, 256, (64, 96, 3), np.uint8), 'jpg'),
                                        ('annotations', depth, 'png')):
            (root / folder / 'test').mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / folder / 'test' / f'{number}.{suffix}'), content)
    return str(root)


def shown(cfg: Config, nyu: str) -> Config:
    """The config on that folder."""
    cfg.test_dataloader.dataset.data_root = nyu
    cfg.log_level = 'ERROR'
    return cfg


def test_a_frozen_network_is_tested_without_a_checkpoint(repo_root, nyu, tmp_path):
    cfg = load_config(repo_root / 'configs/frozen_recon/depth_leres-x101_nyu.py', work_dir=tmp_path)
    cfg.model.network.update(encoder='resnet50', weights='random')
    cfg.model.correction = dict(bandwidth=0.3)
    metrics = evaluate(shown(cfg, nyu), None, out=tmp_path / 'metrics.json')
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    assert 0 < metrics['depth/lsq_scale_shift/abs_rel'] < 2


def test_a_transformers_model_is_tested_from_its_folder(repo_root, nyu, tmp_path):
    from transformers import DPTConfig, DPTForDepthEstimation
    torch.manual_seed(0)
    DPTForDepthEstimation(DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        is_hybrid=False)).save_pretrained(tmp_path / 'dpt')
    cfg = load_config(repo_root / 'configs/frozen_recon/depth_hf_nyu.py',
                      [f'model.network.folder={tmp_path / "dpt"}'], work_dir=tmp_path)
    assert evaluate(shown(cfg, nyu), None)['depth/median_scale/rmse'] > 0
