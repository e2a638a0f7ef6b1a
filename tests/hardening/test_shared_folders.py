"""Folders that several users and processes share, disks that are full, and states that are damaged."""
from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from frozenmm.compat import files
from frozenmm.compat.files import FullDisk, locked, remove_abandoned_parts, whole_file, write_whole
from frozenmm.foundation import FrozenModule
from frozenmm.foundation.feature_cache.cache import FeatureCache
from frozenmm.foundation.feature_cache.maintenance import prune_cache
from frozenmm.reconstruction.pipeline import reconstruct
from frozenmm.reconstruction.stored_state import StoredState


@pytest.mark.parametrize('name', ['../../victim', '/victim', '../../victim.safetensors',
                                  'a/../../../victim.safetensors',
                                  '..', '', '.safetensors', 'a\x00.safetensors'])
@pytest.mark.parametrize('size', [0, 6, 10**30])
def test_a_cache_from_somebody_else_deletes_nothing_outside(name, size, tmp_path):
    victims = [tmp_path / 'victim', tmp_path / 'victim.safetensors']
    for victim in victims:
        victim.write_text('mine!!')
    folder = tmp_path / 'cache'
    FeatureCache(folder, dict(tower='x')).close()
    name = name.replace('/victim', f'{tmp_path}/victim') if name.startswith('/') else name
    line = json.dumps(dict(shard=name, bytes=size, keys=['a']))
    (folder / 'index' / 'stranger.jsonl').write_text(f'{line}\n{line}\n')
    cache = FeatureCache(folder, dict(tower='x'))
    prune_cache(cache, needed=[])
    assert all(victim.read_text() == 'mine!!' for victim in victims)


def test_a_group_can_read_what_one_of_it_writes(tmp_path):
    before = os.umask(0o002)
    try:
        cache = FeatureCache(tmp_path / 'cache', dict(tower='x'))
        cache.put('a', dict(x=torch.ones(2)))
        cache.close()
        StoredState(tmp_path, 'key').save('a', x=np.ones(2))
        with whole_file(tmp_path / 'a.safetensors') as part:
            save_file(dict(x=torch.ones(1)), part)
    finally:
        os.umask(before)
    written = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert len(written) >= 5
    assert {oct(path.stat().st_mode & 0o777) for path in written} == {'0o664'}


def test_two_reconstructions_do_not_share_a_folder(tmp_path):
    import cv2
    (tmp_path / 'in').mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / 'in' / f'{number}.png'), np.random.default_rng(number).integers(
            0, 255, (40, 50, 3), np.uint8))
    with locked(tmp_path / 'out' / 'state' / 'lock', busy=''), \
            pytest.raises(ValueError, match='another reconstruction'):
        # a lock belongs to the opened file, so that a second one in this process stands for another process
        reconstruct(tmp_path / 'in', tmp_path / 'out', None)


def test_parts_of_dead_processes_go_and_those_of_the_living_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    host = files._HOST
    names = {f'.{host}-{dead.pid}-1.part.a.pth': False, f'.{host}-{os.getppid()}-1.part.a.pth': True,
             f'.elsewhere-{dead.pid}-1.part.a.pth': True, f'.{host}-x-1.part.a.pth': True, 'a.part.pth': True}
    for name in names:
        (tmp_path / name).write_text('half')
    write_whole(tmp_path / 'b', 'whole')  # the first that this process writes here
    assert {name: (tmp_path / name).exists() for name in names} == names
    remove_abandoned_parts(tmp_path / 'nowhere')


@pytest.fixture
def full_disk():
    """No file may have more than 64 kB, which is how a full disk looks to whoever writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


WRITERS = {
    'write_whole': lambda path: write_whole(path, bytes(1 << 20)),
    'numpy': lambda path: StoredState(path.parent, 'key').save(path.stem, x=np.zeros(1 << 18)),
    'safetensors': lambda path: _through(path, lambda part: save_file(dict(x=torch.zeros(1 << 18)), part)),
    'cache': lambda path: _cache(path),
}


def _through(path, write):
    with whole_file(path) as part:
        write(part)


def _cache(path):
    cache = FeatureCache(path, dict(tower='x'))
    try:
        cache.put('a', dict(x=torch.zeros(1 << 18)))
        cache.flush()
    finally:
        cache._pending.clear()


@pytest.mark.parametrize('writer', sorted(WRITERS))
def test_a_full_disk_names_the_path_and_leaves_no_half_file(writer, tmp_path, full_disk):
    path = tmp_path / 'a.npz'
    with pytest.raises(ValueError, match=rf'{path}.*(make room|too large)') as caught:
        WRITERS[writer](path)
    assert writer == 'cache' or isinstance(caught.value, FullDisk) and caught.value.errno
    assert not [file for file in tmp_path.rglob('*.part.*')]
    assert writer == 'cache' or not path.exists()


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', bytes(100), b'words'])
def test_a_damaged_state_is_computed_again(content, tmp_path):
    state = StoredState(tmp_path, 'key')
    state.save('depth', depth=np.ones(3))
    (tmp_path / 'depth.npz').write_bytes(content)
    assert state.load('depth') is None
    state.save('depth', depth=np.ones(3))
    assert state.load('depth')['depth'].sum() == 3


def test_a_tower_goes_into_shared_memory_with_its_model():
    model = torch.nn.ModuleDict(dict(tower=FrozenModule(torch.nn.Linear(3, 3)), head=torch.nn.Linear(3, 3)))
    model.share_memory()
    assert all(value.is_shared() for value in model['tower'].network.state_dict().values())
    assert model['tower'](torch.ones(1, 3)).shape == (1, 3)
