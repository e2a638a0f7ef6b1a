"""A process that is killed without warning loses what it was doing and nothing else."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 240


def start(command: list[str], folder: Path) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'FROZENMM_HOME': str(folder / 'home')}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def kill_when(process: subprocess.Popen, condition) -> None:
    """SIGKILL as soon as the condition holds; it must do so before the process ends by itself."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f'the moment to kill never came: {process.communicate()[0][-2000:]}')
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def finish(process: subprocess.Popen) -> str:
    out = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, out[-3000:]
    return out


@pytest.fixture
def training(tiny_coco, tmp_path):
    """A command line that trains six iterations and saves at each."""
    config = tmp_path / 'config.py'
    config.write_text(f"""_base_ = '{ROOT}/configs/quickstart/dino_frozen_scenes.py'
train_dataloader = dict(batch_size=2)
val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = None
test_cfg = None
test_evaluator = None
train_cfg = dict(max_iters=6)
custom_hooks = [dict(type='frozenmm.AccelerateHook'), dict(type='frozenmm.ExactResumeHook')]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=20))
log_level = 'ERROR'
""")
    return lambda name: ['tools/train.py', str(config), '--resume', '--work-dir', str(tmp_path / name),
                         '--cfg-options', f'data_root={tiny_coco}']


@pytest.mark.journey
def test_a_killed_training_makes_the_steps_that_are_left_and_no_other(training, tmp_path):
    folder = tmp_path / 'killed'
    killed = start(training('killed'), tmp_path)
    kill_when(killed, lambda: (folder / 'iter_3.pth').is_file())
    kept = {path: path.stat().st_mtime_ns for path in (folder / 'iter_1.pth', folder / 'iter_2.pth')}
    finish(start(training('killed'), tmp_path))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    last = torch.load(folder / 'iter_6.pth', weights_only=False)
    assert last['meta']['iter'] == 6
    assert {float(state['step']) for state in last['optimizer']['state'].values()} == {6.0}
    first = torch.load(folder / 'iter_1.pth', weights_only=False)
    record = 'backbone.tower.frozen_record'
    assert str(first['state_dict'][record]) == str(last['state_dict'][record])

    finish(start(training('whole'), tmp_path))
    whole = torch.load(tmp_path / 'whole' / 'iter_6.pth', weights_only=False)['state_dict']
    different = [key for key, value in last['state_dict'].items()
                 if isinstance(value, torch.Tensor) and not torch.equal(value, whole[key])]
    assert not different


@pytest.mark.journey
def test_a_killed_reconstruction_keeps_what_it_had_and_gives_the_same(rooms, tmp_path):
    room = rooms.render_room(rooms.RoomSettings(frames=5, size=(120, 160), path_m=0.6, samples=2, seed=1))
    (tmp_path / 'frames').mkdir()
    for index, image in enumerate(room.images):
        cv2.imwrite(str(tmp_path / 'frames' / f'{index}.png'), image[..., ::-1])
    np.savez(tmp_path / 'depth.npz', depth=rooms.distort_depth(room.depth))

    def command(out: str) -> list[str]:
        return ['tools/recon.py', str(tmp_path / 'frames'), '--depth', str(tmp_path / 'depth.npz'), '--out',
                str(tmp_path / out), '--cfg-options', 'mesh=False']

    finish(start(command('whole'), tmp_path))
    killed = start(command('killed'), tmp_path)
    kill_when(killed, lambda: (tmp_path / 'killed' / 'state' / 'tracks.npz').is_file())
    stamp = (tmp_path / 'killed' / 'state' / 'tracks.npz').stat().st_mtime_ns
    finish(start(command('killed'), tmp_path))
    assert (tmp_path / 'killed' / 'state' / 'tracks.npz').stat().st_mtime_ns == stamp
    whole, again = (np.loadtxt(tmp_path / name / 'poses.txt') for name in ('whole', 'killed'))
    np.testing.assert_allclose(whole, again, atol=1e-8)


@pytest.mark.journey
def test_a_killed_cache_filling_goes_on(tiny_scenes, tmp_path):
    folder, settings = tiny_scenes
    config = tmp_path / 'config.py'
    config.write_text(f"""_base_ = '{ROOT}/configs/fusioner/fusioner_lite0_minilm_scenes.py'
model = dict(backbone=dict(tower=dict(folder='{tmp_path}/cache', shard_mb=0.3)))
train_dataloader = dict(dataset=dict(data_root='{folder}', settings={settings}))
""")
    command = ['tools/cache_features.py', str(config), '--splits', 'train']
    killed = start(command, tmp_path)
    kill_when(killed, lambda: list((tmp_path / 'cache').rglob('*.safetensors')))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / 'cache').rglob('*.safetensors')}
    assert kept
    finish(start(command, tmp_path))
    out = finish(start([*command, '--verify'], tmp_path))
    assert 'all checksums match' in out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items() if path.exists())
