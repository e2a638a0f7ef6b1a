"""ConSE: the rule by hand, and what it says about real photographs."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from frozenmm.errors import MissingPackage
from frozenmm.foundation.conse import ConSE, combine, imagenet_names
from frozenmm.registry import MODELS

WORDS = ['cat', 'dog', 'brick wall', 'coffee cup', 'keyboard', 'rocket', 'launch pad', 'spacecraft', 'tree', 'bicycle',
         'horse', 'car']
# photograph, first ImageNet classes with posteriors, cosines with words; measured once with the published networks
PHOTOS = {
    'chelsea': ({'Egyptian cat': 0.77, 'tiger cat': 0.10}, {'cat': 0.78, 'dog': 0.44, 'brick wall': 0.36}),
    'coffee': ({'espresso': 0.89, 'cup': 0.04}, {'coffee cup': 0.54, 'keyboard': 0.29, 'rocket': 0.29}),
    'rocket': ({'drilling platform': 0.64, 'crane': 0.06, 'missile': 0.03},
               {'launch pad': 0.39, 'spacecraft': 0.38, 'tree': 0.32}),
    'astronaut': ({'bobsled': 0.21, 'football helmet': 0.15}, {'bicycle': 0.54, 'horse': 0.46, 'car': 0.41}),
}


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('home')


@pytest.fixture(scope='module')
def conse(minilm, home):
    pytest.importorskip('timm')
    patch = pytest.MonkeyPatch()
    patch.setenv('FROZENMM_HOME', str(home))
    try:
        return ConSE(text_tower=minilm)
    except MissingPackage as error:
        pytest.skip(str(error))
    finally:
        patch.undo()


def photo(name):
    data = pytest.importorskip('skimage.data')
    return torch.from_numpy(np.array(getattr(data, name)())).permute(2, 0, 1)[None].float()


def test_the_rule_by_hand():
    vectors = torch.eye(3)
    posteriors = torch.tensor([[0.6, 0.1, 0.3], [0.0, 1.0, 0.0]])
    assert_close(combine(posteriors, vectors, top_k=2)[0], torch.tensor([2., 0., 1.]) / math.sqrt(5))
    assert_close(combine(posteriors, vectors, top_k=1), torch.eye(3)[:2])
    assert_close(combine(posteriors, vectors, top_k=3)[0], F.normalize(posteriors[0], dim=0))


def test_the_rule_holds_at_every_place():
    posteriors = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    vectors = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    assert_close(combine(posteriors, vectors, 3)[1, 2, 3], combine(posteriors[1, 2, 3], vectors, 3))


def test_unusable_arguments_are_named(conse, minilm):
    with pytest.raises(ValueError, match='4 class posteriors, but vectors of 3 class names'):
        combine(torch.ones(4), torch.eye(3))
    with pytest.raises(ValueError, match=r'top_k must be in 1\.\.3, got 4'):
        combine(torch.ones(3), torch.eye(3), 4)
    with pytest.raises(ValueError, match=r'top_k must be in 1\.\.1000, got 0'):
        ConSE(text_tower=minilm, top_k=0)
    with pytest.raises(TypeError, match='tower must be an EfficientNetLiteTower, got MiniLMTextTower'):
        ConSE(minilm, minilm)
    with pytest.raises(TypeError, match='text_tower must be a TextTower, got Identity'):
        ConSE(text_tower=torch.nn.Identity())


def test_wrong_feature_channels_are_named(conse):
    with pytest.raises(ValueError, match=r'means of class_features with 1280 channels, got \(2, 320\)'):
        conse.visual_prediction(torch.zeros(2, 320))


def test_names_are_the_first_of_each_class():
    pytest.importorskip('timm')
    names = imagenet_names()
    assert len(names) == 1000 and names[0] == 'tench' and names[285] == 'Egyptian cat' and names[999] == 'toilet tissue'


@pytest.mark.parametrize('name', PHOTOS)
def test_photographs_get_the_measured_classes_and_words(conse, minilm, name):
    classes, words = PHOTOS[name]
    posteriors = conse.image_tower.classify(photo(name))[0]
    names = imagenet_names()
    found = {names[index]: posteriors[index].item() for index in posteriors.topk(len(classes)).indices.tolist()}
    assert found == pytest.approx(classes, abs=0.02)
    cosines = conse(photo(name))[0] @ minilm.encode(WORDS).T
    best = cosines.topk(3).indices.tolist()
    assert {WORDS[index]: cosines[index].item() for index in best} == pytest.approx(words, abs=0.02)


def test_features_averaged_over_the_image_give_the_image_vector(conse):
    image = photo('chelsea')
    features = conse.class_features(conse.image_tower(image).map('res5'))
    assert features.shape == (1, 1280, 7, 7)
    assert_close(conse.visual_prediction(features.mean((2, 3))), conse(image), atol=1e-5, rtol=1e-4)


def test_the_dense_map_applies_the_rule_cell_by_cell_and_finds_the_cat(conse, minilm):
    last = conse.image_tower(photo('chelsea')).map('res5')
    dense = conse.dense(last)
    assert dense.shape == (1, 384, 7, 7)
    cell = conse.visual_prediction(conse.class_features(last)[0, :, 3, 4])
    assert_close(dense[0, :, 3, 4], cell, atol=1e-5, rtol=1e-4)
    scores = torch.einsum('bchw,nc->bnhw', dense, minilm.encode(['cat', 'coffee cup', 'rocket', 'bicycle']))
    assert (scores.argmax(1)[0, 1:6, 1:6] == 0).float().mean() > 0.7


def test_autocast_around_it_changes_nothing(conse):
    before = conse(photo('coffee'))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert_close(conse(photo('coffee')), before, atol=0, rtol=0)


def test_class_vectors_stay_out_of_checkpoints_and_in_float32(conse):
    state = conse.state_dict()
    assert sorted(state) == ['image_tower.frozen_record', 'text_tower.frozen_record']
    before = conse.class_vectors.clone()
    conse.half()
    assert_close(conse.class_vectors, before, atol=0, rtol=0)
    assert not list(conse.parameters()) and not list(conse.buffers())


def test_it_is_built_by_name_with_the_stored_vectors_of_the_names(conse, home, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(home))
    path, = (home / 'text').glob('*.sqlite')
    written = path.stat().st_mtime_ns
    second = MODELS.build(dict(type='ConSE', top_k=5))
    assert second.top_k == 5 and path.stat().st_mtime_ns == written
    assert second.image_tower.network is conse.image_tower.network
    assert_close(second.class_vectors, conse.class_vectors, atol=0, rtol=0)


def test_the_old_name_of_the_tower_works_for_one_release():
    with pytest.warns(FutureWarning, match='is now called tower='), pytest.raises(TypeError, match='tower must be an'):
        ConSE(image_tower=torch.nn.Linear(1, 1), store=False)
