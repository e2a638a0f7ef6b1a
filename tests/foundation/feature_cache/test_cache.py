"""The files of the cache: complete or not there, whatever dies when; checked, pruned, within their quota."""
from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from frozenmm.errors import UserError
from frozenmm.foundation.feature_cache import CacheFull, FeatureCache, prune_cache, verify_cache

RECIPE = dict(tower='X', fingerprint='0')


def entry(index, length=256):
    return {'maps.a': torch.arange(length, dtype=torch.float32) + index, 'valid': torch.tensor([[index, 2]])}


def filled(folder, count=6, **options):
    cache = FeatureCache(folder, RECIPE, **dict(shard_bytes=2000) | options)
    for index in range(count):
        cache.put(f'key{index}', entry(index))
    cache.close()
    return cache


def only(folder, pattern):
    found = sorted(folder.glob(pattern))
    assert found
    return found[0]


def check(cache, indices):
    for index in indices:
        found = cache.get(f'key{index}')
        assert found is not None and all(torch.equal(found[name], value) for name, value in entry(index).items())


def test_entries_come_back_from_a_new_process(tmp_path):
    filled(tmp_path)
    code = ('import sys, torch; from frozenmm.foundation.feature_cache import FeatureCache\n'
            'cache = FeatureCache(sys.argv[1], dict(tower="X", fingerprint="0"))\n'
            'print(len(cache), float(cache.get("key4")["maps.a"][1]), cache.get("other"))')
    out = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1].split() == ['6', '5.0', 'None']


def test_what_is_collected_can_be_read_before_it_is_written(tmp_path):
    cache = FeatureCache(tmp_path, RECIPE)
    cache.put('key0', entry(0))
    check(cache, [0])
    assert 'key0' in cache and cache.shards == []
    cache.flush()
    check(cache, [0])
    assert len(cache.shards) == 1


def test_a_cache_that_goes_out_of_use_writes_what_it_has(tmp_path):
    cache = FeatureCache(tmp_path, RECIPE)
    cache.put('key0', entry(0))
    del cache
    check(FeatureCache(tmp_path, RECIPE), [0])


def test_processes_see_each_others_shards(tmp_path, monkeypatch):
    monkeypatch.setattr('frozenmm.foundation.feature_cache.cache._SECONDS_BETWEEN_LOOKS', -1.0)
    one, other = (FeatureCache(tmp_path, RECIPE, shard_bytes=1) for _ in range(2))
    one.put('key0', entry(0))
    other.put('key1', entry(1))
    check(one, [0, 1])
    check(other, [0, 1])
    assert len(list((tmp_path / 'index').iterdir())) == 2


CHILD = '''
import sys, torch
from frozenmm.foundation.feature_cache import FeatureCache
cache = FeatureCache(sys.argv[1], dict(tower='X', fingerprint='0'), shard_bytes=3000)
start = int(sys.argv[2])
for index in range(start, start + 100000):
    cache.put(f'key{index}', {'maps.a': torch.arange(256.) + index, 'valid': torch.tensor([[index, 2]])})
    print(index, flush=True)
'''


