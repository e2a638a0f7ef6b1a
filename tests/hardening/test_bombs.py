"""A file that runs code when it is unpickled goes through every door; nothing runs, each says no."""
from __future__ import annotations

import http.server
import os
import pickle
import runpy
import struct
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from frozenmm.compat.checkpoint import UnsafeCheckpoint, load_checkpoint_file, open_checkpoints_safely
from frozenmm.convert.command import CONVERTERS, convert_file
from frozenmm.engine.checkpoints import latest_whole_checkpoint
from frozenmm.engine.weights import load_weights
from frozenmm.foundation.feature_cache.shards import Shard
from frozenmm.foundation.state_file import read_state
from frozenmm.foundation.word_store import WordStore
from frozenmm.reconstruction.depth_sources import PrecomputedDepth
from frozenmm.reconstruction.stored_state import StoredState
from frozenmm.registry import MODELS
from frozenmm.segmentation.frozen_seg.official_masks import read_official_masks

CONFIG = 'configs/quickstart/dino_scratch_scenes.py'
SMALL = ['model.backbone.base_channels=8', 'model.neck.in_channels=[16,32,64]', 'model.encoder.num_layers=1',
         'model.decoder.num_layers=1', 'custom_hooks=[]', 'log_level=ERROR', 'env_cfg.dist_cfg.backend=gloo']


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark, )


@pytest.fixture
def mark(tmp_path):
    """The file that a bomb writes; no test may leave it."""
    before = dict(CheckpointLoader._schemes)
    yield tmp_path / 'exploded'
    CheckpointLoader._schemes = before
    assert not (tmp_path / 'exploded').exists()


def _zip(path, mark):
    torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=Bomb(mark)), path)


def _zip_of_a_bare_bomb(path, mark):
    torch.save(Bomb(mark), path)


def _legacy(path, mark):
    torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=Bomb(mark)), path, _use_new_zipfile_serialization=False)


def _pickle(path, mark):
    path.write_bytes(pickle.dumps(dict(state_dict=Bomb(mark)), 4))


def _old_pickle(path, mark):
    path.write_bytes(pickle.dumps([Bomb(mark)], 0))


BOMBS = {'zip': _zip, 'bare': _zip_of_a_bare_bomb, 'legacy': _legacy, 'pickle': _pickle, 'pickle 0': _old_pickle}


