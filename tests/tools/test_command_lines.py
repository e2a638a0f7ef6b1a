from __future__ import annotations

import os
import runpy
import stat
import subprocess
import sys

import pytest
import torch
from mmengine.hooks import Hook

from frozenmm.registry import HOOKS

SCRATCH = 'configs/quickstart/dino_scratch_scenes.py'


def _run(repo_root, *arguments, **environment):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=repo_root, capture_output=True, text=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1', **environment}, timeout=300)


def _options(tiny_coco):
    return ['model.backbone.base_channels=8', 'model.neck.in_channels=[16,32,64]', 'model.encoder.num_layers=1',
            'model.decoder.num_layers=1', 'train_dataloader.batch_size=2', 'custom_hooks=[]', 'train_cfg.max_iters=2',
            'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2', f'data_root={tiny_coco}']


@pytest.mark.journey
def test_a_model_is_trained_with_amp_and_tested_from_the_command_line(repo_root, tiny_coco, tmp_path):
    config = SCRATCH
    trained = _run(repo_root, 'tools/train.py', config, '--amp', '--work-dir', tmp_path, '--cfg-options',
                   *_options(tiny_coco))
    assert trained.returncode == 0, trained.stderr
    assert 'eta' in trained.stdout and 'coco/bbox_mAP' in trained.stdout
    tested = _run(repo_root, 'tools/test.py', config, tmp_path / 'iter_2.pth', '--work-dir', tmp_path / 'test',
                  '--show-dir', tmp_path / 'shown', '--out', tmp_path / 'metrics.json', '--cfg-options',
                  *_options(tiny_coco))
    assert tested.returncode == 0, tested.stderr
    assert (tmp_path / 'metrics.json').is_file() and list((tmp_path / 'shown').glob('*.png'))


@pytest.fixture
def command(repo_root, monkeypatch, capsys, tmp_path):
    """Runs a tool in this process as a shell would, and gives exit code and stderr."""
    def run(tool, *arguments):
        monkeypatch.chdir(repo_root)
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        monkeypatch.delenv('FROZENMM_TRACEBACK', raising=False)
        monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repo_root / tool), run_name='__main__')
        return end.value.code, capsys.readouterr().err
    return run


def _refused(ending, *texts):
    code, shown = ending
    assert code == 2, shown
    assert 'Traceback' not in shown and len(shown.strip().splitlines()) == 2, shown
    assert all(text in shown for text in texts), shown


@pytest.mark.parametrize(('arguments', 'message'), [
    (['tools/train.py', 'configs/quickstart/nothing.py'], 'there is no config'),
    (['tools/train.py', SCRATCH, '--cfg-options', 'model.querys=3'], 'model has no key \'querys\''),
    (['tools/train.py', SCRATCH, '--resume', 'nothing.pth'], 'there is no checkpoint'),
    (['tools/test.py', SCRATCH, 'nothing.pth'], 'there is no checkpoint'),
    (['tools/infer.py', 'nothing.png', '--model', 'fc_clip_rn5', '--vocab', 'cat'], 'nearest: fc_clip_rn50'),
    (['tools/infer.py', 'nothing.png', '--model', 'fc_clip_rn50', '--vocab', 'cat,,dog'], 'has an empty name'),
    (['tools/infer.py', 'nothing.png', '--model', 'fc_clip_rn50', '--vocab', 'cat,cat'], 'has the same words as'),
    (['tools/infer.py', 'nothing.png', '--vocab', 'cat, sky', '--stuff', 'skies'], "no class 'skies'"),
    (['tools/infer.py', 'nothing.png', '--stuff', 'sky'], '--stuff names classes of --vocab'),
    (['tools/infer.py', 'nothing.png', '--vocab', 'nothing.txt'], 'there is no nothing.txt, which should be'),
    (['tools/infer.py', 'nothing.png', '--model', SCRATCH], 'there is no image'),
    (['tools/infer.py', 'nothing.png', '--model', SCRATCH, '--vocab', 'cat'], 'takes no vocabulary'),
    (['tools/infer.py', 'nothing.png', '--model', SCRATCH, '--ann', 'nothing.json'], 'there is no nothing.json, which'),
    (['tools/infer.py', 'nothing.mp4', '--model', SCRATCH, '--every', '0'], 'every must be 1 (all frames of a video)'),
    (['tools/convert.py', 'clip', 'nothing.pt', 'out.safetensors'], 'nothing.pt does not exist'),
])
def test_a_user_error_ends_in_one_sentence_and_exit_code_2(command, arguments, message):
    _refused(command(*arguments), message)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the device is there')
@pytest.mark.parametrize('arguments', [
    ['tools/infer.py', 'nothing.png', '--model', SCRATCH, '--device', 'cuda'],
    ['tools/train.py', SCRATCH, '--device', 'cuda'],
    ['tools/recon.py', 'nothing', '--out', 'nowhere', '--device', 'cuda:1'],
])
def test_a_device_that_is_not_there_is_one_sentence(command, arguments):
    _refused(command(*arguments), f'device {arguments[-1]!r} cannot be used', 'write cpu, or auto')
    _refused(command(*arguments[:-1], 'gpu'), 'device must be auto, cpu,', "got 'gpu'")


