from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attention_cases import make_case, sampled_by_loops
from safetensors.torch import load_file
from torch import Tensor

from frozenmm.ops import loader, ms_deform_attn, ms_deform_attn_fused

OPS = torch.ops.frozenmm
GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'fc_clip'
definition = sys.modules['frozenmm.ops.ms_deform_attn']
native = pytest.mark.skipif(loader.backend('cpu') != 'native', reason='the CPU kernels are not built')

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.dtype == expected.dtype
    scale = expected.double().abs().max().clamp(min=1)
    torch.testing.assert_close(actual.double() / scale, expected.double() / scale, atol=tolerance, rtol=0)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


# ------------------------------------------------------------------------------------------------ the values
@pytest.mark.parity
@pytest.mark.parametrize('name', ['three_levels', 'one_level_odd_head'])
def test_recorded_cases_of_the_official_code_agree(name: str) -> None:
    folder = GOLDEN / f'ms_deform_attn__{name}'
    case, tensors = json.loads((folder / 'case.json').read_text()), load_file(folder / 'tensors.safetensors')
    inputs = {k.removeprefix('in.'): v for k, v in tensors.items() if k.startswith('in.')}
    value, locations, weights = leaves(inputs['value'], inputs['sampling_locations'], inputs['attention_weights'])
    out = ms_deform_attn(value, inputs['spatial_shapes'], inputs['level_start_index'], locations, weights)
    out.backward(inputs['grad_output'])
    found = {'output': out, 'grad_value': value.grad, 'grad_sampling_locations': locations.grad,
             'grad_attention_weights': weights.grad}
    for key in case['outputs']:
        torch.testing.assert_close(found[key], tensors[f'out.{key}'], **case['tolerance'])


@pytest.mark.parametrize('run', [ms_deform_attn, definition._forward], ids=['operator', 'torch path'])
def test_output_is_the_sum_that_the_paper_defines(run) -> None:
    case = make_case(batch=1, queries=4, channels=5, dtype=torch.float64)
    assert_near(run(*case.plain), sampled_by_loops(case), 1e-12)


@native
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('channels', [1, 4, 5, 8, 16, 17, 24, 32, 64, 100, 128, 160])
def test_kernels_agree_with_the_torch_path_for_any_head_dimension(channels: int, dtype: torch.dtype) -> None:
    case = make_case(channels=channels, dtype=dtype)
    grad = case.grad()
    assert_near(OPS.ms_deform_attn(*case.plain), definition._forward(*case.plain), TOLERANCE[dtype])
    for found, wanted in zip(OPS.ms_deform_attn_bwd(grad, *case.plain, False),
                             definition._backward(grad, *case.plain, False)):
        assert_near(found, wanted, TOLERANCE[dtype])


@native
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('box', [False, True], ids=['points', 'boxes'])
def test_fused_kernels_agree_with_the_torch_path(box: bool, dtype: torch.dtype) -> None:
    case = make_case(box=box, dtype=dtype)
    grad = case.grad()
    assert_near(OPS.ms_deform_attn_fused(*case.fused), definition._forward_fused(*case.fused), TOLERANCE[dtype])
    for found, wanted in zip(OPS.ms_deform_attn_fused_bwd(grad, *case.fused, True, False),
                             definition._backward_fused(grad, *case.fused, True, False)):
        assert_near(found, wanted, TOLERANCE[dtype])


@native
@pytest.mark.parametrize('points', [1, 4, 6, 16])
@pytest.mark.parametrize('shapes', [((3, 4), ), ((9, 2), (1, 1), (2, 7), (3, 3), (1, 5), (2, 2), (4, 1), (1, 1))])
@pytest.mark.parametrize('box', [False, True])
def test_any_number_of_levels_and_points_agrees(shapes: tuple[tuple[int, int], ...], points: int, box: bool) -> None:
    case = make_case(shapes=shapes, points=points, box=box, queries=3)
    grad = case.grad()
    assert_near(OPS.ms_deform_attn_fused(*case.fused), definition._forward_fused(*case.fused), 2e-5)
    for found, wanted in zip(OPS.ms_deform_attn_fused_bwd(grad, *case.fused, True, False),
                             definition._backward_fused(grad, *case.fused, True, False)):
        assert_near(found, wanted, 2e-5)


@native
@pytest.mark.parametrize('queries', [1, 60], ids=['few queries read the tensor', 'many queries pack it'])
def test_both_ways_of_reading_values_agree_with_the_torch_path(queries: int) -> None:
    case = make_case(shapes=((30, 30), ), queries=queries, points=40, channels=32)
    assert_near(OPS.ms_deform_attn(*case.plain), definition._forward(*case.plain), 2e-5)


