from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest


def _run(repo_root, *arguments, **environment):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=repo_root, capture_output=True, text=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1', **environment}, timeout=300)


def _options(tiny_coco):
    return ['model.backbone.base_channels=8', 'model.neck.in_channels=[16,32,64]', 'model.encoder.num_layers=1',
               'model.decoder.num_layers=1', 'train_dataloader.batch_size=2', 'custom_hooks=[]',
               'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2',
            f'data_root={tiny_coco}']


@pytest.mark.journey
def test_a_model_is_trained_with_amp_and_tested_from_the_command_line(repo_root, tiny_coco, tmp_path):
    config = 'configs/quickstart/dino_scratch_scenes.py'
    trained = _run(repo_root, 'tools/train.py', config, '--amp', '--work-dir', tmp_path, '--cfg-options',
                   *_options(tiny_coco))
    assert trained.returncode == 0, trained.stderr
    assert 'eta' in trained.stdout and 'coco/bbox_mAP' in trained.stdout
    tested = _run(repo_root, 'tools/test.py', config, tmp_path / 'iter_2.pth', '--work-dir', tmp_path / 'test',
                  '--show-dir', tmp_path / 'shown', '--out', tmp_path / 'metrics.json', '--cfg-options',
                  *_options(tiny_coco))
    assert tested.returncode == 0, tested.stderr
    assert (tmp_path / 'metrics.json').is_file() and list((tmp_path / 'shown').glob('*.png'))


@pytest.mark.parametrize(('arguments', 'message'), [
    (['tools/train.py', 'configs/quickstart/nothing.py'], 'there is no config'),
    (['tools/train.py', 'configs/quickstart/dino_scratch_scenes.py', '--cfg-options', 'model.querys=3'],
     'model has no key \'querys\''),
    (['tools/test.py', 'configs/quickstart/dino_scratch_scenes.py', 'nothing.pth'], 'there is no checkpoint'),
    (['tools/infer.py', 'nothing.png', '--model', 'fc_clip_rn5', '--vocab', 'cat'], 'nearest: fc_clip_rn50'),
    (['tools/infer.py', 'nothing.png', '--model', 'fc_clip_rn50', '--vocab', 'cat,,dog'], 'has an empty name'),
    (['tools/infer.py', 'nothing.png', '--model', 'fc_clip_rn50', '--vocab', 'cat,cat'], 'has the same words as'),
])
def test_a_user_error_ends_in_one_sentence_and_exit_code_2(repo_root, arguments, message):
    result = _run(repo_root, *arguments)
    assert result.returncode == 2
    assert message in result.stderr and 'Traceback' not in result.stderr


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
