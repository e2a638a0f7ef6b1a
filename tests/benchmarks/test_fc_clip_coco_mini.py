"""The benchmark on coco_mini: its result file and its groups of classes."""
from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script():
    pytest.importorskip('mmdet')
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location('benchmark_fc_clip_coco_mini',
                                                  ROOT / 'benchmarks' / 'fc_clip_coco_mini.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


def entry(arm, value):
    metrics = {key: value for key in ('panoptic/PQ', 'semantic/mIoU', 'coco/segm_mAP')}
    return dict(arm=arm, iterations=3, train_cpu_seconds=60.0, trained_parameters=10**6,
                metrics={'both': metrics, 'trained': metrics, 'frozen': metrics, 'untrained 0': metrics,
                         'untrained 1': dict.fromkeys(metrics, 0.0)})


def test_an_arm_keeps_its_place_when_the_other_is_run_again(script, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'r.json'
    monkeypatch.setattr(script, 'run', lambda arm, args: entry(arm, 0.25))
    script.main(['--arms', 'unseen17', '--out', str(out)])
    monkeypatch.setattr(script, 'run', lambda arm, args: entry(arm, 0.5))
    text = script.main(['--arms', 'all', '--out', str(out)])
    runs = json.loads(out.read_text())['runs']
    assert [(run['arm'], run['metrics']['both']['panoptic/PQ']) for run in runs] == [('all', 0.5), ('unseen17', 0.25)]
    assert 'all: 3 iterations, 1.0 minutes' in text and text.index('all:') < text.index('unseen17:')


def test_random_classifiers_are_averaged_and_ap_is_in_percent(script):
    assert script.value(entry('all', 0.5), 'untrained', 'PQ') == pytest.approx(0.25)
    assert script.value(entry('all', 0.5), 'both', 'AP') == pytest.approx(50)


def test_both_arms_report_the_same_groups_of_classes(script, tmp_path):
    args = script.parse_args(['--data-root', str(tmp_path)])
    everything, part = (script.config_of(arm, args) for arm in ('all', 'unseen17'))
    assert [metric.train_vocabulary for metric in everything.val_evaluator] == \
        [metric.train_vocabulary for metric in part.val_evaluator]
    assert len(everything.val_evaluator[0].train_vocabulary['without']) == 17
    assert everything.train_dataloader.dataset.vocabulary != part.train_dataloader.dataset.vocabulary
