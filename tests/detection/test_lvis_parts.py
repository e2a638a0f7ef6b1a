"""What LVIS needs of a detector: the federated loss, and classes by words."""
from __future__ import annotations

import json

import pytest
import tiny_dino as tiny
import torch
from mmdet.models.losses import QualityFocalLoss

from frozenmm.detection.frozen_detr.federated_loss import FederatedQualityFocalLoss, image_counts
from frozenmm.detection.frozen_detr.text_branch import TextBranch, name_vectors
from frozenmm.foundation.text_embeddings import text_embeddings
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.registry import MODELS

TEXT = dict(type='frozenmm.CLIPTextTower', weights='random', model=dict(width=16, layers=1, heads=2, output_dim=12))
WORDS = ['cat, kitten', 'dog', 'bird']


def targets(rows=12, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (rows,), generator=generator) * 3
    labels[::3] = classes
    quality = torch.rand(rows, generator=generator) * (labels < classes)
    return torch.randn(rows, classes, generator=generator), (labels, quality)


def test_with_all_classes_it_is_quality_focal_loss():
    logits, target = targets()
    weight = torch.linspace(0, 1, len(logits))
    ours = FederatedQualityFocalLoss([5.0] * 6, num_classes=6, loss_weight=2.0)
    plain = QualityFocalLoss(use_sigmoid=True, beta=2.0, loss_weight=2.0)
    for reduction in 'mean', 'none', 'sum':
        factor = 3.0 if reduction == 'mean' else None
        torch.testing.assert_close(ours(logits, target, weight, factor, reduction),
                                   plain(logits, target, weight, factor, reduction))


def test_only_drawn_classes_count():
    logits, target = targets()
    loss = FederatedQualityFocalLoss([5.0] * 6, num_classes=3, reduction='sum')
    logits.requires_grad_()
    torch.manual_seed(0)
    loss(logits, target).backward()
    counted = (logits.grad != 0).any(0)
    assert counted.sum() == 3 and counted[[0, 3]].all()  # both targets and one other


def test_the_draw_follows_the_counts_and_never_takes_what_has_none():
    labels = torch.tensor([0, 6, 6])
    counts = [3.0, 0, 400, 100, 0, 4]
    loss = FederatedQualityFocalLoss(counts, num_classes=2)
    torch.manual_seed(0)
    drawn = torch.stack([loss.drawn_classes(labels) for _ in range(2000)]).float()
    share = drawn.mean(0)
    assert (drawn.sum(1) == 2).all() and share[0] == 1 and share[1] == share[4] == 0
    expected = torch.tensor(counts).sqrt()[[2, 3, 5]]
    torch.testing.assert_close(share[[2, 3, 5]], expected / expected.sum(), atol=0.04, rtol=0)
    many = FederatedQualityFocalLoss(counts, num_classes=50)
    assert many.drawn_classes(labels).tolist() == [True, False, True, True, False, True]


def test_officially_the_background_counts_as_a_class():
    labels, counts = torch.tensor([0, 6]), [1.0] * 6
    assert FederatedQualityFocalLoss(counts, num_classes=4).drawn_classes(labels).sum() == 4
    official = FederatedQualityFocalLoss(counts, num_classes=4, compat=True)
    assert official.drawn_classes(labels).sum() == 3 and official.drawn_classes(labels[:1]).sum() == 4
    crowded = FederatedQualityFocalLoss(counts, num_classes=2)
    assert crowded.drawn_classes(torch.arange(5)).sum() == 5


def test_counts_come_from_the_annotations(tmp_path):
    path = tmp_path / 'lvis.json'
    path.write_text(json.dumps(dict(categories=[dict(id=3, frequency='f', image_count=90),
                                                dict(id=1, frequency='r', image_count=2)])))
    assert image_counts(path).tolist() == [2, 90] and image_counts(path, ['r']).tolist() == [0, 90]
    assert FederatedQualityFocalLoss(str(path), without=['r']).counts.tolist() == [0, 90]
    assert 'counts' not in FederatedQualityFocalLoss(str(path)).state_dict()
    path.write_text('{"categories": [{"id": 1}]}')
    with pytest.raises(ValueError, match='not an annotation file of LVIS|annotation file of LVIS v1'):
        image_counts(path)


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='in how many images'):
        FederatedQualityFocalLoss([0.0, 0.0])
    with pytest.raises(ValueError, match='counts of 2 classes, but the head has 6'):
        FederatedQualityFocalLoss([1.0, 2.0])(*targets())


def test_names_are_vectors_and_synonyms_do_not_count():
    vectors = name_vectors(TEXT, WORDS, 'simple')
    expected = text_embeddings(MODELS.build(TEXT), Vocabulary.read(WORDS), 'simple')
    torch.testing.assert_close(vectors, expected[[0, 2, 3]])
    with pytest.raises(ValueError, match='needs a text tower'):
        name_vectors(dict(type='frozenmm.TinyTower'), WORDS)


def test_a_text_branch_begins_at_the_prior_and_officially_beside_it():
    vectors = name_vectors(TEXT, WORDS, 'simple')
    queries = torch.zeros(2, 5, 8)
    ours, official = TextBranch(8, vectors), TextBranch(8, vectors, compat=True)
    for branch in ours, official:
        branch.init_prior()
        assert branch.out_features == 3
    torch.testing.assert_close(ours(queries).sigmoid(), torch.full((2, 5, 3), 0.01))
    torch.testing.assert_close(official(queries)[0, 0], -4.59512 * vectors.sum(1), atol=1e-4, rtol=1e-4)
    assert set(official.state_dict()) == {'weight', 'bias'}
    queries = torch.randn(2, 5, 8)
    ours.load_state_dict(official.state_dict(), strict=True)  # an official file selects its own prior
    torch.testing.assert_close(ours(queries), official(queries))
    torch.testing.assert_close(official(queries), (queries @ official.weight.T + official.bias) @ vectors.T)


def test_a_detector_classifies_by_words_and_learns_from_a_part_of_them():
    config = tiny.enhanced(tiny.tiny(5, ('res4',)))
    config['bbox_head'].update(type='frozenmm.EnhancedDINOHead',
                               text_classifier=dict(text_tower=TEXT, vocabulary=WORDS, templates='simple'),
                               loss_cls=dict(type='frozenmm.FederatedQualityFocalLoss', counts=[9, 4, 1],
                                             num_classes=2))
    model = tiny.build(config)
    losses = tiny.losses(model, tiny.batch())
    sum(value.sum() for value in losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    branches = model.bbox_head.cls_branches
    assert all(isinstance(branch, TextBranch) and branch.weight.grad.any() for branch in branches)
    assert tiny.outputs(model, tiny.batch())[0].shape[-1] == 3
    config['bbox_head']['num_classes'] = 4
    with pytest.raises(ValueError, match='has 3 classes, but num_classes is 4'):
        tiny.build(config)
