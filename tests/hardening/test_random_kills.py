"""`kill -9` at random moments: whatever was whole stays whole, and the same command ends as if nothing had happened.

Five moments each, twenty with `FROZENMM_HARDENING=1`.
"""
from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import random
import sys
import time
import zipfile
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from hardening_budget import MOMENTS
from served import serving

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.engine.checkpoints import latest_whole_checkpoint
from frozenmm.foundation.feature_cache.cache import FeatureCache
from frozenmm.foundation.feature_cache.maintenance import verify_cache

PATIENCE_S = 240

TRAINING = """import sys
from mmengine.config import Config
from torch import nn
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DATASETS
from torch.utils.data import Dataset
import time

@DATASETS.register_module()
class Numbers(Dataset):
    def __len__(self): return 40
    def __getitem__(self, index): return torch.full((4, ), float(index))

@MODELS.register_module()
class Net(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 100_000)
    def forward(self, x, mode='loss'): return dict(loss=self.layer(torch.stack(x)).square().mean())
    def train_step(self, data, optim_wrapper):
        loss = self(data)['loss']
        optim_wrapper.update_params(loss)
        return dict(loss=loss)

from frozenmm.engine.launch import build_runner, run_training
cfg = Config(dict(model=dict(type='Net'), work_dir=sys.argv[1], train_dataloader=dict(dataset=dict(type='Numbers'),
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)), default_scope='mmengine',
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=20), resume=True, log_level='ERROR',
    default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1))))
run_training(build_runner(cfg))
"""
CACHE = """import sys, torch
from frozenmm.foundation.feature_cache.cache import FeatureCache
cache = FeatureCache(sys.argv[1], dict(tower='x'), shard_bytes=40_000)
for number in range(200):
    if str(number) not in cache:
        cache.put(str(number), dict(x=torch.full((1000, ), float(number))))
cache.close()
"""
STATE = """import sys, numpy as np
from pathlib import Path
from frozenmm.reconstruction.stored_state import StoredState
state = StoredState(Path(sys.argv[1]), 'key')
for number in range(60):
    if state.load(str(number)) is None:
        state.save(str(number), x=np.full(100_000, number))
"""
PREPARE = """import sys
from frozenmm.datasets.prepare import catalogue
from frozenmm.datasets.prepare.sources import SourceFile
file = SourceFile('set.zip', '1 MB', 'page', ('images', ), url=sys.argv[2])
catalogue.PREPARATIONS = dict(set=catalogue.Preparation('set', 'set', '', (file, ), lambda *_: None, ()))
catalogue.prepare('set', sys.argv[1])
"""
DOWNLOAD = """import sys
from frozenmm.foundation.weights import WeightFile, locate
locate(None, WeightFile(sys.argv[2], 1, 'MIT'), name='net')
"""


def _weights() -> bytes:
    stream = io.BytesIO()
    torch.save(dict(weight=torch.arange(1_500_000.0)), stream)
    return stream.getvalue()


def _archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        for number in range(400):
            archive.writestr(f'images/{number}.bin', bytes([number % 256]) * 20_000)
    return stream.getvalue()


def _start(script: str, folder: Path, *arguments: str) -> BaseProcess:
    """The script in a process of its own, forked, so that it need not import everything anew."""
    process = multiprocessing.get_context('fork').Process(target=_run, args=(script, folder, arguments))
    process.start()
    return process


def _run(script: str, folder: Path, arguments: tuple[str, ...]) -> None:
    os.environ.update(FROZENMM_HOME=str(folder), FROZENMM_OFFLINE='0')
    sys.argv = ['', str(folder), *arguments]
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        exec(compile(script, 'script', 'exec'), dict(__name__='script'))


def _finish(process: BaseProcess) -> None:
    process.join(PATIENCE_S)
    assert process.exitcode == 0


