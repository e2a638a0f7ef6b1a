from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import (
    IMPLEMENTATIONS,
    assert_same_instances,
    assert_same_labels,
    choose,
    compiled,
    geometries,
    implementation,  # noqa: F401
    naive_logits,
    recorded,
    recorded_probabilities,
    smooth_logits,
)

from frozenmm.ops.mask_ensemble import (
    MaskGeometry,
    mask_ensemble_instance,
    mask_ensemble_panoptic,
    mask_owners,
)
from frozenmm.ops.mask_panoptic import panoptic_definition


def _naive_owners(scores, logits, geometry):
    maps = naive_logits(logits, geometry)
    products = maps.sigmoid() * scores[:, None, None]
    owner = products.argmax(0)
    inside = maps >= 0
    return owner, inside.gather(0, owner[None])[0], inside, products


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(1, 30), st.integers(1, 15), st.integers(1, 15), st.sampled_from(IMPLEMENTATIONS),
       st.integers(0, 2**16))
def test_owners_agree_with_the_naive_path_for_any_geometry(geometry, queries, height, width, path, seed):
    if path != 'torch' and not compiled():
        path = 'torch'
    logits = smooth_logits(queries, height, width, seed)
    scores = torch.rand(queries, generator=torch.Generator().manual_seed(seed))
    owner, owner_inside, inside, products = _naive_owners(scores, logits, geometry)
    with pytest.MonkeyPatch.context() as monkeypatch:
        choose(path, monkeypatch)
        maps = mask_owners(scores, logits, geometry)
    assert_same_labels(maps.owner.long(), products)
    same = maps.owner == owner
    near_edge = naive_logits(logits, geometry).abs().amin(0) < 1e-4
    assert (maps.inside == owner_inside)[same & ~near_edge].all()
    assert torch.equal(maps.areas[:, 0], torch.bincount(maps.owner.flatten().long(), minlength=queries))
    assert torch.equal(maps.areas[:, 2],
                       torch.bincount(maps.owner[maps.inside].flatten().long(), minlength=queries))
    assert (maps.areas[:, 1] - inside.sum((1, 2))).abs().max() <= (naive_logits(logits, geometry).abs() < 1e-4).sum()


def _segments_of(table):
    return [tuple(row) for row in table.long().tolist()]


@pytest.mark.parity
@pytest.mark.parametrize('name', ['merges_stuff', 'none_kept', 'threshold'])
def test_recorded_panoptic_cases_agree(name, implementation):  # noqa: F811
    params, tensors, _ = recorded(f'panoptic_inference__{name}')
    logits = tensors['in.mask_logits']
    result = mask_ensemble_panoptic(
        tensors['in.log_probs'].softmax(1), logits, MaskGeometry.resize_to(tuple(logits.shape[1:])),
        thing_classes=params['thing_classes'], score_threshold=params['object_mask_threshold'],
        overlap_threshold=params['overlap_threshold'])
    assert torch.equal(result.ids, tensors['out.panoptic_seg'])
    assert [(s.id, int(s.is_thing), s.category) for s in result.segments] == _segments_of(tensors['out.segments'])
    for segment in result.segments:
        assert segment.area == int((result.ids == segment.id).sum())


@pytest.mark.parity
def test_recorded_end_to_end_panoptic_and_instances_agree(implementation):  # noqa: F811
    params, tensors, tolerance = recorded('eval_end_to_end__panoptic')
    geometry = MaskGeometry((48, 60), (45, 60), (30, 40))
    probabilities, logits = recorded_probabilities(tensors, geometry, 'masks'), tensors['out.pred_masks'][0]
    result = mask_ensemble_panoptic(
        probabilities, logits, geometry, thing_classes=params['thing_classes'],
        score_threshold=params['object_mask_threshold'], overlap_threshold=params['overlap_threshold'])
    assert (result.ids != tensors['out.panoptic_seg']).float().mean() < 2e-3
    assert [(s.id, int(s.is_thing), s.category) for s in result.segments] == \
        _segments_of(tensors['out.panoptic_segments'])
    instances = mask_ensemble_instance(probabilities[:, :-1], logits, geometry, top_k=params['topk'],
                                       thing_classes=params['thing_classes'])
    assert_same_instances(instances, tensors['out.instance_scores'], tensors['out.instance_labels'],
                           tensors['out.instance_masks'], tolerance)


