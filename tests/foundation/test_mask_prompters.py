"""Points and boxes to masks, as SAM's own package answers them."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_sam import DECODER, ENCODER, official_sam

from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.mask_prompters import MaskPrompter, SAMPrompter, resize_matrix


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


def test_what_does_not_fit_is_refused(pair, picture):
    prompter = pair[1]
    features = embedded(prompter, np.tile(picture, (1, 2, 1)))
    with pytest.raises(ValueError, match=r'points must be \(N, K, 2\) and labels \(N, K\), got \(1, 2\) and \(1,\)'):
        prompter.ask(features, torch.zeros(1, 2), torch.ones(1))
    two = prompter.embed(torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match='prompts are for one image, got features of 2'):
        prompter.ask(two, torch.zeros(1, 1, 2), torch.ones(1, 1))
    with pytest.raises(ValueError, match="resize_mode='pad', got 'none'"):
        MaskPrompter(EfficientNetLiteTower('random', resize_mode='none'))
    with pytest.raises(ValueError, match="unknown SAM model 'vit_hh'; did you mean one of .'vit_h'"):
        SAMPrompter('vit_hh', 'random')
