from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from attention_cases import make_case, sampled_by_loops
from safetensors.torch import load_file
from torch import Tensor

from frozenmm.ops import loader, ms_deform_attn

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
