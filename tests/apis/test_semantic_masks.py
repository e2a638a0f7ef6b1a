from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from frozenmm.apis.semantic_masks import SemanticMask
from frozenmm.reconstruction.outputs import read_ply

CONFIG = '''
custom_imports = dict(imports=['frozenmm', 'mmseg.models'])
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True),
    backbone=dict(type='colours_for_a_test'),
    decode_head=dict(type='FCNHead', in_channels=3, channels=3, num_convs=0, concat_input=False, num_classes=3,
                     dropout_ratio=0.0, align_corners=False, loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(dataset=dict(metainfo=dict(classes=('red thing', 'blue thing', 'rest'))))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
'''


@pytest.fixture(scope='module')
def colour_model(tmp_path_factory) -> tuple[Path, Path]:
    """An mmseg config and checkpoint that call very red pixels 'red thing' and the others 'rest'."""
    pytest.importorskip('mmseg')
    from mmseg.registry import MODELS

    @MODELS.register_module(name='colours_for_a_test', force=True)
    class Colours(torch.nn.Module):
        def forward(self, images):
            return (images, )

    folder = tmp_path_factory.mktemp('model')
    (folder / 'colours.py').write_text(CONFIG)
    weight = torch.zeros(3, 3, 1, 1)
    weight[0, :, 0, 0] = torch.tensor([1.0, -1.0, -1.0])
    save_file({'decode_head.conv_seg.weight': weight, 'decode_head.conv_seg.bias': torch.tensor([0.0, -1e4, 100.0])},
              str(folder / 'colours.safetensors'))
    return folder / 'colours.py', folder / 'colours.safetensors'


@pytest.fixture(scope='module')
def clip(tmp_path_factory, rooms) -> tuple[Path, np.ndarray]:
    """A folder with a room through which a red square flies, its depth, and where the square is."""
    room = rooms.render_room(rooms.RoomSettings(frames=3, size=(120, 160), path_m=0.4, samples=1, seed=1))
    folder, where = tmp_path_factory.mktemp('clip'), np.zeros(room.depth.shape, dtype=bool)
    for index, image in enumerate(room.images):
        where[index, 30:60, 20 + 25 * index:50 + 25 * index] = True
        image[where[index]] = 255, 0, 0
        cv2.imwrite(str(folder / f'{index}.png'), image[..., ::-1])
    np.savez(folder / 'depth.npz', depth=rooms.distort_depth(room.depth))
    return folder, where


def test_the_pixels_of_the_named_class_are_marked(colour_model, clip):
    mask = SemanticMask([' red thing', ''], model=str(colour_model[0]), weights=colour_model[1])
    images = np.stack([cv2.imread(str(clip[0] / f'{index}.png'))[..., ::-1] for index in range(3)])
    seen = []
    found = mask(images, lambda step, done, total: seen.append((step, done, total)))
    np.testing.assert_array_equal(found, clip[1])
    assert seen == [('masks', 1, 3), ('masks', 2, 3), ('masks', 3, 3)] and 'red thing' in mask.name


def test_words_that_the_model_does_not_know_are_refused(colour_model):
    with pytest.raises(ValueError, match="class 'red think'.*red thing"):
        SemanticMask(['red think'], model=str(colour_model[0]))
    with pytest.raises(ValueError, match='a mask needs at least one class'):
        SemanticMask([' ', ''])


def test_a_config_that_names_no_class_is_refused(colour_model, tmp_path):
    text, named = CONFIG, "dict(metainfo=dict(classes=('red thing', 'blue thing', 'rest')))"
    (tmp_path / 'unnamed.py').write_text(text.replace(named, "dict(type='mmseg.BaseSegDataset')"))
    with pytest.raises(ValueError, match='names its classes; state them as'):
        SemanticMask(['red thing'], model=str(tmp_path / 'unnamed.py'))


def test_the_tool_leaves_masked_pixels_out(colour_model, clip, tmp_path, monkeypatch, repo_root):
    monkeypatch.setattr(sys, 'argv', [
        'recon.py', str(clip[0]), '--out', str(tmp_path), '--depth', str(clip[0] / 'depth.npz'), '--mask', 'red thing',
        '--mask-model', str(colour_model[0]), '--mask-weights', str(colour_model[1])])
    runpy.run_path(str(repo_root / 'tools/recon.py'), run_name='__main__')
    with np.load(tmp_path / 'state/invalid.npz') as stored:
        np.testing.assert_array_equal(stored['invalid'], clip[1])
    for name in ('points.ply', 'mesh.ply'):
        colours = read_ply(tmp_path / name).colours.astype(int)
        assert len(colours) > 1000
        assert not ((colours[:, 0] > 240) & (colours[:, 1:] < 15).all(1)).any(), name
