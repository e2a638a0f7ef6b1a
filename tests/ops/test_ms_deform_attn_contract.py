from __future__ import annotations

import sys

import pytest
import torch
from attention_cases import Case, make_case
from torch import Tensor

from frozenmm.ops import loader, ms_deform_attn, ms_deform_attn_fused

OPS = torch.ops.frozenmm
definition = sys.modules['frozenmm.ops.ms_deform_attn']
native = pytest.mark.skipif(loader.backend('cpu') != 'native', reason='the CPU kernels are not built')


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


# ------------------------------------------------------------------------------------------- torch's machinery
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_opcheck_finds_nothing(dtype: torch.dtype) -> None:
    case = make_case(dtype=dtype, queries=4, channels=4)
    value, locations, weights = leaves(case.value, case.locations, case.weights)
    torch.library.opcheck(OPS.ms_deform_attn, (value, case.shapes, case.starts, locations, weights))
    reference, offsets, logits = leaves(case.reference, case.offsets, case.logits)
    torch.library.opcheck(OPS.ms_deform_attn_fused, (value, case.shapes, case.starts, reference, offsets, logits))
    checks = ('test_schema', 'test_faketensor')  # their own gradients are refused on purpose
    torch.library.opcheck(OPS.ms_deform_attn_bwd, (case.grad(), *case.plain, False), test_utils=checks)
    for wanted in (False, True):
        torch.library.opcheck(OPS.ms_deform_attn_fused_bwd, (case.grad(), *case.fused, wanted, True), test_utils=checks)


@pytest.mark.parametrize('run', [OPS.ms_deform_attn_fused_bwd, definition._backward_fused], ids=['operator', 'torch'])
def test_outputs_are_contiguous_whatever_the_inputs_are(run) -> None:
    case = make_case()
    case.logits = case.logits.transpose(1, 2).contiguous().transpose(1, 2)
    case.value = case.value.transpose(1, 2).contiguous().transpose(1, 2)
    case.offsets = case.offsets.transpose(1, 2).contiguous().transpose(1, 2)
    assert all(t.is_contiguous() for t in run(case.grad(), *case.fused, True, False))
    assert OPS.ms_deform_attn_fused(*case.fused).is_contiguous()


