from __future__ import annotations

import copy
import gc
import pickle
import threading

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from frozenmm.foundation import joining
from frozenmm.foundation.joining import BatchInView, agreed_stats, join_when_taken_in, parse_stats, share_image
from frozenmm.structures import ImageStats

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


class Part(nn.Module):

    def __init__(self):
        super().__init__()
        self.joined = []
        join_when_taken_in(self)

    def join(self, model):
        self.joined.append(type(model).__name__)


class Model(BaseModel):

    def __init__(self, preprocessor=None):
        super().__init__(preprocessor)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


def preprocessor(**options):
    return dict(type='ImgDataPreprocessor', **IMAGENET, bgr_to_rgb=True, **options)


def test_a_part_joins_when_a_model_takes_it_in():
    part, model = Part(), Model()
    model.backbone = part
    assert part.joined == ['Model']


def test_a_part_inside_another_module_joins_with_it():
    part, model = Part(), Model()
    model.backbone = nn.Sequential(nn.ReLU(), part)
    assert part.joined == ['Model']


def test_owners_without_data_preprocessor_are_passed_over():
    part, owner, model = Part(), nn.Module(), Model()
    owner.inner = part
    assert part.joined == []
    model.backbone = owner
    assert part.joined == ['Model']


def test_a_part_joins_once():
    part = Part()
    for _ in range(2):
        Model().backbone = part
    assert part.joined == ['Model']


def test_the_watch_ends_with_the_last_waiting_part(monkeypatch):
    monkeypatch.setattr(joining, '_waiting', [])  # parts of other tests that something still holds
    first, second = Part(), Part()
    model = Model()
    model.backbone = first
    assert joining._watch is not None
    del second
    gc.collect()
    model.other = nn.ReLU()
    assert joining._watch is None and not joining._waiting


def test_statistics_come_from_the_data_preprocessor():
    stats = agreed_stats(None, Model(preprocessor()), part='X')
    assert stats.channel_order == 'rgb'
    torch.testing.assert_close(stats.mean, tuple(IMAGENET['mean']), rtol=1e-6, atol=0)


def test_own_statistics_that_agree_are_accepted():
    own = ImageStats(tuple(IMAGENET['mean']), tuple(IMAGENET['std']), 'rgb')
    assert agreed_stats(own, Model(preprocessor()), part='X').channel_order == 'rgb'


@pytest.mark.parametrize('own', [
    ImageStats(tuple(IMAGENET['mean']), tuple(IMAGENET['std']), 'bgr'),
    ImageStats((0.0, 0.0, 0.0), tuple(IMAGENET['std']), 'rgb'),
])
def test_own_statistics_that_differ_are_refused(own):
    with pytest.raises(ValueError, match='X was told .* but the data preprocessor of Model applies'):
        agreed_stats(own, Model(preprocessor()), part='X')


def test_a_model_that_does_not_normalise_needs_own_statistics():
    with pytest.raises(ValueError, match='the data preprocessor of Model does not normalise, so X cannot know'):
        agreed_stats(None, Model(), part='X')
    own = ImageStats()
    assert agreed_stats(own, Model(), part='X') is own


def test_statistics_are_found_inside_a_multi_branch_preprocessor():
    outer = nn.Module()
    outer.data_preprocessor = Model(preprocessor()).data_preprocessor
    assert joining.preprocessor_stats(outer).channel_order == 'rgb'


def test_mmdet_and_mmseg_preprocessors_are_read_alike():
    from mmdet.models import DetDataPreprocessor
    from mmseg.models import SegDataPreProcessor
    det = joining.preprocessor_stats(DetDataPreprocessor(**IMAGENET, bgr_to_rgb=True))
    seg = joining.preprocessor_stats(SegDataPreProcessor(**IMAGENET, bgr_to_rgb=True, size=(8, 8)))
    assert det == seg
    assert joining.preprocessor_stats(DetDataPreprocessor()) is None
    assert joining.preprocessor_stats(SegDataPreProcessor(size=(8, 8))) is None


def test_statistics_may_be_written_in_three_ways():
    stats = ImageStats((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 'bgr')
    assert parse_stats('auto') is None
    assert parse_stats(stats) is stats
    assert parse_stats(dict(mean=[1, 2, 3], std=[4, 5, 6], channel_order='bgr')) == stats


@pytest.mark.parametrize(('value', 'error', 'message'), [
    ('imagenet', ValueError, 'image_stats must be \'auto\' or dict'),
    (3, TypeError, 'image_stats must be \'auto\', a dict or ImageStats, got int'),
    (dict(mean=[0, 0, 0], std=[1, 1, 1]), ValueError, 'image_stats needs exactly the keys'),
    (dict(mean=[0, 0, 0], std=[1, 0, 1], channel_order='rgb'), ValueError, 'std must be positive'),
    (dict(mean=[0, 0], std=[1, 1, 1], channel_order='rgb'), ValueError, 'three numbers'),
])
def test_bad_statistics_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        parse_stats(value)


def test_the_view_has_the_image_of_the_last_forward_once():
    model = Model()
    model.backbone = Maps()
    view = share_image(model)
    assert share_image(model) is view and len(model.backbone._forward_pre_hooks) == 1
    image = torch.rand(1, 3, 4, 4)
    maps = model(image)
    assert type(maps) is list and view.take() is image and view.take() is None


def test_copies_and_pickles_of_a_model_have_a_view_of_their_own():
    model = Model()
    model.backbone, model.neck = Maps(), Part()
    model.neck.batch = share_image(model)
    model(torch.rand(1, 3, 4, 4))
    for twin in copy.deepcopy(model), pickle.loads(pickle.dumps(model)):
        assert twin.neck.batch is not model.neck.batch and twin.neck.batch.take() is None
        image = torch.rand(1, 3, 4, 4)
        twin(image)
        assert twin.neck.batch.take() is image


def test_threads_do_not_see_the_images_of_each_other():
    view, image = BatchInView(), torch.ones(1)
    other = threading.Thread(target=view.note, args=(None, (torch.zeros(1), )))
    view.note(None, (image, ))
    other.start()
    other.join()
    assert view.take() is image and view.take() is None


def test_a_model_without_backbone_is_refused():
    with pytest.raises(ValueError, match='Model has no backbone whose input FrozenFeatureNeck could read'):
        share_image(Model())


class Maps(nn.Module):

    def forward(self, x):
        return [x, x * 2]
