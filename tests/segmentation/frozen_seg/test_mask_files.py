"""Folders of prepared masks: the official pickles beside our own files."""
from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from frozenmm.segmentation.frozen_seg.mask_files import SAMMaskFolder, write_masks
from frozenmm.segmentation.frozen_seg.official_masks import official_name, read_official_masks
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks


def records(count=3):
    """What FrozenSeg's script stores: records of the mask generator with the logits `preds`."""
    rng = np.random.default_rng(0)
    return [dict(segmentation=dict(size=[8, 10], counts='abc'), area=80 - index, bbox=[0.0, 0.0, 9.0, 7.0],
                 predicted_iou=0.9 - 0.1 * index, point_coords=[[1.0, 2.0]], stability_score=0.8,
                 crop_box=[0, 0, 10, 8], preds=rng.standard_normal((8, 10), dtype=np.float32))
            for index in range(count)]


@pytest.mark.parametrize('protocol', [2, 4, pickle.HIGHEST_PROTOCOL])
def test_official_pickles_are_read(tmp_path, protocol):
    (tmp_path / 'street.pkl').write_bytes(pickle.dumps(records(), protocol))
    masks = SAMMaskFolder(tmp_path, count=2, choice='best').load('images/street.jpg')
    assert masks.size == (8, 10) and torch.equal(masks.logits[1], torch.from_numpy(records()[1]['preds']))
    torch.testing.assert_close(masks.predicted_iou, torch.tensor([0.9, 0.8]))


def test_our_own_file_comes_first(tmp_path):
    (tmp_path / 'street.pkl').write_bytes(pickle.dumps(records()))
    write_masks(tmp_path / 'street.safetensors', SAMMasks(torch.ones(1, 2, 2), (4, 4)))
    assert SAMMaskFolder(tmp_path).load('street.jpg').size == (4, 4)


def test_the_official_name_ends_at_the_first_dot():
    assert official_name('a/frankfurt_0_1.left.png') == 'frankfurt_0_1.pkl'


def test_an_image_without_masks_has_an_empty_pickle(tmp_path):
    (tmp_path / 'void.pkl').write_bytes(pickle.dumps([]))
    assert len(SAMMaskFolder(tmp_path).load('void.jpg').logits) == 0


class Harmful:
    def __reduce__(self):
        return os.system, ('true', )


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / 'street.pkl'
    path.write_bytes(pickle.dumps([dict(preds=Harmful(), predicted_iou=1.0)]))
    with pytest.raises(ValueError, match=r'street.pkl cannot be read as SAM masks .*posix.system, and loading that'):
        read_official_masks(path)


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'cannot be read as SAM masks in the official format'),
    (pickle.dumps(records())[:-40], 'cannot be read as SAM masks in the official format'),
    (pickle.dumps({'a': 1}), 'expected a list of dictionaries, got dict'),
    (pickle.dumps([dict(segmentation=1, predicted_iou=0.5)]), r"masks without \['preds'\]; FrozenSeg's own fork"),
    (pickle.dumps([dict(preds=np.zeros(3, np.float32), predicted_iou=0.5)]), r'`preds` must be \(H, W\) logits'),
])
def test_damaged_and_other_pickles_say_what_is_wrong(tmp_path, content, message):
    path = tmp_path / 'street.pkl'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_official_masks(path)


def test_the_command_that_makes_missing_masks_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf'python tools/prepare_sam_masks.py data/images --model vit_h --out '
                                                rf'{tmp_path}'):
        SAMMaskFolder(tmp_path).load('data/images/street.jpg')