def test_whole_graph_compiles_with_gradients() -> None:
    case = make_case(queries=4, channels=4)

    def loss(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
        return ms_deform_attn_fused(2 * value, case.shapes, case.starts, reference, offsets, logits).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    eager, graph = (leaves(case.value, case.reference, case.offsets, case.logits) for _ in range(2))
    loss(*eager).backward()
    compiled(*graph).backward()
    for a, b in zip(eager, graph):
        torch.testing.assert_close(a.grad, b.grad)


def test_export_keeps_the_operator_and_a_dynamic_batch() -> None:

    class Net(torch.nn.Module):

        def forward(self, *inputs: Tensor) -> Tensor:
            return ms_deform_attn(*inputs)

    case, other = make_case(batch=2), make_case(batch=5, seed=1)
    batch = torch.export.Dim('batch', min=2, max=16)
    dynamic = ({0: batch}, {}, {}, {0: batch}, {0: batch})
    program = torch.export.export(Net(), case.plain, dynamic_shapes=(dynamic, ))
    assert 'frozenmm.ms_deform_attn.default' in str(program.graph)
    torch.testing.assert_close(program.module()(*other.plain), ms_deform_attn(*other.plain))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_autocast_keeps_the_values_and_makes_the_rest_float32(dtype: torch.dtype) -> None:
    case = make_case(dtype=dtype)
    half = case.weights.bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        out = ms_deform_attn(*case.plain[:4], half)
    assert out.dtype == dtype
    torch.testing.assert_close(out, ms_deform_attn(*case.plain[:4], half.float()))


# ---------------------------------------------------------------------------------------------------- errors
def changed(name: str, **changes: object) -> Case:
    case = make_case()
    setattr(case, name, changes['to'](getattr(case, name)))
    return case


@pytest.mark.parametrize('name, to, error, text', [
    ('value', lambda t: t[0], ValueError, r'value must have 4 axes \[B, S, H, D\], got \[49, 3, 16\]'),
    ('value', lambda t: t[:, :, :2], ValueError,
     r'sampling_locations must have shape \[2, 9, 2, 3, 3, 2\], got \[2, 9, 3, 3, 3, 2\]'),
    ('value', lambda t: t[..., :0], ValueError, 'heads, channels, levels and points must be at least 1'),
    ('value', lambda t: t.long(), TypeError, 'value must be float32, .* got torch.int64'),
    ('value', lambda t: t.double(), TypeError,
     r'sampling_locations must be torch.float64 \(value is torch.float64\)'),
    ('shapes', lambda t: t.int(), TypeError, 'spatial_shapes must be torch.int64 .* got torch.int32'),
    ('shapes', lambda t: t[:2], ValueError, r'spatial_shapes must have shape \[3, 2\], got \[2, 2\]'),
    ('starts', lambda t: t[:2], ValueError, r'level_start_index must have shape \[3\], got \[2\]'),
    ('locations', lambda t: t[..., :1], ValueError, r'sampling_locations must have shape \[B, Q, H, L, P, 2\]'),
    ('locations', lambda t: t.bfloat16(), TypeError, 'sampling_locations must be torch.float32 .* got torch.bfloat16'),
    ('weights', lambda t: t[..., :2], ValueError, r'attention_weights must have shape \[2, 9, 3, 3, 3\], got'),
    ('weights', lambda t: t.to('meta'), ValueError, 'attention_weights is on meta but value is on cpu'),
])
def test_plain_form_names_the_argument_and_what_it_expects(name: str, to, error: type, text: str) -> None:
    with pytest.raises(error, match=f'^ms_deform_attn: .*{text}'):
        ms_deform_attn(*changed(name, to=to).plain)


@pytest.mark.parametrize('name, to, error, text', [
    ('reference', lambda t: t[..., :1], ValueError,
     r'reference_points must have shape \[B, Q, L, 2\] or \[B, Q, L, 4\], got \[2, 9, 3, 1\]'),
    ('reference', lambda t: t[:, :, :2], ValueError,
     r'reference_points must have shape \[2, 9, 3, 2\], got \[2, 9, 2, 2\]'),
    ('offsets', lambda t: t[:, 1:], ValueError,
     r'attention_logits must have shape \[2, 8, 3, 9\], got \[2, 9, 3, 9\]'),
    ('offsets', lambda t: t.half(), TypeError, 'sampling_offsets must be torch.float32'),
    ('logits', lambda t: t[..., :8], ValueError,
     r'attention_logits must have shape \[2, 9, 3, 9\], got \[2, 9, 3, 8\]'),
])
def test_fused_form_names_the_argument_and_what_it_expects(name: str, to, error: type, text: str) -> None:
    with pytest.raises(error, match=f'^ms_deform_attn_fused: .*{text}'):
        ms_deform_attn_fused(*changed(name, to=to).fused)


@pytest.mark.parametrize('run', [OPS.ms_deform_attn, definition._forward], ids=['operator', 'torch path'])
@pytest.mark.parametrize('name, value, text', [
    ('shapes', [[7, 5], [4, 3], [1, 3]], 'ms_deform_attn: value has 49 rows but spatial_shapes add up to 50'),
    ('shapes', [[7, 5], [4, 3], [0, 2]], 'spatial_shapes must be positive, level 2 is 0 x 2'),
    ('starts', [0, 34, 47], 'level 1 must start at 35, got 34'),
])
def test_maps_that_do_not_describe_the_rows_are_an_error(run, name: str, value: list, text: str) -> None:
    case = make_case()
    setattr(case, name, torch.tensor(value))
    with pytest.raises(RuntimeError, match=text):
        run(*case.plain)


@native
@pytest.mark.parametrize('name, to, text', [
    ('value', lambda t: t[0], 'value must have 4 axes'),
    ('value', lambda t: t.long(), 'value must be float32, float64, float16 or bfloat16, got int64'),
    ('shapes', lambda t: t.int(), 'spatial_shapes must be int64, got int32'),
    ('locations', lambda t: t.double(), 'sampling_locations must be float32, got float64'),
    ('locations', lambda t: t[..., 0], 'sampling_locations must have 6 axes'),
    ('weights', lambda t: t[..., :2], r'attention_weights must have shape \[2, 9, 3, 3, 3\], got \[2, 9, 3, 3, 2\]'),
])
def test_the_compiled_operator_checks_for_itself(name: str, to, text: str) -> None:
    with pytest.raises(RuntimeError, match=f'ms_deform_attn: {text}'):
        OPS.ms_deform_attn(*changed(name, to=to).plain)


@native
def test_the_compiled_backward_checks_the_gradient() -> None:
    case = make_case()
    with pytest.raises(RuntimeError, match=r'ms_deform_attn_bwd: grad must have shape \[2, 9, 48\], got \[2, 8, 48\]'):
        OPS.ms_deform_attn_bwd(case.grad()[:, 1:], *case.plain, False)
