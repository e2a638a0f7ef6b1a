from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import frozenmm  # noqa: F401
from frozenmm.registry import DATASETS, TRANSFORMS

WORDS = ['wall', 'sky', 'cat']
STEPS = dict(
    mmdet=[dict(type='mmdet.LoadImageFromFile'), dict(type='mmdet.Resize', scale=(16, 12)),
           dict(type='frozenmm.LoadLabelMap'), dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'ori_shape'))],
    mmseg=[dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.Resize', scale=(16, 12)),
           dict(type='frozenmm.LoadLabelMap'), dict(type='mmseg.PackSegInputs', meta_keys=('ori_shape', ))])


def write(folder, labels, name='a'):
    black = np.zeros((*labels.shape, 3), np.uint8)
    for place, suffix, pixels in ('images', '.jpg', black), ('labels', '.png', labels):
        (folder / place).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / place / f'{name}{suffix}')


def dataset(folder, **options):
    return DATASETS.build({**dict(type='SemanticMaps', data_root=str(folder), vocabulary=WORDS, pipeline=[],
                                  data_prefix=dict(img='images', seg='labels')), **options})


def labels(*values, kind=np.uint8):
    return np.repeat(np.array([values], kind), 3, 0)


@pytest.mark.parametrize('family', ['mmdet', 'mmseg'])
@pytest.mark.parametrize(('kind', 'void'), [(np.uint8, 255), (np.uint16, 65535)])
def test_labels_reach_the_data_sample_of_both_families_at_their_own_size(tmp_path, family, kind, void):
    from mmdet.utils import register_all_modules
    from mmseg.utils import register_all_modules as register_mmseg
    register_all_modules(init_default_scope=False)
    register_mmseg(init_default_scope=False)
    write(tmp_path, labels(0, 1, 2, void, kind=kind))
    sample = dataset(tmp_path, pipeline=STEPS[family])[0]['data_samples']
    field = sample.gt_sem_seg.sem_seg if family == 'mmdet' else sample.gt_sem_seg.data
    assert field.shape == (1, 3, 4) and field[0, 0].tolist() == [0, 1, 2, void]


def load(folder, **options):
    return TRANSFORMS.build(dict(type='LoadLabelMap', **options))(
        dict(img_path='a.jpg', seg_map_path=str(folder / 'labels/a.png'), reduce_zero_label=False))


@pytest.mark.parametrize(('kind', 'void'), [(np.uint8, 255), (np.uint16, 65535)])
def test_label_zero_may_be_void(tmp_path, kind, void):
    write(tmp_path, labels(0, 1, 3, void, kind=kind))
    found = load(tmp_path, reduce_zero_label=True)
    assert found['gt_seg_map'][0].tolist() == [void, 0, 2, void] and found['ignore_index'] == void
    assert load(tmp_path)['gt_seg_map'][0].tolist() == [0, 1, 3, void]


def test_class_255_is_a_class_among_847(tmp_path):
    from frozenmm.evaluation.semantic_iou import label_counts
    write(tmp_path, labels(255, 300, 846, 65535, kind=np.uint16))
    truth = torch.from_numpy(load(tmp_path)['gt_seg_map'])
    both, union, _ = label_counts(torch.tensor([[255, 300, 1, 255]] * 3), truth, 847)
    assert both[255] == 3 and union[255] == 3 and both[300] == 3 and both[846] == 0 and union[846] == 3


def test_a_palette_is_no_colour(tmp_path):
    write(tmp_path, labels(0, 1, 2, 255))
    with Image.open(tmp_path / 'labels/a.png') as image:
        image = image.convert('L')
    image.putpalette([7] * 768)
    image.save(tmp_path / 'labels/a.png')
    assert load(tmp_path)['gt_seg_map'][0].tolist() == [0, 1, 2, 255]


def test_pictures_of_a_list_or_of_a_folder_are_taken_by_name(tmp_path):
    for name in 'b', 'a', 'c':
        write(tmp_path, labels(0), name)
    (tmp_path / 'val.txt').write_text('c\na\n')
    assert [sample['img_id'] for sample in dataset(tmp_path)] == ['a', 'b', 'c']
    assert [sample['img_id'] for sample in dataset(tmp_path, ann_file='val.txt')] == ['a', 'c']
    (tmp_path / 'images/town').mkdir()
    (tmp_path / 'images/b.jpg').rename(tmp_path / 'images/town/b.jpg')
    assert dataset(tmp_path)[1]['img_path'].endswith('images/town/b.jpg')
    assert dataset(tmp_path).metainfo['classes'] == tuple(WORDS)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'images holds no pictures \*.jpg; prepare the data set first'):
        dataset(tmp_path)
    write(tmp_path, labels(0))
    write(tmp_path, labels(0), 'b')
    (tmp_path / 'labels/b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 2 files are missing, e.g. .*b.png; a picture and its map'):
        dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no .*val.txt, which should be a list of names'):
        dataset(tmp_path, ann_file='val.txt')
    (tmp_path / 'val.txt').write_text('a\nd\n')
    with pytest.raises(FileNotFoundError, match='1 of 2 files are missing, e.g. .*images/d.jpg'):
        dataset(tmp_path, ann_file='val.txt')


def test_unusable_maps_are_explained(tmp_path):
    write(tmp_path, labels(0))
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / 'labels/a.png')
    with pytest.raises(ValueError, match=r'a.png has the shape \(3, 4, 3\); a label map has one channel'):
        load(tmp_path)
    with pytest.raises(ValueError, match="the sample of a.jpg has no 'sem_map_path'; give the data set the folder"):
        load(tmp_path, key='sem_map_path')
    (tmp_path / 'labels/a.png').write_bytes(b'')
    with pytest.raises(ValueError, match='a.png is no readable image'):
        load(tmp_path)
