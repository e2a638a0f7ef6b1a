"""SAM's masks: stored, mapped to CLIP's grid, and voting in the semantic result."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from frozenmm.ops import MaskGeometry
from frozenmm.segmentation.frozen_seg import proposal_ensemble as module
from frozenmm.segmentation.frozen_seg.mask_files import SAMMaskFolder, read_masks, write_masks
from frozenmm.segmentation.frozen_seg.proposal_ensemble import SAMVotes, kept_masks, proposal_ensemble
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks, masks_on_map, masks_on_map_compat

SEEN = torch.tensor([True, False, False, True])


def scene(generator, masks=5):
    return dict(probabilities=torch.rand(6, 4, generator=generator),
                mask_logits=torch.randn(6, 8, 12, generator=generator),
                geometry=MaskGeometry((32, 48), (30, 40), (45, 60)), seen=SEEN,
                votes=SAMVotes(3 * torch.randn(masks, 45, 60, generator=generator),
                               torch.rand(masks, 4, generator=generator)))


def query_masks(given):
    padded = F.interpolate(given['mask_logits'][None], size=(32, 48), mode='bilinear', align_corners=False)
    return F.interpolate(padded[..., :30, :40], size=(45, 60), mode='bilinear', align_corners=False)[0].sigmoid()


def test_unseen_classes_hear_sam_and_seen_classes_do_not(generator):
    given = scene(generator)
    result = proposal_ensemble(**given, return_scores=True)
    queries = torch.einsum('qk,qhw->khw', given['probabilities'], query_masks(given))
    sam = given['votes']
    kept = (sam.probabilities[:, 1:3] > 0.5).any(1)
    assert 0 < kept.sum() < 5
    votes = torch.einsum('mk,mhw->khw', sam.probabilities[kept], sam.logits[kept].sigmoid())
    expected = torch.where(SEEN[:, None, None], queries, 0.8 * queries + 0.2 * votes)
    torch.testing.assert_close(result.class_scores, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(result.labels, result.class_scores.argmax(0))


@pytest.mark.parametrize('order', ['masks', 'scores'])
def test_groups_of_classes_change_nothing(generator, monkeypatch, order):
    given = scene(generator)
    whole = proposal_ensemble(**given, order=order, return_scores=True)
    monkeypatch.setattr(module, '_GROUP_BYTES', 1)
    groups = proposal_ensemble(**given, order=order, return_scores=True)
    torch.testing.assert_close(whole.class_scores, groups.class_scores, atol=1e-5, rtol=1e-5)
    assert torch.equal(whole.labels, groups.labels)


def test_without_masks_the_plain_result_comes_out(generator):
    given = scene(generator)
    plain = proposal_ensemble(**dict(given, votes=None), return_scores=True)
    empty = dict(given, votes=SAMVotes(torch.zeros(0, 45, 60), torch.zeros(0, 4)))
    assert torch.equal(plain.class_scores, proposal_ensemble(**empty, return_scores=True).class_scores)


@pytest.mark.parametrize('always, factor', [(True, 0.8), (False, 1.0)])
def test_unseen_classes_are_scaled_even_without_votes_unless_told_otherwise(generator, always, factor):
    given = scene(generator)
    plain = proposal_ensemble(**dict(given, votes=None), return_scores=True).class_scores
    votes = replace(given['votes'], threshold=2.0, compat=always)
    scaled = proposal_ensemble(**dict(given, votes=votes), return_scores=True).class_scores
    torch.testing.assert_close(scaled[1], factor * plain[1])
    torch.testing.assert_close(scaled[0], plain[0])


def test_only_unseen_classes_keep_a_mask():
    probabilities = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.1, 0.6, 0.2, 0.0], [0.0, 0.5, 0.3, 0.2]])
    assert kept_masks(probabilities, SEEN).tolist() == [False, True, False]


def test_numbers_that_do_not_fit_are_refused(generator):
    with pytest.raises(ValueError, match='5 SAM masks but 4 rows of probabilities'):
        SAMVotes(torch.zeros(5, 4, 4), torch.rand(4, 4))


def masks(generator, count=4):
    logits = torch.randn(count, 16, 20, generator=generator)
    logits[1] += 2
    return SAMMasks(logits, (33, 41), torch.linspace(0.1, 0.9, count))


def test_stored_masks_come_back_at_image_size(generator, tmp_path):
    made = masks(generator)
    write_masks(tmp_path / 'street.safetensors', made)
    assert [path.name for path in tmp_path.iterdir()] == ['street.safetensors']
    back = SAMMaskFolder(tmp_path).load('elsewhere/street.jpg')
    assert back.size == (33, 41) and back.full().shape == (4, 33, 41) and back.full().dtype == torch.float32
    areas = (back.logits > 0).sum((1, 2))
    assert areas.tolist() == sorted(areas.tolist(), reverse=True)
    expected = F.interpolate(made.largest().logits.half().float()[:, None], size=(33, 41), mode='bilinear')[:, 0]
    torch.testing.assert_close(back.full(), expected)


def test_the_best_masks_have_the_highest_predicted_iou(generator, tmp_path):
    write_masks(tmp_path / 'street.safetensors', masks(generator))
    best = SAMMaskFolder(tmp_path, choice='best', count=2).load('street.png')
    torch.testing.assert_close(best.predicted_iou, torch.tensor([0.9, 0.6333]), atol=1e-3, rtol=0)
    assert len(SAMMaskFolder(tmp_path, count=3).load('street.png').logits) == 3


def test_an_image_without_any_mask_is_stored_as_such(tmp_path):
    write_masks(tmp_path / 'void.safetensors', SAMMasks(torch.zeros(0, 4, 4), (8, 8)))
    assert SAMMaskFolder(tmp_path).load('void.png').full().shape == (0, 8, 8)


def test_missing_and_damaged_files_say_which(tmp_path):
    folder = SAMMaskFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'no SAM masks were prepared for the image a/street.jpg: .*street'):
        folder.load('a/street.jpg')
    (tmp_path / 'street.safetensors').write_bytes(b'not a file of tensors')
    with pytest.raises(ValueError, match='street.safetensors cannot be read as prepared SAM masks'):
        read_masks(tmp_path / 'street.safetensors')
    with pytest.raises(FileNotFoundError, match='nowhere does not exist; prepare the masks first'):
        SAMMaskFolder(tmp_path / 'nowhere')


def test_impossible_masks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'must be floating point \(M, h, w\), got torch.bool'):
        SAMMasks(torch.zeros(1, 4, 4, dtype=torch.bool), (4, 4))
    with pytest.raises(ValueError, match='2 SAM masks but 1 predicted IoUs'):
        SAMMasks(torch.zeros(2, 4, 4), (4, 4), torch.zeros(1))
    with pytest.raises(ValueError, match='these SAM masks carry no predicted IoU'):
        SAMMasks(torch.zeros(2, 4, 4), (4, 4)).best()
    with pytest.raises(ValueError, match="choice must be 'largest' or 'best', got 'all'"):
        SAMMaskFolder(tmp_path, choice='all')


def test_masks_land_on_the_part_of_the_map_that_shows_the_image():
    logits = torch.full((1, 40, 60), -1.0)
    logits[:, :, 30:] = 1.0  # the right half of the image
    mapped = masks_on_map(logits, (4, 8), image=(96, 128), padded=(128, 256))[0] > 0
    assert mapped.tolist() == [[False, False, True, True] + [False] * 4] * 3 + [[False] * 8]
    squeezed = masks_on_map_compat(logits, (4, 8), 32)
    assert squeezed.shape == (1, 32, 32) and (squeezed[0, :4, :8] > 0).tolist() == [[False] * 4 + [True] * 4] * 4
    assert not squeezed[:, 4:].any() and not squeezed[..., 8:].any()