def _begun(process: BaseProcess, folder: Path) -> None:
    """Wait for the first thing that the process makes, so that kills fall into its work and not into its imports."""
    end = time.monotonic() + PATIENCE_S
    before = set(folder.rglob('*'))
    while process.is_alive() and set(folder.rglob('*')) == before and time.monotonic() < end:
        time.sleep(0.002)


def _kills(script: str, folder: Path, check, *arguments: str) -> None:
    """Kill at random moments of the work, check each time what is there, and let the last run end."""
    draw = random.Random(folder.name)
    for _ in range(MOMENTS):
        process = _start(script, folder, *arguments)
        _begun(process, folder)
        time.sleep(draw.expovariate(8))
        process.kill()
        process.join()
        check()
    _finish(_start(script, folder, *arguments))
    check()
    assert not [path for path in folder.rglob('*.part.*') if not path.name.endswith('.etag')]


@pytest.mark.journey
def test_training(tmp_path):
    folder, seen = tmp_path / 'killed', [0]
    folder.mkdir()

    def check():
        newest = latest_whole_checkpoint(folder)
        if newest is not None:
            number = load_checkpoint_file(newest)['meta']['iter']
            assert number >= seen[0], 'a step that was saved is lost'
            seen[0] = number
        assert seen[0] < 3 or len(list(folder.glob('iter_*.pth'))) >= 2
    _kills(TRAINING, folder, check)
    _finish(_start(TRAINING, tmp_path / 'whole'))
    ours, whole = (load_checkpoint_file(path / 'iter_20.pth')['state_dict'] for path in (folder, tmp_path / 'whole'))
    assert all(torch.equal(value, whole[key]) for key, value in ours.items())


@pytest.mark.journey
def test_a_damaged_newest_checkpoint_costs_one_step(tmp_path):
    _finish(_start(TRAINING, tmp_path))
    newest = tmp_path / 'iter_20.pth'
    newest.write_bytes(newest.read_bytes()[:1000])
    assert latest_whole_checkpoint(tmp_path) == tmp_path / 'iter_19.pth'
    _finish(_start(TRAINING, tmp_path))
    assert load_checkpoint_file(newest)['meta']['iter'] == 20


@pytest.mark.journey
def test_filling_a_cache(tmp_path):
    seen = [0]

    def check():
        if not (tmp_path / 'recipe.json').is_file():
            return
        cache = FeatureCache(tmp_path, dict(tower='x'))
        assert not verify_cache(cache) and len(cache) >= seen[0]
        seen[0] = len(cache)
    _kills(CACHE, tmp_path, check)
    cache = FeatureCache(tmp_path, dict(tower='x'))
    assert all(float(cache.get(str(number))['x'][-1]) == number for number in range(200))


@pytest.mark.journey
def test_a_reconstruction_s_state(tmp_path):
    def check():
        for path in tmp_path.glob('[!.]*.npz'):
            with np.load(path) as content:
                assert content['x'][-1] == int(path.stem)
    _kills(STATE, tmp_path, check)
    assert len(list(tmp_path.glob('*.npz'))) == 60


@pytest.mark.journey
def test_preparing_a_data_set(tmp_path):
    def check():
        archive = tmp_path / 'downloads' / 'set.zip'
        assert not archive.exists() or zipfile.is_zipfile(archive)
        for path in (tmp_path / 'set' / 'images').glob('[!.]*'):
            assert path.read_bytes() == bytes([int(path.stem) % 256]) * 20_000
    with serving(_archive()) as server:
        _kills(PREPARE, tmp_path, check, f'{server.address}/set.zip')
    assert len(list((tmp_path / 'set' / 'images').iterdir())) == 400


@pytest.mark.journey
def test_downloading(tmp_path):
    content, path = _weights(), tmp_path / 'weights' / 'net.pth'

    def check():
        assert not path.exists() or path.read_bytes() == content
    with serving(content) as server:
        _kills(DOWNLOAD, tmp_path, check, f'{server.address}/net.pth')
    assert path.read_bytes() == content
