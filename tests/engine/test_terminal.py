"""What a person sees of a training, in a process of its own, because the terminal is what is tested."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

TINY = ['model.encoder.num_layers=1', 'model.decoder.num_layers=1', 'train_dataloader.batch_size=2',
        'default_hooks.logger.interval=1', 'env_cfg.dist_cfg.backend=gloo']


def _command(folder, tiny_coco, *arguments, iterations=9):
    return [sys.executable, 'tools/train.py', 'configs/quickstart/dino_frozen_scenes.py', '--work-dir', str(folder),
            *arguments, '--cfg-options', *TINY, f'data_root={tiny_coco}', f'train_cfg.max_iters={iterations}',
            'train_cfg.val_interval=4', 'default_hooks.checkpoint.interval=4', 'custom_hooks=[]']


def _environment():
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '120'}


def _train(repo_root, folder, tiny_coco, *arguments):
    return subprocess.run(_command(folder, tiny_coco, *arguments), cwd=repo_root, capture_output=True, text=True,
                          timeout=600, env=_environment())


@pytest.fixture(scope='module')
def trained(repo_root, tiny_coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    return folder, _train(repo_root, folder, tiny_coco)


def test_one_screen_goes_before_the_first_iteration_and_says_what_matters(trained):
    folder, run = trained
    assert run.returncode == 0, run.stderr
    shown = run.stdout + run.stderr
    before = shown.split('Iter(train)')[0]
    assert len(before.splitlines()) <= 20
    for words in ('frozen   4.63 M parameters: ', 'trained  ', '4 images in batches of 2, 2 for validation',
                  '2 classes: ', '9 iterations', str(folder), 'log      '):
        assert words in before, words
    assert 'are left for training' in shown
    for noise in ('Config:', 'System environment', 'Hooks will be executed', 'FileClient', 'HardDiskBackend', 'Warning',
                  'frozenmm.compat', 'Exp name', 'loading annotations', 'index created'):
        assert noise not in shown, noise


def test_the_log_file_holds_what_the_terminal_does_not(trained):
    folder, _ = trained
    log = next(folder.glob('*/*.log')).read_text()
    assert 'Config:' in log and 'System environment' in log and 'Iter(train)' in log


def test_the_run_folder_holds_best_checkpoint_curves_samples_and_values_at_their_true_step(trained):
    folder, _ = trained
    assert len(list(folder.glob('best_coco_bbox_mAP_iter_*.pth'))) == 1
    assert (folder / 'curves.png').read_bytes()[:4] == b'\x89PNG'
    assert len(list((folder / 'samples').glob('*.png'))) == 2
    entries = [json.loads(line) for line in next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert [entry['step'] for entry in entries if 'coco/bbox_mAP' in entry] == [4, 8, 9]


def test_a_run_is_not_overwritten_by_mistake(repo_root, trained, tiny_coco):
    folder, _ = trained
    stamp = (folder / 'iter_9.pth').stat().st_mtime_ns
    again = _train(repo_root, folder, tiny_coco)
    assert again.returncode == 2 and '--resume' in again.stderr and '--overwrite' in again.stderr
    assert (folder / 'iter_9.pth').stat().st_mtime_ns == stamp


def test_an_interrupted_training_says_how_to_go_on_and_does(repo_root, tmp_path, tiny_coco):
    # a test run in the background of a shell has SIGINT ignored, and its children inherit that
    run = subprocess.Popen(_command(tmp_path, tiny_coco, iterations=100000), cwd=repo_root, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(),
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    for _ in range(1200):
        if (tmp_path / 'last_checkpoint').exists() or run.poll() is not None:
            break
        time.sleep(0.25)
    run.send_signal(signal.SIGINT)
    shown = run.communicate(timeout=300)[0]
    assert run.returncode == 130 and '--resume goes on from the last checkpoint' in shown, shown[-2000:]
    done = int((tmp_path / 'last_checkpoint').read_text().rpartition('_')[2].removesuffix('.pth'))
    command = _command(tmp_path, tiny_coco, '--resume', iterations=done + 1)
    again = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=600, env=_environment())
    assert again.returncode == 0 and f'{done} of them done' in again.stdout + again.stderr
    assert (tmp_path / f'iter_{done + 1}.pth').exists()
