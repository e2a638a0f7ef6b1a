from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import (
    IMPLEMENTATIONS,
    assert_same_instances,
    choose,
    compiled,
    geometries,
    implementation,  # noqa: F401
    naive_logits,
    random_probabilities,
    recorded,
    smooth_logits,
)

from frozenmm.ops.mask_ensemble import (
    MaskGeometry,
    encode_rle,
    mask_ensemble_instance,
    pack_masks,
    unpack_masks,
)


@pytest.mark.parity
def test_recorded_instance_case_agrees(implementation):  # noqa: F811
    params, tensors, tolerance = recorded('instance_inference__top12')
    logits = tensors['in.mask_logits']
    instances = mask_ensemble_instance(
        tensors['in.log_probs'].softmax(1)[:, :-1], logits, MaskGeometry.resize_to(tuple(logits.shape[1:])),
        top_k=params['topk'], thing_classes=params['thing_classes'])
    assert_same_instances(instances, tensors['out.scores'], tensors['out.labels'], tensors['out.masks'], tolerance)


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(1, 8), st.integers(1, 15), st.integers(1, 15), st.sampled_from(IMPLEMENTATIONS),
       st.integers(0, 2**16))
def test_instances_agree_with_the_naive_path_for_any_geometry(geometry, queries, height, width, path, seed):
    if path != 'torch' and not compiled():
        path = 'torch'
    logits, probabilities = smooth_logits(queries, height, width, seed), random_probabilities(queries, 3, seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        choose(path, monkeypatch)
        instances = mask_ensemble_instance(probabilities, logits, geometry, top_k=7)
    maps = naive_logits(logits, geometry)
    near_edge = maps.abs() < 1e-4
    masks = unpack_masks(instances.bits, geometry.output[1])
    assert masks.shape[1:] == geometry.output
    chosen = maps[instances.queries]
    assert ((masks == (chosen > 0)) | near_edge[instances.queries]).all()
    assert torch.equal(instances.areas, masks.sum((1, 2)))
    mean = (chosen.sigmoid() * masks).sum((1, 2)) / (instances.areas + 1e-6)
    torch.testing.assert_close(instances.scores, probabilities[instances.queries, instances.labels] * mean,
                               atol=1e-4, rtol=1e-4)
    for mask, box in zip(masks, instances.boxes.tolist()):
        ys, xs = mask.nonzero(as_tuple=True)
        expected = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1] if len(xs) else [0] * 4
        assert box == expected


def test_pairs_come_in_order_and_ties_by_query(implementation):  # noqa: F811
    probabilities = torch.tensor([[0.2, 0.5], [0.5, 0.2], [0.1, 0.9]])
    instances = mask_ensemble_instance(probabilities, torch.ones(3, 2, 2), MaskGeometry.resize_to((4, 4)), top_k=4)
    assert list(zip(instances.queries.tolist(), instances.labels.tolist())) == [(2, 1), (0, 1), (1, 0), (0, 0)]
    few = mask_ensemble_instance(probabilities, torch.ones(3, 2, 2), MaskGeometry.resize_to((4, 4)), top_k=3,
                                 thing_classes=[0])
    assert few.queries.tolist() == [1], 'classes are dropped after the best pairs are taken'


def test_no_thing_class_gives_no_instance(implementation):  # noqa: F811
    instances = mask_ensemble_instance(torch.rand(3, 2), torch.ones(3, 2, 2), MaskGeometry.resize_to((4, 9)),
                                       thing_classes=[])
    assert instances.bits.shape == (0, 4, 2) and instances.boxes.shape == (0, 4)
    assert encode_rle(instances.bits, 9) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 150), st.integers(1, 40), st.floats(0, 1), st.booleans(),
       st.integers(0, 2**16))
def test_run_lengths_are_those_of_pycocotools(count, height, width, filled, smooth, seed):
    coco = pytest.importorskip('pycocotools.mask')
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, height, width, generator=generator) < filled
    if smooth:
        masks = smooth_logits(count, height, width, seed) > 0
    bits = pack_masks(masks)
    assert torch.equal(unpack_masks(bits, width), masks)
    expected = [coco.encode(m.numpy().astype('uint8', order='F')) for m in masks]
    paths = ('torch', 'base') if compiled() else ('torch',)
    for path in paths:
        with pytest.MonkeyPatch.context() as monkeypatch:
            choose(path, monkeypatch)
            assert encode_rle(bits, width) == expected
