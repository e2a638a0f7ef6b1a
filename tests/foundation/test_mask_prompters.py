"""Points and boxes to masks: SAM's own package, and the demonstration model."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_sam import DECODER, DEMO, ENCODER, official_sam

from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.demo.sam.network import DemoSAMHead
from frozenmm.demo.sam.tower import DemoSAMTower
from frozenmm.foundation.mask_prompters import DemoSAMPrompter, MaskPrompter, SAMPrompter, resize_matrix


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """The official predictor and our prompter with the same weights."""
    from segment_anything import SamPredictor
    path = tmp_path_factory.mktemp('sam') / 'small_sam.pth'
    model = official_sam(path)
    return SamPredictor(model), SAMPrompter(ENCODER, path, decoder=DECODER)


@pytest.fixture(scope='module')
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)


def embedded(prompter, picture):
    pixels = torch.from_numpy(picture).movedim(-1, 0)[None].float()
    return prompter.embed(pixels)


@pytest.mark.parametrize('single', [True, False])
def test_points_get_the_masks_of_the_official_package(pair, picture, single):
    predictor, prompter = pair
    predictor.set_image(picture)
    points, labels = torch.tensor([[[5.0, 9.0], [20.5, 40.0]], [[31.0, 0.0], [8.0, 63.0]]]), torch.tensor([[1, 0],
                                                                                                        [1, 1]])
    want, want_iou, _ = predictor.predict_torch(points, labels, multimask_output=not single, return_logits=True)
    features = embedded(prompter, picture)
    logits, predicted = prompter.ask(features, points, labels, single=single)
    torch.testing.assert_close(prompter.over_image(logits, features, (64, 32)), want, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(predicted, want_iou, atol=1e-4, rtol=1e-4)


def test_a_box_gets_the_mask_of_the_official_package(pair, picture):
    predictor, prompter = pair
    predictor.set_image(picture)
    box = torch.tensor([[3.0, 8.0, 30.0, 50.0]])
    want, want_iou, _ = predictor.predict_torch(None, None, boxes=box, multimask_output=False, return_logits=True)
    features = embedded(prompter, picture)
    logits, predicted = prompter.ask(features, box.view(1, 2, 2), torch.tensor([[2, 3]]), single=True)
    torch.testing.assert_close(prompter.over_image(logits, features, (64, 32)), want, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(predicted, want_iou, atol=1e-4, rtol=1e-4)


def test_two_resizes_with_a_cut_between_are_one_product(generator):
    logits = torch.randn(3, 16, 16, generator=generator)
    both = F.interpolate(logits[None], size=(64, 64), mode='bilinear')[..., :64, :40]
    both = F.interpolate(both, size=(50, 31), mode='bilinear')[0]
    product = resize_matrix(16, 64, 64, 50) @ logits @ resize_matrix(16, 64, 40, 31).T
    torch.testing.assert_close(product, both, atol=1e-5, rtol=1e-5)


def test_masks_keep_their_resolution_where_no_size_is_asked(pair, picture):
    prompter = pair[1]
    features = embedded(prompter, picture)
    assert prompter.over_image(torch.zeros(2, 16, 16), features).shape == (2, 16, 8)


def test_the_prompter_shares_the_encoder_with_the_tower_of_the_same_file(pair):
    assert pair[1].name.startswith('SAM custom') and '+' in pair[1].fingerprint
    assert not list(pair[1].parameters())


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


def test_what_does_not_fit_is_refused(demo, picture):
    features = embedded(demo, np.tile(picture, (1, 2, 1)))
    with pytest.raises(ValueError, match=r'points must be \(N, K, 2\) and labels \(N, K\), got \(1, 2\) and \(1,\)'):
        demo.ask(features, torch.zeros(1, 2), torch.ones(1))
    two = demo.embed(torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match='prompts are for one image, got features of 2'):
        demo.ask(two, torch.zeros(1, 1, 2), torch.ones(1, 1))
    with pytest.raises(ValueError, match="resize_mode='pad', got 'none'"):
        MaskPrompter(DemoSAMTower(**DEMO, resize_mode='none'))
    with pytest.raises(ValueError, match="unknown SAM model 'vit_hh'; did you mean one of .'vit_h'"):
        SAMPrompter('vit_hh', 'random')
