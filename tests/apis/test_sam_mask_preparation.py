"""Masks of a folder or data set, prepared beforehand."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_sam import DECODER, ENCODER

from frozenmm.apis import sam_mask_preparation as preparation
from frozenmm.foundation.mask_prompters import SAMPrompter
from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks
from frozenmm.segmentation.frozen_seg.mask_files import SAMMaskFolder, read_masks, write_masks
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks

OPTIONS = dict(points_per_side=2, iou_threshold=0.0, stability_threshold=0.0)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    (folder / 'below').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in ('a.png', (40, 60, 3)), ('b.jpg', (64, 48, 3)), ('below/c.png', (50, 50)):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope='module')
def generator():
    return AutomaticMasks(SAMPrompter(ENCODER, 'random', decoder=DECODER), **OPTIONS)


def test_a_run_goes_on_where_it_stopped(images, generator, tmp_path):
    found = preparation.find_images(images)
    assert [path.name for path in found] == ['a.png', 'b.jpg', 'c.png']
    out = tmp_path / 'masks'
    first = preparation.prepare_sam_masks(found[:2], generator, out)
    assert (first.made, first.found) == (2, 0)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob('*.safetensors')}
    second = preparation.prepare_sam_masks(found, generator, out)
    assert (second.made, second.found, second.failed) == (1, 2, {})
    assert all((out / name).stat().st_mtime_ns == time for name, time in times.items())
    masks = SAMMaskFolder(out).load('elsewhere/a.png')
    assert masks.size == (40, 60) and masks.logits.shape[1:] == (11, 16)
    assert preparation.verify_sam_masks(found, out) == {}
    assert not list(out.glob('*.part'))


def test_damaged_files_are_made_again(images, generator, tmp_path):
    found, out = preparation.find_images(images), tmp_path / 'masks'
    preparation.prepare_sam_masks(found, generator, out)
    (out / 'a.safetensors').write_bytes(b'half')
    write_masks(out / 'b.safetensors', SAMMasks(torch.full((1, 4, 4), torch.nan), (64, 48)))
    write_masks(out / 'c.safetensors', SAMMasks(torch.ones(1, 4, 4), (9, 9)))
    wrong = preparation.verify_sam_masks(found, out)
    assert 'cannot be read as prepared SAM masks' in wrong[str(found[0])]
    assert 'infinite or undefined' in wrong[str(found[1])]
    assert wrong[str(found[2])].endswith('is for an image of 9x9 pixels, but it has 50x50')
    assert preparation.prepare_sam_masks(found, generator, out).made == 2
    assert read_masks(out / 'b.safetensors').size == (64, 48)


def test_an_unreadable_image_does_not_end_the_run(images, generator, tmp_path):
    (images / 'b.jpg').write_bytes(b'not a picture')
    Image.fromarray(np.zeros((1, 40, 3), np.uint8)).save(images / 'a.png')
    report = preparation.prepare_sam_masks(preparation.find_images(images), generator, tmp_path / 'masks')
    assert report.made == 2 and {path.rpartition('/')[2] for path in report.failed} == {'b.jpg'}
    assert 'is no readable image' in ' '.join(report.failed.values())


def test_masks_of_other_options_are_not_mixed(images, generator, tmp_path):
    found, out = preparation.find_images(images), tmp_path / 'masks'
    preparation.prepare_sam_masks(found[:1], generator, out)
    assert json.loads((out / preparation.MANIFEST).read_text())['options']['points_per_side'] == 2
    other = AutomaticMasks(generator.prompter, **dict(OPTIONS, points_per_side=3))
    with pytest.raises(ValueError, match=r'holds masks made with another options: .*name another folder'):
        preparation.prepare_sam_masks(found, other, out)


def test_images_come_from_a_config(tmp_path, repo_root, tiny_coco):
    path = tmp_path / 'config.py'
    path.write_text("default_scope = 'mmdet'\ncustom_imports = dict(imports=['frozenmm'])\nval_dataloader = dict("
                    f"dataset=dict(type='frozenmm.CocoPanoptic', data_root={tiny_coco!r}, test_mode=True, pipeline=[], "
                    "ann_file='annotations/panoptic_val.json', data_prefix=dict(img='images/val/', "
                    "seg='panoptic_val/')))\n")
    found = preparation.find_images(path, 'val')
    assert [image.name for image in found] == ['val_00000.jpg', 'val_00001.jpg'] and all(map(os.path.isfile, found))
    with pytest.raises(ValueError, match='has no test_dataloader'):
        preparation.find_images(path)


def test_sources_that_are_none_are_refused(images, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere is neither a folder of images nor a config'):
        preparation.find_images(tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no image'):
        preparation.find_images(tmp_path / 'empty')
    (images / 'a.png').rename(images / 'below' / 'b.png')
    with pytest.raises(ValueError, match=r'would share one file of masks, b.safetensors'):
        preparation.find_images(images)


def test_models_have_names():
    with pytest.raises(ValueError, match="unknown promptable model 'vit_x'; did you mean"):
        preparation.build_prompter('vit_x')


@pytest.mark.journey
def test_the_command_prepares_verifies_and_says_what_is_missing(demo_room, repo_root, images, tmp_path):
    def run(*arguments, **environment):
        return subprocess.run([sys.executable, 'tools/prepare_sam_masks.py', str(images), '--out',
                               str(tmp_path / 'masks'), *arguments], cwd=repo_root, capture_output=True, text=True,
                              env={**os.environ, 'OMP_NUM_THREADS': '1', **environment})

    made = run('--model', 'demo', '--options', 'points_per_side=3')
    assert made.returncode == 0, made.stderr
    assert '3 files made' in made.stdout and '3 of 3 images' in made.stderr
    assert run('--verify').returncode == 0
    (tmp_path / 'masks' / 'a.safetensors').unlink()
    wrong = run('--verify')
    assert wrong.returncode == 1 and 'a.safetensors is missing' in wrong.stdout
    absent = run('--model', 'vit_h', FROZENMM_OFFLINE='1', FROZENMM_HOME=str(tmp_path / 'home'))
    assert absent.returncode == 2 and 'sam_vit_h_4b8939.pth' in absent.stderr and 'Traceback' not in absent.stderr
