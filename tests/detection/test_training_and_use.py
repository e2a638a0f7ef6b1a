"""Every detector of the family from two iterations to detections by `frozenmm infer`, and on two processes."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_dino as tiny
import tiny_family as family

from frozenmm.engine.launch import load_config, train
from frozenmm_command import main

STEPS = ['train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'log_level=ERROR',
         'custom_hooks=[]', 'default_hooks.checkpoint.interval=2']
TRAINED = ('dino', 'co-dino', 'deformable', 'deformable-two-stage', 'dab', 'conditional', 'ddq', 'grounding')


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path_factory.getbasetemp() / 'home'))


@pytest.fixture(scope='module')
def bert(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('bert'))
    family.write_bert(folder)
    return folder


def model(name: str, bert: str) -> dict:
    enhancer = tiny.tiny(5, ('res4',))
    if name in ('dino', 'co-dino'):
        built = dict(tiny.enhanced(enhancer) if name == 'dino' else tiny.co_dino(enhancer))
        for part in built.get('collaborators', {}).values():
            part.get('bbox_head', part).update({'num_classes': 2} if part['type'] != 'mmdet.RPNHead' else {})
    else:
        built = dict(family.config(name, enhancer, bert=bert))
    built['bbox_head']['num_classes'] = 2
    return built


@pytest.mark.parametrize('name', TRAINED)
def test_two_iterations_give_what_infer_takes(name, bert, repo_root, tiny_coco, tmp_path):
    cfg = load_config(repo_root / 'configs/quickstart/dino_scratch_scenes.py', [*STEPS, f'data_root={tiny_coco}'],
                      work_dir=tmp_path / 'run')
    cfg.model = model(name, bert)
    if name == 'grounding':
        for loader in cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader:
            loader.dataset.return_classes = True
            loader.dataset.pipeline[-1].meta_keys = (*loader.dataset.pipeline[-1].meta_keys, 'text', 'custom_entities')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        train(cfg)
    cv2.imwrite(str(tmp_path / 'a.png'), np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    main('infer', [str(tmp_path / 'a.png'), '--weights', str(tmp_path / 'run'), '--device', 'cpu', '--min-score', '0',
                   '--out', str(tmp_path / 'out')])
    found = json.loads((tmp_path / 'out' / 'coco_results.json').read_text())
    assert found and all(np.isfinite(entry['bbox']).all() and 0 <= entry['score'] <= 1 for entry in found)
    assert list((tmp_path / 'out').glob('a_overlay.png'))


PROCESS = '''
import faulthandler, logging, os, sys
faulthandler.dump_traceback_later(300, exit=True)  # a process that waits for ever says where
folder, rank, store = sys.argv[1:]
sys.path.insert(0, folder)
import torch
import frozenmm
import tiny_dino as tiny
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

logging.disable(logging.INFO)
rank = int(rank)
torch.distributed.init_process_group('gloo', init_method='file://' + store, rank=rank, world_size=2)
model = tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',))))
ddp = MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=False)
wrapper = build_optim_wrapper(ddp, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)))
ddp.train()
before = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
for step in range(2):
    # one process has no object in its second batch
    targets = (0, 0) if rank and step else (2, 1)
    losses = ddp.train_step(tiny.batch(seed=10 * rank + step, targets=targets), wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
for value, parameter in zip(before, (p for p in model.parameters() if p.requires_grad)):
    both = [torch.empty_like(parameter) for _ in range(2)]
    torch.distributed.all_gather(both, parameter.detach())
    assert torch.equal(*both) and not torch.equal(value, parameter)
torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end, after everything above has been checked
'''


def test_co_dino_trains_on_two_processes_every_parameter_in_step(tmp_path):
    processes = [subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', PROCESS, str(Path(__file__).parent), str(rank), str(tmp_path / 'store')],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        for rank in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(text[-2000:] for text in outputs)