@pytest.mark.parametrize(('text', 'messages'), [
    ('model = dict(', ['is no Python']),
    ('model = dict(num_queries=undefined)', ["NameError: name 'undefined' is not defined"]),
    ('custom_imports = dict(imports=["no_such_module"])', ['mine.py cannot be read as a config', 'no_such_module']),
    ('model = dict(num_querys=3)', ["DINO has no key 'num_querys' (nearest: num_queries"]),
    ('model = dict(backbone=dict(type="ResNett"))', ["no model is registered as 'ResNett' (nearest:"]),
    ('custom_hooks = [dict(type="frozenmm.TimeBudgetHook", minuts=3)]',
     ["TimeBudgetHook has no key 'minuts' (nearest: minutes"]),
    ('custom_hooks = [dict(interval=3)]', ['a part of the config has no type']),
    ('train_dataloader = dict(batchsize=3)', ["DataLoader has no key 'batchsize' (nearest: batch_size"]),
    ('optim_wrapper = dict(optimizer=dict(weight_deca=3))', ["AdamW has no key 'weight_deca' (nearest: weight_decay"]),
    ('model = dict(backbone=dict(_delete_=True, type="frozenmm.FrozenBackbone"))', ['FrozenBackbone needs', 'tower']),
])
def test_a_mistake_in_a_config_file_is_one_sentence(command, repo_root, tiny_coco, tmp_path, text, messages):
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = '{repo_root / SCRATCH}'\n{text}")
    _refused(command('tools/train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options',
                     f'data_root={tiny_coco}'), *messages)


def test_a_base_that_is_not_there_is_named(command, tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'gone.py'")
    _refused(command('tools/infer.py', 'a.png', '--model', tmp_path / 'mine.py'), 'mine.py', 'gone.py', '_base_')


@pytest.mark.parametrize(('content', 'message'), [
    (b'no checkpoint', 'is a text file, not a checkpoint'),
    (b'PK\x03\x04 and no end', 'truncated, damaged or no checkpoint'),
    ({'state_dict': {'a': torch.zeros(2)}}, 'is it the checkpoint of another config'),
    ({'state_dict': 3}, 'no tensors by name'),
    ({'state_dict': {'a': 'text'}}, 'is it the checkpoint of another config'),
])
def test_a_broken_or_foreign_checkpoint_is_one_sentence(command, tiny_coco, tmp_path, content, message):
    path = tmp_path / 'bad.pth'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    _refused(command('tools/infer.py', 'nothing.png', '--model', SCRATCH, '--weights', path), 'bad.pth', message)
    _refused(command('tools/test.py', SCRATCH, path, '--work-dir', tmp_path / 'work', '--cfg-options',
                     *_options(tiny_coco)), 'bad.pth', message)


def test_a_hook_that_fails_shows_its_traceback_and_where_to_report_it(command, tiny_coco, tmp_path):
    class Forgetful(Hook):

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            raise KeyError('img_shape')

    HOOKS.register_module(module=Forgetful, force=True)
    try:
        code, shown = command('tools/train.py', SCRATCH, '--work-dir', tmp_path, '--cfg-options', *[
            option for option in _options(tiny_coco) if not option.startswith('custom_hooks')],
            "custom_hooks=[{'type':'frozenmm.Forgetful'}]")
    finally:
        HOOKS.module_dict.pop('Forgetful')
    assert code == 1
    assert 'Traceback (most recent call last)' in shown and "KeyError: 'img_shape'" in shown
    assert 'before_train_iter' in shown and 'frozenmm.env' in shown


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_a_shell_launcher_without_arguments_shows_its_usage(repo_root, name):
    script = repo_root / 'tools' / name
    assert script.stat().st_mode & stat.S_IXUSR
    result = subprocess.run(['bash', str(script)], capture_output=True, text=True)
    assert result.returncode == 2 and f'tools/{name} ' in result.stdout


def test_the_shell_launchers_pass_every_argument_on(repo_root, tmp_path):
    """With a python that prints what it is called with."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done\n')
    python.chmod(0o755)
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done\n')
    srun.chmod(0o755)

    def called(*arguments):
        return subprocess.run(['bash', *map(str, arguments)], capture_output=True, text=True, check=True, cwd=repo_root,
                              env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PORT': '1234', 'GPUS': '2'}
                              ).stdout.splitlines()

    trained = called('tools/dist_train.sh', 'a.py', 3, '--work-dir', 'with space')
    assert {'--nproc_per_node=3', '--master_port=1234', '--launcher', 'pytorch', 'with space'} <= set(trained)
    assert trained[trained.index('tools/train.py') + 1] == 'a.py'
    tested = called('tools/dist_test.sh', 'a.py', 'b.pth', 2)
    assert tested[tested.index('tools/test.py') + 1:][:2] == ['a.py', 'b.pth']
    queued = called('tools/slurm_train.sh', 'part', 'job', 'a.py', '--amp')
    assert {'--ntasks=2', '--gres=gpu:2', '--launcher', 'slurm', '--amp'} <= set(queued)
