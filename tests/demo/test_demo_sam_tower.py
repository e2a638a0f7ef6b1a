"""The demonstration model in the place of SAM: tower, prompter, and FrozenSeg on them."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_sam import DEMO

from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.demo.sam.network import DemoSAMHead
from frozenmm.demo.sam.tower import DemoSAMPrompter, DemoSAMTower

sys.path.insert(0, str(Path(__file__).parents[1] / 'segmentation'))
from tiny_segmentors import batch, frozen_seg


@pytest.fixture(scope='module')
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)



def embedded(prompter, picture):
    pixels = torch.from_numpy(picture).movedim(-1, 0)[None].float()
    return prompter.embed(pixels)


@pytest.fixture(scope='module')
def demo():
    return DemoSAMPrompter(**DEMO)


def test_the_demonstration_model_answers_points_and_boxes(demo, picture):
    features = embedded(demo, np.tile(picture, (1, 2, 1)))
    assert {name: tuple(value.shape[1:]) for name, value in features.maps.items()} == {
        'mask': (16, 64, 64), 'neck': (32, 32, 32), 'coarse': (32, 16, 16)}
    logits, predicted = demo.ask(features, torch.tensor([[[4.0, 4.0]], [[60.0, 60.0]]]), torch.ones(2, 1))
    assert logits.shape == (2, 3, 64, 64) and predicted.shape == (2, 3)
    assert 0 <= predicted.min() and predicted.max() <= 1
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    box, _ = demo.ask(features, torch.tensor([[[4.0, 4.0], [60.0, 60.0]]]), torch.tensor([[2, 3]]), single=True)
    assert box.shape == (1, 1, 64, 64)


def test_padding_points_change_nothing_but_their_kind(demo, picture):
    features = embedded(demo, np.tile(picture, (1, 2, 1)))
    labels = torch.tensor([[1, -1]])
    one, other = (demo.ask(features, torch.tensor([[[9.0, 9.0], [place, place]]]), labels)[0] for place in (0.0, 50.0))
    torch.testing.assert_close(one, other)


def test_prompts_are_answered_alike_alone_and_together(demo, picture):
    features = embedded(demo, np.tile(picture, (1, 2, 1)))
    points, labels = torch.rand(5, 1, 2, generator=torch.Generator().manual_seed(1)) * 64, torch.ones(5, 1)
    together = demo.ask(features, points, labels)[0]
    torch.testing.assert_close(demo.ask(features, points[3:4], labels[3:4])[0], together[3:4], atol=1e-4, rtol=1e-4)


def test_tower_and_prompter_of_the_demonstration_model_share_a_network(demo):
    tower = DemoSAMTower(**DEMO)
    assert tower.network is demo.tower.network and tower.fingerprint == demo.fingerprint
    assert tower.channels == {'neck': 32} and tower.strides == {'neck': 8}


def test_weights_of_another_trunk_are_refused(tmp_path):
    path = tmp_path / 'head.safetensors'
    torch.manual_seed(0)
    state = DemoSAMHead(**DEMO['model']).state_dict()
    save_checkpoint_file(path, state, dict(base_models={'EfficientNet-Lite0': '0' * 16}))
    with pytest.raises(ValueError, match=r'trained on the frozen network EfficientNet-Lite0 \(fingerprint 0{16}\)'):
        DemoSAMTower(path, model=DEMO['model'], trunk='random')
    save_checkpoint_file(path, state, {})
    tower = DemoSAMTower(path, model=DEMO['model'], trunk='random')
    assert torch.equal(tower.network.head.state_dict()['decoder.tokens.weight'], state['decoder.tokens.weight'])


def test_the_demonstration_model_stands_where_sam_stands():
    tower = dict(type='DemoSAMTower', **DEMO)
    model = frozen_seg(sam_tower=tower)
    with torch.no_grad():
        inputs = model.data_preprocessor(batch((64, 90)))
        embedding = model.sam_embedding(inputs['inputs'], inputs['data_samples'])
        assert embedding.shape == (1, 32, 32, 32)  # 256 pixels at stride 8
        model.test_step(batch((64, 90)))
