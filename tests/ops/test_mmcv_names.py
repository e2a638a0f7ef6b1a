"""Deformable attention under mmcv's names, called as its modules call it where values lie on an accelerator."""
from __future__ import annotations

import copy

import pytest
import torch
from attention_cases import Case, make_case
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor

from frozenmm.compat import mmcv_ext

pytestmark = pytest.mark.skipif(mmcv_ext.compiled_extension() is not None, reason='mmcv has compiled operators')
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends mmcv's module down the branch of devices that need compiled operators, on tensors of the CPU."""
    import mmcv.ops.multi_scale_deform_attn as source

    def refuse(*args: object) -> Tensor:
        raise AssertionError('mmcv\'s torch path ran')

    monkeypatch.setattr(source, 'IS_MLU_AVAILABLE', True)
    monkeypatch.setattr(Tensor, 'is_mlu', True, raising=False)
    monkeypatch.setattr(source, 'multi_scale_deformable_attn_pytorch', refuse)


def reference(case: Case, grad: Tensor) -> tuple[Tensor, ...]:
    """Output and gradients of mmcv's torch path in float64."""
    leaves = [t.double().requires_grad_() for t in (case.value, case.locations, case.weights)]
    out = multi_scale_deformable_attn_pytorch(leaves[0], case.shapes, *leaves[1:])
    return out.detach(), *torch.autograd.grad(out, leaves, grad.double())


@pytest.mark.parametrize('integers', [torch.int32, torch.int64])
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('channels', [4, 30, 32, 64, 71])  # of a head: among those of mmcv's own test
def test_mmcvs_function_gives_what_its_torch_path_gives(channels: int, dtype: torch.dtype,
                                                        integers: torch.dtype) -> None:
    case = make_case(batch=1, shapes=((6, 4), (3, 2)), queries=2, heads=2, points=2, channels=channels, dtype=dtype)
    # mmcv gives locations the type of the values; both sides start from those
    case.locations, case.weights = case.locations.to(dtype), case.weights.to(dtype)
    leaves = [t.requires_grad_() for t in (case.value, case.locations, case.weights)]
    out = MultiScaleDeformableAttnFunction.apply(leaves[0], case.shapes.to(integers), case.starts.to(integers),
                                                 *leaves[1:], 2)
    found = out, *torch.autograd.grad(out, leaves, case.grad().to(dtype))
    assert all(tensor.dtype == dtype for tensor in found)
    for ours, wanted in zip(found, reference(case, case.grad().to(dtype))):
        scale = wanted.abs().max().clamp(min=1)
        torch.testing.assert_close(ours.double() / scale, wanted / scale, atol=TOLERANCE[dtype], rtol=0)


def test_gradients_pass_gradcheck() -> None:
    case = make_case(batch=1, shapes=((6, 4), (3, 2)), queries=2, heads=2, points=2, channels=4, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (case.value, case.locations, case.weights)]
    assert torch.autograd.gradcheck(
        lambda value, x, w: MultiScaleDeformableAttnFunction.apply(value, case.shapes, case.starts, x, w, 2), leaves)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('box', [False, True])
def test_mmcvs_module_works_untouched_on_an_accelerator(box: bool, autocast: bool,
                                                        accelerator: None) -> None:
    case = make_case(queries=83, shapes=((7, 5), (4, 3), (2, 3)), box=box)
    module = MultiScaleDeformableAttention(embed_dims=48, num_heads=3, num_levels=3, num_points=3, batch_first=True)
    module.sampling_offsets.weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    plain = copy.deepcopy(module.eval())
    value = case.value.flatten(2).requires_grad_()
    arguments = dict(query=torch.randn(2, 83, 48, generator=torch.Generator().manual_seed(1)), value=value,
                     reference_points=case.reference, spatial_shapes=case.shapes, level_start_index=case.starts)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        out = module(**arguments)
    by_value, = torch.autograd.grad(out.float().sum(), value)
    from frozenmm.ops import accelerate
    assert accelerate(plain).replaced == ['']
    expected = plain(**arguments)
    wanted, = torch.autograd.grad(expected.sum(), value)
    tolerance = 5e-2 if autocast else 1e-5
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(by_value, wanted, atol=10 * tolerance, rtol=10 * tolerance)


def test_the_environment_report_of_mmcv_works_and_says_what_stands_in() -> None:
    from mmcv.utils import collect_env
    report = collect_env()
    assert 'frozenmm.ops serves its names' in report['MMCV Compiler']
    assert report['MMCV CUDA Compiler'] == 'not available'