def test_a_kill_at_any_moment_loses_at_most_the_shard_being_written(tmp_path):
    """Three entries make a shard; so at most three of those that were handed over may be missing."""
    stored = []
    for attempt in range(3):
        start = 1000 * attempt
        child = subprocess.Popen([sys.executable, '-c', CHILD, str(tmp_path), str(start)], stdout=subprocess.PIPE,
                                 text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        first = (line for line in child.stdout if line.strip().isdigit())  # after the log of the import
        for _ in range(20):
            next(first)
        time.sleep(0.003 * attempt)
        child.send_signal(signal.SIGKILL)
        handed_over = start + 19 + len(child.stdout.read().split())
        child.wait()
        cache = FeatureCache(tmp_path, RECIPE)
        assert not cache.damaged and not verify_cache(cache)
        there = [index for index in range(start, handed_over + 1) if f'key{index}' in cache]
        assert there == list(range(start, start + len(there))) and len(there) >= handed_over + 1 - start - 3
        stored += there
        check(cache, stored)


def test_a_shard_whose_writer_died_before_its_index_line_is_taken_in(tmp_path):
    filled(tmp_path)
    index = only(tmp_path / 'index', '*.jsonl')
    lines = index.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    index.write_bytes(lines[0] + lines[1][:20])
    check(FeatureCache(tmp_path, RECIPE), range(6))


def test_a_damaged_index_line_is_reported_and_the_shards_still_serve(tmp_path, caplog):
    filled(tmp_path)
    index = only(tmp_path / 'index', '*.jsonl')
    index.write_bytes(b'{"shard"\n' + index.read_bytes())
    check(FeatureCache(tmp_path, RECIPE), range(6))


@pytest.mark.parametrize('indexed', [True, False])
def test_a_truncated_shard_is_named_and_the_others_serve(tmp_path, indexed):
    filled(tmp_path)
    shard = only(tmp_path / 'shards', '*.safetensors')
    os.truncate(shard, shard.stat().st_size - 100)
    if not indexed:
        only(tmp_path / 'index', '*.jsonl').unlink()
    cache = FeatureCache(tmp_path, RECIPE, shard_bytes=2000)
    assert list(cache.damaged) == [shard.name] and 'truncated' in cache.damaged[shard.name]
    assert cache.get('key0') is None and 'key1' not in cache
    check(cache, range(2, 6))
    for index in range(2):
        cache.put(f'key{index}', entry(index))
    check(cache, range(6))


def test_a_shard_that_vanishes_while_in_use_counts_as_missing(tmp_path):
    filled(tmp_path)
    cache = FeatureCache(tmp_path, RECIPE)
    only(tmp_path / 'shards', '*.safetensors').unlink()
    assert cache.get('key0') is None
    check(cache, range(2, 6))


def test_verify_finds_a_changed_byte(tmp_path):
    cache = filled(tmp_path)
    assert verify_cache(cache) == {}
    shard = only(tmp_path / 'shards', '*.safetensors')
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    seen = []
    problems = verify_cache(FeatureCache(tmp_path, RECIPE), lambda done, total: seen.append((done, total)))
    assert list(problems) == [shard.name] and '1 entries do not match their checksum' in problems[shard.name]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_pruning_drops_damaged_duplicate_unneeded_and_left_over(tmp_path):
    filled(tmp_path)
    twice = FeatureCache(tmp_path / 'other', RECIPE, shard_bytes=2000)
    twice.put('key3', entry(3))
    twice.put('key9', entry(9))
    twice.close()
    for name in 'shards', 'index':  # as another rank that computed key3 at the same time would have
        for path in (tmp_path / 'other' / name).iterdir():
            path.rename(tmp_path / name / path.name)
    shard = only(tmp_path / 'shards', '*.safetensors')
    os.truncate(shard, 10)
    (tmp_path / 'shards' / '.123-456.part.dead.safetensors').write_bytes(b'x' * 50)
    cache = FeatureCache(tmp_path, RECIPE, shard_bytes=2000)
    result = prune_cache(cache, {'key0', 'key2', 'key3', 'key4', 'key5'})
    assert (result.kept, result.damaged) == (4, 1) and result.dropped == 2 and result.after < result.before
    for opened in cache, FeatureCache(tmp_path, RECIPE):
        check(opened, range(2, 6))
        assert len(opened) == 4 and opened.get('key9') is None and not opened.damaged
    assert not list((tmp_path / 'shards').glob('.*'))
    assert prune_cache(cache).dropped == 0


def test_nobody_prunes_under_a_writer(tmp_path):
    writer = FeatureCache(tmp_path, RECIPE, shard_bytes=1)
    writer.put('key0', entry(0))
    other = FeatureCache(tmp_path, RECIPE)
    with pytest.raises(ValueError, match='another process is writing to the feature cache'):
        prune_cache(other)
    writer.close()
    assert prune_cache(other).kept == 1


def test_the_quota_holds_for_all_writers_together(tmp_path):
    filled(tmp_path)
    cache = FeatureCache(tmp_path, RECIPE, quota=9000, shard_bytes=2000)
    with pytest.raises(CacheFull, match=r'(?s)no room for a shard.*its quota is 0.0 MB.*6 images are stored and stay'):
        for index in range(6, 20):
            cache.put(f'key{index}', entry(index))
    check(cache, range(6))
    check(FeatureCache(tmp_path, RECIPE), range(6))


def test_a_full_disk_leaves_no_half_file_and_keeps_what_is_stored(tmp_path):
    """The kernel refuses to let any file grow beyond a limit, as a full disk would."""
    filled(tmp_path)
    cache = FeatureCache(tmp_path, RECIPE, shard_bytes=100_000)
    for index in range(6, 50):
        cache.put(f'key{index}', entry(index))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CacheFull, match=r'(?s)no room for a shard.*the disk has .* MB free.*6 images are stored'):
            cache.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(list((tmp_path / 'shards').iterdir())) == 3
    check(FeatureCache(tmp_path, RECIPE), range(6))
    cache.put('key7', entry(7))
    cache.flush()
    check(FeatureCache(tmp_path, RECIPE), [*range(6), 7])


def test_another_recipe_is_refused(tmp_path):
    filled(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)does not fit.*fingerprint: '0' in the cache, '1' in the config"):
        FeatureCache(tmp_path, dict(RECIPE, fingerprint='1'))


def test_a_damaged_recipe_is_named(tmp_path):
    filled(tmp_path)
    (tmp_path / 'recipe.json').write_text('{')
    with pytest.raises(ValueError, match='recipe.json cannot be read as .*: .*delete the folder'):
        FeatureCache(tmp_path, RECIPE)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='is a file; give a folder'):
        FeatureCache(tmp_path / 'file', RECIPE)


def test_a_forked_child_does_not_write_for_its_parent(tmp_path):
    cache = FeatureCache(tmp_path, RECIPE)
    cache.put('key0', entry(0))
    child = os.fork()
    if child == 0:
        cache.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert not list((tmp_path / 'shards').iterdir())
    cache.close()
    assert json.loads(only(tmp_path / 'index', '*.jsonl').read_text())['keys'] == ['key0']


def test_a_cache_of_an_older_release_fits_under_the_new_names(tmp_path):
    folder = tmp_path / 'cache'
    folder.mkdir()
    (folder / 'recipe.json').write_text('{"legacy_border": true, "inner": {"legacy_border": false}}')
    FeatureCache(folder, {'compat': True, 'inner': {'compat': False}}).close()
    with pytest.raises(UserError, match='compat: True in the cache, False in the config'):
        FeatureCache(folder, {'compat': False, 'inner': {'compat': False}})