@pytest.fixture(params=sorted(BOMBS))
def bomb(request, tmp_path, mark):
    """Gives a bomb under a name."""
    def made(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        BOMBS[request.param](path, mark)
        return path
    return made


def _by_mmengine(path):
    open_checkpoints_safely()
    CheckpointLoader.load_checkpoint(str(path), 'cpu')


def _state(path):
    if StoredState(path.parent, 'key').load(path.stem) is None:
        raise ValueError('taken as missing')


def _embeddings(path):
    if not WordStore(path).read('kind', ['cat'], 2):
        raise ValueError('taken as missing')


DOORS = {
    'load_checkpoint_file': ('a.pth', load_checkpoint_file),
    'a name of safetensors': ('a.safetensors', load_checkpoint_file),
    'read_state': ('a.pt', read_state),
    'load_weights': ('a.pth', lambda path: load_weights(torch.nn.Linear(1, 1), path)),
    'mmengine': ('a.pth', _by_mmengine),
    'resume': ('iter_3.pth', lambda path: latest_whole_checkpoint(path.parent)),
    'official masks': ('a.pkl', read_official_masks),
    'state of a reconstruction': ('a.npz', _state),
    'depth, file': ('a.npz', lambda path: PrecomputedDepth(path).maps(['a'], (2, 2))),
    'depth, folder': ('depth/a.npy', lambda path: PrecomputedDepth(path.parent).maps(['a'], (2, 2))),
    'shard of a cache': ('a.safetensors', Shard),
    'text embeddings': ('a.safetensors', _embeddings),
    **{f'tower {name}': ('a.pt', lambda path, name=name, kw=kw: MODELS.build(dict(type=name, weights=str(path), **kw)))
       for name, kw in {'frozenmm.CLIPTower': dict(model='ViT-B-16'), 'frozenmm.DINOv2Tower': dict(model='vits14'),
                        'frozenmm.SAMTower': dict(model='vit_b'), 'frozenmm.CLIPTextTower': {},
                        'frozenmm.LeReS': {}}.items()},
    **{f'convert {name}': ('a.pth', lambda path, name=name: convert_file(name, path, path.parent / 'b.safetensors'))
       for name in CONVERTERS},
}


@pytest.mark.parametrize('door', sorted(DOORS))
def test_doors_in_the_library(door, bomb):
    name, opened = DOORS[door]
    with pytest.raises(ValueError) as caught:
        opened(bomb(name))
    assert 'unexpected keyword' not in str(caught.value), 'the door was not reached'


def _tool(repo_root, tool, *arguments):
    return lambda: (sys.argv.__setitem__(slice(None), [tool, *map(str, arguments)]),
                    runpy.run_path(str(repo_root / tool), run_name='__main__'))


@pytest.mark.parametrize('form', ['zip', 'legacy'])
@pytest.mark.parametrize('door', ['test', 'train from', 'resume', 'resume auto', 'export', 'export depth', 'infer',
                                  'convert'])
def test_doors_of_the_commands(door, form, repo_root, tiny_coco, tmp_path, mark, monkeypatch, capsys, demo_room):
    monkeypatch.chdir(repo_root)
    monkeypatch.setattr(sys, 'argv', list(sys.argv))
    monkeypatch.setattr(sys, 'path', list(sys.path))
    work = tmp_path / 'work'
    work.mkdir()
    path = work / 'iter_1.pth'
    BOMBS[form](path, mark)
    (work / 'last_checkpoint').write_text(str(path))
    options = ['--work-dir', work, '--cfg-options', f'data_root={tiny_coco}', *SMALL]
    elsewhere = ['--work-dir', tmp_path / 'new', *options[2:]]
    depth = 'configs/frozen_recon/depth_lite0_rooms.py'
    run = _tool(repo_root, *{
        'test': ('tools/test.py', CONFIG, path, *options),
        'train from': ('tools/train.py', CONFIG, *elsewhere, f'load_from={path}'),
        'resume': ('tools/train.py', CONFIG, '--resume', path, *options),
        'resume auto': ('tools/train.py', CONFIG, '--resume', *options),
        'export': ('tools/export_checkpoint.py', 'x', CONFIG, path, '--task', 'detection', '--data', 'x', '--metrics',
                   _metrics(tmp_path), '--what', 'x', '--data-terms', 'x', '--make', 'x'),
        'export depth': ('tools/export_depth.py', depth, path),
        'infer': ('tools/infer.py', next(Path(tiny_coco).rglob('*.png')), '--model', CONFIG, '--weights', path),
        'convert': ('tools/convert.py', 'frozen_detr', path, tmp_path / 'b.safetensors')}[door])
    with pytest.raises(SystemExit) as end:
        run()
    shown = capsys.readouterr().err
    assert end.value.code == 2 and 'could run code of its author' in shown, shown[-2000:]


def _metrics(folder):
    (folder / 'metrics.json').write_text('{}')
    return folder / 'metrics.json'


def test_addresses_of_mmengine(bomb, mark, tmp_path, monkeypatch):
    """`load_from='http://...'` and `init_cfg` fetch and open by themselves."""
    path = bomb('web/a.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(path.parent))

        def log_message(self, *_):
            """No lines in the output of the tests."""

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        open_checkpoints_safely()
        with pytest.raises(ValueError, match='could run code|cannot be read'):
            CheckpointLoader.load_checkpoint(f'http://127.0.0.1:{server.server_port}/a.pth', 'cpu')
        server.shutdown()
    assert (tmp_path / 'torch').is_dir()
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


class _Dtype:
    """Pickles as a `numpy.dtype` with a state of its own."""

    def __init__(self, code, state):
        self.code, self.state = code, state

    def __reduce__(self):
        return np.dtype, (self.code, False, True), self.state


class _Raw:
    """Pickles as an array with a state of its own."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np.zeros(1).__reduce__()[0], (np.ndarray, (0, ), b'b'), self.state


FIELDS = (3, '|', None, ('a', ), {'a': (np.dtype('f8'), 1 << 30)}, 8, 1, 0)
ARRAYS = {
    'fields beyond the item': _Raw(1, (1, ), _Dtype('V8', FIELDS), False, b'8' * 8),
    'objects': _Raw(1, (1, ), _Dtype('O8', (3, '|', None, None, None, -1, -1, 63)), False, struct.pack('<q', 64)),
    'objects in a list': _Raw(1, (1, ), np.dtype('O'), False, [1]),
    'numbers made objects': _Raw(1, (1, ), _Dtype('f8', (3, '|', None, ('a', ), {'a': (np.dtype('O'), 0)}, 8, 1, 63)),
                                 False, struct.pack('<q', 64)),
    'too few bytes': _Raw(1, (1 << 20, ), np.dtype('f8'), False, b'8' * 8),
    'a negative shape': _Raw(1, (-1, -8), np.dtype('f8'), False, b'8' * 64),
    'no bytes': _Raw(1, (2, ), np.dtype('f8'), False, None),
}


@pytest.mark.parametrize('content', sorted(ARRAYS))
@pytest.mark.parametrize('protocol', [2, 4])
def test_pickled_arrays_cannot_choose_what_memory_they_show(content, protocol, tmp_path):
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps([dict(preds=ARRAYS[content], predicted_iou=1.0)], protocol))
    with pytest.raises(ValueError, match=r'a\.pkl'):
        read_official_masks(path)
    torch.save(dict(state_dict=dict(w=torch.ones(1)), more=ARRAYS[content]), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth'):
        load_checkpoint_file(tmp_path / 'a.pth')


@pytest.mark.parametrize('state', [OrderedDict(), dict(foreign=torch.ones(3))])
@pytest.mark.parametrize('resume', [False, True])
def test_a_state_dict_without_weights_of_the_model_ends_the_training(state, resume, repo_root, tiny_coco, tmp_path):
    from frozenmm.engine.launch import load_config, train
    torch.save(dict(state_dict=state, meta=dict(iter=1, epoch=0), message_hub={}), tmp_path / 'iter_1.pth')
    cfg = load_config(repo_root / CONFIG, [*SMALL, f'data_root={tiny_coco}'], work_dir=tmp_path / 'work')
    cfg.load_from, cfg.resume = str(tmp_path / 'iter_1.pth'), resume
    with pytest.raises(ValueError, match='holds no weights|has no weights of this model|does not fit the model'):
        train(cfg)


def test_trust_is_asked_for_in_the_sentence(tmp_path, mark):
    _zip(tmp_path / 'a.pth', mark)
    with pytest.raises(UnsafeCheckpoint, match='--trust'):
        load_checkpoint_file(tmp_path / 'a.pth')