def test_fused_form_equals_the_plain_form_on_explicit_locations_and_softmax() -> None:
    for box in (False, True):
        case = make_case(box=box)
        if box:
            shift = case.offsets / 3 * case.reference[:, :, None, :, None, 2:] * 0.5
        else:
            shift = case.offsets / case.shapes.flip(-1)[None, None, None, :, None]
        locations = case.reference[:, :, None, :, None, :2] + shift
        weights = case.logits.softmax(-1).view(locations.shape[:-1])
        expected = ms_deform_attn(*case.plain[:3], locations, weights)
        torch.testing.assert_close(ms_deform_attn_fused(*case.fused), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('size', [2e-4, 3e-3], ids=['float16', 'bfloat16'])
def test_sixteen_bit_values_cost_only_their_own_rounding(size: float) -> None:
    dtype = torch.float16 if size < 1e-3 else torch.bfloat16
    case = make_case(shapes=((128, 128), ), queries=200, dtype=torch.float32)
    exact = ms_deform_attn(*case.plain)
    out = ms_deform_attn(case.value.to(dtype), *case.plain[1:])
    assert out.dtype == dtype
    error = ((out.double() - exact.double()).square().mean() / exact.double().square().mean()).sqrt()
    assert error < 1.5 * size


# ------------------------------------------------------------------------------------------- awkward numbers
@pytest.mark.parametrize('run', [OPS.ms_deform_attn, definition._forward], ids=['operator', 'torch path'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 1e30, -1e30, 3e38])
def test_samples_without_a_place_are_dropped(run, bad: float) -> None:
    case = make_case()
    clean = case.weights.clone()
    case.locations[:, 2, 1, 0, 1, 0] = bad
    case.locations[:, 3, 2, 1, 0, 1] = bad
    clean[:, 2, 1, 0, 1] = 0
    clean[:, 3, 2, 1, 0] = 0
    expected = definition._forward(*case.plain[:4], clean)
    torch.testing.assert_close(run(*case.plain), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize('run', [OPS.ms_deform_attn, definition._forward], ids=['operator', 'torch path'])
def test_the_weight_of_a_dropped_point_is_not_read(run) -> None:
    case = make_case(batch=1, queries=2, heads=1, points=2)
    case.locations[0, 1, 0, :, 0] = -3.0
    case.weights[0, 1, 0, :, 0] = 0.0
    expected = run(*case.plain)
    case.weights[0, 1, 0, :, 0] = float('nan')
    torch.testing.assert_close(run(*case.plain), expected)


@pytest.mark.parametrize('run', [OPS.ms_deform_attn_bwd, definition._backward], ids=['operator', 'torch path'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -5.0])
def test_dropped_samples_have_zero_gradient(run, bad: float) -> None:
    case = make_case()
    case.locations[0, 2, 1, 0] = 0.4
    case.locations[0, 2, 1, 0, 1] = bad
    _, by_location, by_weight = run(case.grad(), *case.plain, False)
    assert by_location[0, 2, 1, 0, 1].tolist() == [0, 0] and by_weight[0, 2, 1, 0, 1] == 0
    assert by_location[0, 2, 1, 0, 0].abs().sum() > 0


@native
def test_nan_elsewhere_in_the_values_stays_where_it_is_read() -> None:
    case = make_case(batch=1, shapes=((4, 4), ), queries=2, heads=1, points=1)
    case.locations[:] = torch.tensor([[0.125, 0.125], [0.9, 0.9]]).view(1, 2, 1, 1, 1, 2)  # cell (0, 0); lower right
    case.value[0, 15] = float('nan')
    out = OPS.ms_deform_attn(*case.plain)
    assert out[0, 0].isfinite().all() and out[0, 1].isnan().all()


@native
def test_infinite_logits_behave_as_in_softmax() -> None:
    case = make_case()
    case.logits[0, 0, 0, 1] = -float('inf')
    case.logits[0, 1, 0] = -float('inf')
    case.logits[0, 2, 0, 3] = float('nan')
    out, expected = OPS.ms_deform_attn_fused(*case.fused), definition._forward_fused(*case.fused)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize('batch, queries', [(0, 3), (2, 0)])
def test_empty_inputs_give_empty_outputs_and_zero_gradients(batch: int, queries: int) -> None:
    case = make_case(batch=batch, queries=queries)
    value, locations, weights = leaves(case.value, case.locations, case.weights)
    out = ms_deform_attn(value, case.shapes, case.starts, locations, weights)
    assert out.shape == (batch, queries, 48)
    out.sum().backward()
    assert value.grad.shape == value.shape and not value.grad.any()
    assert OPS.ms_deform_attn_fused(*case.fused).shape == (batch, queries, 48)
    by_value, by_location, by_weight = definition._backward(torch.zeros(batch, queries, 48), *case.plain, False)
    assert not by_value.any() and by_location.shape == locations.shape and by_weight.shape == weights.shape


def test_non_contiguous_inputs_give_the_same_result() -> None:
    case = make_case()
    expected = ms_deform_attn(*case.plain)

    def scattered(t: Tensor) -> Tensor:
        return t.transpose(0, -1).contiguous().transpose(0, -1)

    out = ms_deform_attn(scattered(case.value), scattered(case.shapes), case.starts, scattered(case.locations),
                         scattered(case.weights))
    torch.testing.assert_close(out, expected)


# ----------------------------------------------------------------------------------------------- derivatives
@pytest.mark.parametrize('box', [None, False, True], ids=['plain', 'points', 'boxes'])
def test_gradcheck_in_double(box: bool | None) -> None:
    case = make_case(batch=1, queries=2, heads=2, channels=3, points=2, shapes=((3, 2), (2, 2)), dtype=torch.float64,
                     box=bool(box), seed=4)
    if box is None:
        inputs = leaves(case.value, case.locations, case.weights)
        assert torch.autograd.gradcheck(lambda v, *r: ms_deform_attn(v, case.shapes, case.starts, *r), inputs)
    else:
        inputs = leaves(case.value, case.reference, case.offsets, case.logits)
        assert torch.autograd.gradcheck(lambda v, *r: ms_deform_attn_fused(v, case.shapes, case.starts, *r), inputs)


def test_gradients_equal_autograd_of_grid_sample() -> None:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    case = make_case(queries=30, channels=32)
    ours, theirs = (leaves(case.value, case.locations, case.weights) for _ in range(2))
    ms_deform_attn(ours[0], case.shapes, case.starts, *ours[1:]).backward(case.grad())
    multi_scale_deformable_attn_pytorch(theirs[0], case.shapes, *theirs[1:]).backward(case.grad())
    for a, b in zip(ours, theirs):
        assert_near(a.grad, b.grad, 1e-5)


def test_reference_points_without_gradient_cost_nothing_and_change_nothing() -> None:
    case = make_case()
    by_value, by_reference, *rest = OPS.ms_deform_attn_fused_bwd(case.grad(), *case.fused, False, False)
    assert by_reference.numel() == 0
    again = OPS.ms_deform_attn_fused_bwd(case.grad(), *case.fused, True, False)
    for a, b in zip((by_value, *rest), (again[0], *again[2:])):
        assert torch.equal(a, b)


def test_second_derivatives_are_refused() -> None:
    case = make_case(dtype=torch.float64)
    value, = leaves(case.value)
    out = ms_deform_attn(value, *case.plain[1:])
    first, = torch.autograd.grad(out.square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiable once'):
        torch.autograd.grad(first.sum(), value)


@native
@pytest.mark.parametrize('heads', [1, 8], ids=['fewer heads than threads', 'more heads than threads'])
@pytest.mark.parametrize('channels', [5, 32, 64])
def test_results_have_the_same_bits_for_any_number_of_threads(heads: int, channels: int) -> None:
    case = make_case(batch=1, heads=heads, channels=channels, queries=500)
    grad = case.grad()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append([OPS.ms_deform_attn(*case.plain), *OPS.ms_deform_attn_bwd(grad, *case.plain, False),
                            OPS.ms_deform_attn_fused(*case.fused),
                            *OPS.ms_deform_attn_fused_bwd(grad, *case.fused, True, False)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@native
def test_few_queries_of_a_large_map_have_the_same_bits_for_any_number_of_threads() -> None:
    case = make_case(batch=1, shapes=((100, 100), (50, 50)), heads=8, channels=32, queries=100)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(OPS.ms_deform_attn(*case.plain))
    finally:
        torch.set_num_threads(before)
    assert_near(results[0], definition._forward(*case.plain), 2e-5)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


# ------------------------------------------------------------------------------------------- instruction sets
@native
@pytest.mark.parametrize('level', ['base', 'avx2'])
def test_kernels_of_other_instruction_sets_agree(level: str) -> None:
    script = (
        'import sys, torch; sys.path.insert(0, sys.argv[1])\n'
        'from attention_cases import make_case\n'
        'import frozenmm.ops\n'
        'd = sys.modules["frozenmm.ops.ms_deform_attn"]; ops = torch.ops.frozenmm\n'
        'for channels in (5, 8, 16, 24, 32, 96):\n'
        '  for dtype in (torch.float32, torch.float64, torch.bfloat16):\n'
        '    for box in (False, True):\n'
        '      c = make_case(channels=channels, dtype=dtype, box=box, points=5)\n'
        '      tol = {torch.float32: 3e-5, torch.float64: 1e-12, torch.bfloat16: 4e-2}[dtype]\n'
        '      pairs = [(ops.ms_deform_attn(*c.plain), d._forward(*c.plain)),\n'
        '               (ops.ms_deform_attn_fused(*c.fused), d._forward_fused(*c.fused)),\n'
        '               *zip(ops.ms_deform_attn_bwd(c.grad(), *c.plain, False),\n'
        '                    d._backward(c.grad(), *c.plain, False)),\n'
        '               *zip(ops.ms_deform_attn_fused_bwd(c.grad(), *c.fused, True, False),\n'
        '                    d._backward_fused(c.grad(), *c.fused, True, False))]\n'
        '      for a, b in pairs:\n'
        '        torch.testing.assert_close(a.double(), b.double(), atol=tol * max(1, b.abs().max().item()), rtol=0)\n'
        'print("agrees")\n')
    done = subprocess.run([sys.executable, '-c', script, str(Path(__file__).parent)], capture_output=True, text=True,
                          env={**os.environ, 'FROZENMM_CPU': level, 'FROZENMM_OPS': 'native'})
    assert done.returncode == 0 and 'agrees' in done.stdout, done.stderr[-2000:]