def test_queries_with_negative_or_nan_scores_take_no_part(implementation):  # noqa: F811
    logits = smooth_logits(5, 8, 8, seed=12)
    scores = torch.tensor([0.5, -1.0, 0.7, float('nan'), 0.6])
    geometry = MaskGeometry.resize_to((30, 33))
    maps = mask_owners(scores, logits, geometry)
    keep = torch.tensor([0, 2, 4])
    few = mask_owners(scores[keep], logits[keep], geometry)
    assert torch.equal(maps.owner, keep.int()[few.owner])
    assert torch.equal(maps.areas[keep], few.areas)
    assert (maps.areas[[1, 3]] == 0).all()


def test_without_any_query_nobody_owns_a_pixel(implementation):  # noqa: F811
    maps = mask_owners(torch.full((4,), -1.0), smooth_logits(4, 5, 5, seed=13), MaskGeometry.resize_to((7, 9)))
    assert (maps.owner == -1).all() and not maps.inside.any() and (maps.areas == 0).all()


def test_lowest_query_owns_a_tie(implementation):  # noqa: F811
    logits = smooth_logits(3, 8, 8, seed=14)
    maps = mask_owners(torch.full((6,), 0.5), torch.cat([logits, logits]), MaskGeometry.resize_to((40, 40)))
    assert (maps.owner < 3).all()


def test_saturated_masks_tie_at_their_score(implementation):  # noqa: F811
    # the sigmoid of both is 1, so only the scores decide; the one at -200 loses without being computed
    logits = torch.tensor([60.0, 90.0, -200.0])[:, None, None].expand(3, 4, 4).contiguous()
    maps = mask_owners(torch.tensor([0.5, 0.5, 1.0]), logits, MaskGeometry.resize_to((8, 8)))
    assert (maps.owner == 0).all() and maps.inside.all()
    assert maps.areas.tolist() == [[64, 64, 64], [0, 64, 0], [0, 0, 0]]


def test_nan_logits_own_nothing(implementation):  # noqa: F811
    logits = smooth_logits(3, 6, 6, seed=15)
    logits[0] = float('nan')
    maps = mask_owners(torch.tensor([1.0, 0.1, 0.1]), logits, MaskGeometry.resize_to((12, 12)))
    assert (maps.owner > 0).all() and (maps.areas[0] == 0).all()


def test_stuff_joins_things_stay_apart_and_small_rests_are_dropped():
    logits = torch.full((5, 4, 8), -8.0)
    for query, columns in enumerate([slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8), slice(0, 8)]):
        logits[query, :, columns] = 8.0
    probabilities = torch.full((5, 4), 0.01)
    for query, (label, score) in enumerate([(2, 0.9), (0, 0.8), (2, 0.7), (0, 0.6), (1, 0.5)]):
        probabilities[query, label] = score
    result = mask_ensemble_panoptic(probabilities, logits, MaskGeometry.resize_to((4, 8)), thing_classes=[0, 1])
    assert result.ids[0].tolist() == [1, 1, 2, 2, 1, 1, 3, 3]
    assert result.segment_of_query.tolist() == [1, 2, 1, 3, 0]
    assert [(s.id, s.category, s.is_thing, s.area) for s in result.segments] == [
        (1, 2, False, 16), (2, 0, True, 8), (3, 0, True, 8)]


@pytest.mark.parametrize('run', [torch.ops.frozenmm.mask_ensemble_panoptic, panoptic_definition],
                         ids=['operator', 'torch path'])
def test_a_logit_of_zero_is_inside_and_a_score_of_zero_takes_part(run):
    owner, inside, areas = run(torch.tensor([0.0]), torch.tensor([[[0.0, -1.0]]]), [1, 2], [1, 2], [1, 2])
    assert owner.tolist() == [[0, 0]] and inside.tolist() == [[True, False]] and areas.tolist() == [[2, 1, 1]]


def test_thresholds_include_their_own_overlap_and_exclude_their_own_score():
    logits = torch.tensor([[[9.0, 9.0]], [[-9.0, 8.0]]])
    classes = torch.tensor([[0.5, 0.0, 0.5 - 1e-3], [0.0, 0.75, 0.25]])
    geometry = MaskGeometry.resize_to((1, 2))
    # the first query keeps one of its two pixels
    kept = mask_ensemble_panoptic(classes, logits, geometry, thing_classes=[0], overlap_threshold=0.5)
    assert kept.ids.tolist() == [[1, 2]]
    dropped = mask_ensemble_panoptic(classes, logits, geometry, thing_classes=[0], overlap_threshold=0.51)
    assert dropped.ids.tolist() == [[0, 1]]
    scored = mask_ensemble_panoptic(classes, logits, geometry, thing_classes=[0], overlap_threshold=0.5,
                                    score_threshold=0.75)
    assert scored.segments == []
