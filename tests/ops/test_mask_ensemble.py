from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import (
    IMPLEMENTATIONS,
    assert_same_labels,
    choose,
    compiled,
    geometries,
    implementation,  # noqa: F401
    naive_logits,
    naive_scores,
    random_probabilities,
    recorded,
    recorded_probabilities,
    smooth_logits,
)

from frozenmm.ops import loader, mask_bands
from frozenmm.ops.mask_ensemble import (
    MaskGeometry,
    encode_rle,
    mask_ensemble_instance,
    mask_ensemble_panoptic,
    mask_ensemble_semantic,
    mask_owners,
    pack_masks,
    unpack_masks,
)
from frozenmm.ops.mask_geometry import axis_taps

# ------------------------------------------------------------------------------------------------- geometry

@given(st.integers(1, 30), st.integers(1, 60), st.data())
@settings(deadline=None, max_examples=80)
def test_taps_equal_two_resizes(source, padded, data):
    image = data.draw(st.integers(1, padded))
    output = data.draw(st.integers(1, 60))
    line = torch.randn(source, generator=torch.Generator().manual_seed(source * 61 + output))
    # a square grid of equal rows makes the two-dimensional resize a one-dimensional one
    expected = naive_logits(line.expand(1, 1, source), MaskGeometry((1, padded), (1, image), (1, output)))[0, 0]
    taps = axis_taps(source, padded, image, output)
    assert taps.index.shape[1] <= 4
    torch.testing.assert_close((line[taps.index] * taps.weight).sum(1), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(taps.weight.sum(1), torch.ones(output))


def test_one_direct_resize_is_another_function():
    logits = smooth_logits(20, 16, 32, seed=0)
    geometry = MaskGeometry((64, 128), (60, 124), (90, 186))
    direct = F.interpolate(logits[None], (90, 186), mode='bilinear', align_corners=False)[0]
    assert (naive_logits(logits, geometry) - direct).abs().max() > 0.05


@pytest.mark.parametrize('sizes, error, message', [
    (((8, 8), (9, 8), (4, 4)), ValueError, 'image must fit into padded, but image=(9, 8) and padded=(8, 8)'),
    (((8, 8), (0, 8), (4, 4)), ValueError, 'image must be at least (1, 1), got (0, 8)'),
    (((8, 8), (8, 8), (4, 4, 4)), TypeError, 'output must be two integers (height, width), got (4, 4, 4)'),
    (((8, 8.0), (8, 8), (4, 4)), TypeError, 'padded must be two integers (height, width), got (8, 8.0)'),
    ((8, (8, 8), (4, 4)), TypeError, 'padded must be two integers (height, width), got 8'),
])
def test_bad_geometry_is_named(sizes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        MaskGeometry(*sizes)


# ------------------------------------------------------------------------------------------------- semantic

@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(1, 40), st.integers(1, 30), st.integers(1, 17), st.integers(1, 17),
       st.sampled_from(IMPLEMENTATIONS), st.integers(0, 2**16))
def test_any_geometry_agrees_with_the_naive_path(geometry, queries, classes, height, width, path, seed):
    if path != 'torch' and not compiled():
        path = 'torch'
    logits = smooth_logits(queries, height, width, seed)
    probabilities = random_probabilities(queries, classes, seed)
    reference = naive_scores(probabilities, logits, geometry)
    with pytest.MonkeyPatch.context() as monkeypatch:
        choose(path, monkeypatch)
        result = mask_ensemble_semantic(probabilities, logits, geometry)
        full = mask_ensemble_semantic(probabilities, logits, geometry, return_scores=True)
    assert_same_labels(result.labels, reference)
    torch.testing.assert_close(result.scores, reference.amax(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(full.class_scores, reference, atol=1e-4, rtol=1e-4)
    assert torch.equal(full.labels, full.class_scores.argmax(0))


@pytest.mark.parity
def test_recorded_semantic_case_agrees(implementation):  # noqa: F811
    _, tensors, tolerance = recorded('semantic_inference__five_classes')
    logits = tensors['in.mask_logits']
    probabilities = tensors['in.log_probs'].softmax(1)[:, :-1]
    result = mask_ensemble_semantic(probabilities, logits, MaskGeometry.resize_to(tuple(logits.shape[1:])),
                                    return_scores=True)
    torch.testing.assert_close(result.class_scores, tensors['out.scores'], **tolerance)
    assert_same_labels(result.labels, tensors['out.scores'])


@pytest.mark.parity
@pytest.mark.parametrize('name, geometry, order', [
    ('panoptic', MaskGeometry((48, 60), (45, 60), (30, 40)), 'masks'),
    ('semantic_only', MaskGeometry((48, 64), (46, 62), (23, 31)), 'scores'),
])
def test_recorded_end_to_end_scores_agree_in_both_orders(name, geometry, order, implementation):  # noqa: F811
    _, tensors, tolerance = recorded(f'eval_end_to_end__{name}')
    probabilities = recorded_probabilities(tensors, geometry, order)
    result = mask_ensemble_semantic(probabilities[:, :-1], tensors['out.pred_masks'][0], geometry, return_scores=True,
                                    order=order)
    torch.testing.assert_close(result.class_scores, tensors['out.sem_seg'], **tolerance)
    assert_same_labels(result.labels, tensors['out.sem_seg'])


def test_lowest_class_wins_a_tie(implementation):  # noqa: F811
    logits = smooth_logits(40, 9, 9, seed=3)
    half = random_probabilities(40, 30, seed=3)
    twice = torch.cat([half, half], dim=1)  # class k and k + 30 have the same weights, hence the same scores
    geometry = MaskGeometry.resize_to((37, 41))
    result = mask_ensemble_semantic(twice, logits, geometry)
    assert (result.labels < 30).all()
    assert torch.equal(result.labels, mask_ensemble_semantic(half, logits, geometry).labels)
    flat = mask_ensemble_semantic(torch.full((40, 7), 0.1), logits, geometry)
    assert (flat.labels == 0).all()


@pytest.mark.skipif(not compiled(), reason='the compiled CPU operators are not loaded')
@pytest.mark.parametrize('spread', ['peaked', 'even'])
def test_screening_leaves_every_bit_as_it_is(spread, monkeypatch):
    logits = smooth_logits(90, 12, 20, seed=4)
    logits = logits * 3 - 6 if spread == 'peaked' else logits
    probabilities = random_probabilities(90, 60, 4, 6.0 if spread == 'peaked' else 0.05)
    geometry = MaskGeometry((48, 80), (47, 77), (100, 150))
    for path in ('base', 'avx2', 'avx512', 'amx'):
        choose(path, monkeypatch)
        screened = mask_ensemble_semantic(probabilities, logits, geometry)
        full = mask_ensemble_semantic(probabilities, logits, geometry, return_scores=True)  # never screened
        assert torch.equal(screened.labels, full.labels)
        assert torch.equal(screened.scores, full.scores)
        if path == 'avx512':
            vector = screened
    assert torch.equal(screened.labels, vector.labels) and torch.equal(screened.scores, vector.scores)


def test_negative_weights_are_summed_in_full(implementation):  # noqa: F811
    generator = torch.Generator().manual_seed(5)
    probabilities, logits = torch.randn(40, 30, generator=generator), smooth_logits(40, 8, 8, seed=5)
    geometry = MaskGeometry.resize_to((32, 40))
    reference = naive_scores(probabilities, logits, geometry)
    result = mask_ensemble_semantic(probabilities, logits, geometry)
    torch.testing.assert_close(result.scores, reference.amax(0), atol=1e-4, rtol=1e-4)
    assert_same_labels(result.labels, reference, 1e-3)


def test_classes_of_no_weight_give_label_zero(implementation):  # noqa: F811
    result = mask_ensemble_semantic(torch.zeros(5, 40), smooth_logits(5, 8, 8, seed=6), MaskGeometry.resize_to((9, 9)))
    assert (result.labels == 0).all() and (result.scores == 0).all()


def test_nan_logits_give_label_zero_and_nan_score(implementation):  # noqa: F811
    logits = smooth_logits(6, 8, 8, seed=7)
    logits[2, 3, 4] = float('nan')
    geometry = MaskGeometry.resize_to((32, 32))
    result = mask_ensemble_semantic(random_probabilities(6, 30, 7), logits, geometry)
    spoilt = result.scores.isnan()
    assert spoilt.any() and not spoilt.all()
    assert torch.equal(spoilt, naive_logits(logits, geometry).isnan().any(0))
    assert (result.labels[spoilt] == 0).all()


def test_infinite_logits_are_certain_masks(implementation):  # noqa: F811
    logits = torch.full((2, 4, 4), -torch.inf)
    logits[0, :, :2] = torch.inf
    logits[1, :, 2:] = torch.inf
    result = mask_ensemble_semantic(torch.eye(2), logits, MaskGeometry.resize_to((4, 4)))
    assert torch.equal(result.labels, torch.tensor([[0, 0, 1, 1]] * 4))
    torch.testing.assert_close(result.scores, torch.ones(4, 4))


def test_score_order_equals_its_naive_form_in_groups_of_classes(implementation, monkeypatch):  # noqa: F811
    logits, probabilities = smooth_logits(12, 10, 12, seed=8), random_probabilities(12, 11, 8)
    geometry = MaskGeometry((40, 48), (37, 45), (60, 50))
    maps = naive_scores(probabilities, logits, MaskGeometry(geometry.padded, geometry.image, geometry.image))
    expected = F.interpolate(maps[None], geometry.output, mode='bilinear', align_corners=False)[0]
    monkeypatch.setattr(mask_bands, 'BAND_BYTES', 4 * 3 * (37 * 45 + 60 * 50))
    result = mask_ensemble_semantic(probabilities, logits, geometry, order='scores', return_scores=True)
    torch.testing.assert_close(result.class_scores, expected, atol=1e-5, rtol=1e-4)
    assert_same_labels(result.labels, expected)
    alone = mask_ensemble_semantic(probabilities, logits, geometry, order='scores')
    assert torch.equal(alone.labels, result.labels) and alone.class_scores is None


def test_bands_of_one_row_give_the_same_result(monkeypatch):
    choose('torch', monkeypatch)
    logits, probabilities = smooth_logits(7, 9, 9, seed=9), random_probabilities(7, 5, 9)
    geometry = MaskGeometry((36, 36), (33, 35), (50, 20))
    whole = mask_ensemble_semantic(probabilities, logits, geometry, return_scores=True)
    monkeypatch.setattr(mask_bands, 'BAND_BYTES', 1)
    rows = mask_ensemble_semantic(probabilities, logits, geometry, return_scores=True)
    assert_same_labels(rows.labels, whole.class_scores, 1e-6)
    torch.testing.assert_close(rows.class_scores, whole.class_scores)


@pytest.mark.skipif(not compiled(), reason='the compiled CPU operators are not loaded')
def test_threads_do_not_change_a_bit():
    logits, probabilities = smooth_logits(30, 16, 16, seed=10), random_probabilities(30, 20, 10)
    geometry = MaskGeometry((64, 64), (60, 64), (70, 90))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append((*mask_ensemble_semantic(probabilities, logits, geometry)[:2],
                            *mask_owners(probabilities[:, 0], logits, geometry),
                            *mask_ensemble_instance(probabilities, logits, geometry)[:-1]))
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results):
        assert torch.equal(one, three)


def test_strided_and_half_precision_inputs_are_taken(implementation):  # noqa: F811
    logits, probabilities = smooth_logits(6, 8, 10, seed=11), random_probabilities(6, 5, 11)
    geometry = MaskGeometry.resize_to((20, 30))
    expected = mask_ensemble_semantic(probabilities, logits, geometry)
    strided = mask_ensemble_semantic(probabilities.t().contiguous().t(), logits.transpose(1, 2).contiguous().mT,
                                     geometry)
    assert torch.equal(strided.labels, expected.labels)
    half = mask_ensemble_semantic(probabilities, logits.half(), geometry)
    assert half.scores.dtype == torch.float32
    torch.testing.assert_close(half.scores, expected.scores, atol=5e-3, rtol=5e-3)


# ------------------------------------------------------------------------------------------------- torch's machinery

def _semantic_arguments():
    return (random_probabilities(4, 3, 16), smooth_logits(4, 6, 7, seed=16), [24, 28], [23, 25], [30, 31], True)


def test_opcheck_accepts_the_operators():
    probabilities, logits, *geometry, scores = _semantic_arguments()
    ops = torch.ops.frozenmm
    torch.library.opcheck(ops.mask_ensemble_semantic.default, (probabilities, logits, *geometry, scores))
    torch.library.opcheck(ops.mask_ensemble_semantic.default, (probabilities, logits, *geometry, False))
    torch.library.opcheck(ops.mask_ensemble_panoptic.default, (probabilities[:, 0], logits, *geometry))
    torch.library.opcheck(ops.mask_ensemble_instance.default, (logits, torch.tensor([2, 0]), *geometry))
    bits = pack_masks(smooth_logits(2, 9, 11, seed=17) > 0)
    torch.library.opcheck(ops.mask_rle.default, (bits, 11), test_utils=('test_schema', 'test_faketensor'))


def test_compiles_as_one_graph_and_exports():
    probabilities, logits, padded, image, output, _ = _semantic_arguments()
    geometry = MaskGeometry(tuple(padded), tuple(image), tuple(output))

    def labels_and_owners(probabilities, logits):
        return (mask_ensemble_semantic(probabilities, logits, geometry)[:2],
                mask_owners(probabilities[:, 0], logits, geometry))

    expected = labels_and_owners(probabilities, logits)
    graph = torch.compile(labels_and_owners, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(graph(probabilities, logits), expected)

    class Labels(torch.nn.Module):
        def forward(self, probabilities, logits):
            return labels_and_owners(probabilities, logits)

    program = torch.export.export(Labels(), (probabilities, logits))
    torch.testing.assert_close(program.module()(probabilities, logits), expected)


# ------------------------------------------------------------------------------------------------- doors

GEOMETRY = MaskGeometry.resize_to((8, 8))
MAPS = torch.zeros(3, 4, 4)


@pytest.mark.parametrize('call, error, message', [
    (lambda: mask_ensemble_semantic(torch.rand(3), MAPS, GEOMETRY), ValueError,
     'mask_ensemble_semantic: probabilities must have shape (Q, K), got (3,)'),
    (lambda: mask_ensemble_semantic(torch.rand(3, 2), MAPS[0], GEOMETRY), ValueError,
     'mask_logits must have shape (Q, h, w), got (4, 4)'),
    (lambda: mask_ensemble_semantic(torch.rand(3, 0), MAPS, GEOMETRY), ValueError,
     'probabilities must have no empty axis, got shape (3, 0)'),
    (lambda: mask_ensemble_semantic(torch.rand(0, 2), MAPS[:0], GEOMETRY), ValueError,
     'probabilities must have no empty axis, got shape (0, 2)'),
    (lambda: mask_ensemble_semantic(torch.rand(2, 2), MAPS, GEOMETRY), ValueError,
     'probabilities has 2 entries along axis 0 but mask_logits has 3'),
    (lambda: mask_ensemble_semantic(torch.rand(3, 2, device='meta'), MAPS, GEOMETRY), ValueError,
     'probabilities is on meta but mask_logits on cpu'),
    (lambda: mask_ensemble_semantic([0.5], MAPS, GEOMETRY), TypeError,
     'probabilities must be a Tensor (Q, K), got list'),
    (lambda: mask_ensemble_semantic(torch.rand(3, 2), MAPS > 0, GEOMETRY), TypeError,
     'mask_logits must be floating point, got torch.bool'),
    (lambda: mask_ensemble_semantic(torch.rand(3, 2), MAPS, GEOMETRY, order='both'), ValueError,
     "order must be 'masks' or 'scores', got 'both'"),
    (lambda: mask_owners(torch.rand(3, 1), MAPS, GEOMETRY), ValueError, 'scores must have shape (Q,), got (3, 1)'),
    (lambda: mask_ensemble_panoptic(torch.rand(3, 1), MAPS, GEOMETRY, thing_classes=[]), ValueError,
     'probabilities must have a void column after at least one class'),
    (lambda: mask_ensemble_panoptic(torch.rand(3, 4), MAPS, GEOMETRY, thing_classes=[3]), ValueError,
     'thing_classes must lie in 0..2, got [3]'),
    (lambda: mask_ensemble_instance(torch.rand(3, 4), MAPS, GEOMETRY, top_k=0), ValueError,
     'top_k must be at least 1, got 0'),
    (lambda: mask_ensemble_instance(torch.rand(3, 4), MAPS, GEOMETRY, thing_classes=[4]), ValueError,
     'thing_classes must lie in 0..3, got [4]'),
    (lambda: unpack_masks(torch.zeros(2, 3, 1, dtype=torch.uint8), 9), ValueError,
     'unpack_masks: width 9 needs 2 bytes per row, but bits has 1'),
    (lambda: encode_rle(torch.zeros(3, 1, dtype=torch.uint8), 8), ValueError,
     'bits must have shape (N, H, ceil(W / 8)), got (3, 1)'),
    (lambda: encode_rle(torch.zeros(1, 3, 1), 8), ValueError, 'bits must be uint8'),
])
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.skipif(not compiled(), reason='the compiled CPU operators are not loaded')
@pytest.mark.parametrize('operator, arguments, message', [
    ('mask_ensemble_semantic', (torch.rand(3, 2).double(), MAPS, [8, 8], [8, 8], [8, 8], False),
     'mask_ensemble_semantic: probabilities must be float32'),
    ('mask_ensemble_semantic', (torch.rand(3, 2), MAPS[0], [8, 8], [8, 8], [8, 8], False),
     'mask_logits must have 3 axes, got 2'),
    ('mask_ensemble_semantic', (torch.rand(3, 2), MAPS, [8, 8], [9, 8], [8, 8], False), 'image at most padded'),
    ('mask_ensemble_semantic', (torch.rand(3, 2), MAPS, [8], [8, 8], [8, 8], False), 'must have two entries'),
    ('mask_ensemble_semantic', (torch.rand(2, 2), MAPS, [8, 8], [8, 8], [8, 8], False),
     'probabilities has 2 queries but mask_logits 3'),
    ('mask_ensemble_panoptic', (torch.rand(2), MAPS, [8, 8], [8, 8], [8, 8]), 'scores has 2 queries but mask_logits 3'),
    ('mask_ensemble_instance', (MAPS, torch.tensor([3]), [8, 8], [8, 8], [8, 8]), 'queries must lie in 0..2, got 3'),
    ('mask_ensemble_instance', (MAPS, torch.tensor([0.0]), [8, 8], [8, 8], [8, 8]),
     'queries must be a vector of int64'),
    ('mask_rle', (torch.zeros(1, 2, 1, dtype=torch.uint8), 9), 'width 9 does not belong to 1 bytes'),
    ('mask_rle', (torch.zeros(1, 2, 1), 8), 'bits must be uint8'),
])
def test_compiled_kernels_refuse_what_they_cannot_take(operator, arguments, message):
    with pytest.raises(RuntimeError, match=re.escape(message)):
        getattr(torch.ops.frozenmm, operator)(*arguments)


@pytest.mark.skipif(not compiled(), reason='the compiled CPU operators are not loaded')
def test_an_unknown_instruction_set_is_named(monkeypatch):
    monkeypatch.setenv('FROZENMM_CPU', 'neon')
    with pytest.raises(RuntimeError, match='FROZENMM_CPU must be base, avx2, avx512 or amx, got neon'):
        mask_ensemble_semantic(torch.rand(3, 2), MAPS, GEOMETRY)


def test_the_cuda_library_loads_and_registers_without_a_device():
    if not loader.library_path('cuda').exists():
        pytest.skip('the CUDA library is not built')
    names = ('mask_pool', 'mask_pool_backward', 'mask_ensemble_semantic', 'mask_ensemble_panoptic',
             'mask_ensemble_instance')
    program = (f'import torch, frozenmm.ops as ops; torch.ops.load_library({str(loader.library_path("cuda"))!r});'
               'has = torch._C._dispatch_has_kernel_for_dispatch_key;'
               f'assert all(has("frozenmm::" + name, "CUDA") for name in {names!r})')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
