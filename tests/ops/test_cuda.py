"""The CUDA kernels against the definitions in torch: on a GPU, or on the emulated device of `.ci/cuda_on_cpu`.

Skipped where there is neither. On the emulated device the tensors stay on the CPU, whose operators are those kernels.
"""
from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from attention_cases import Case, make_case
from mask_cases import assert_same_labels, choose, naive_scores, random_probabilities, smooth_logits
from torch import Tensor

from frozenmm.ops import (
    MaskGeometry,
    backend,
    loader,
    mask_ensemble_instance,
    mask_ensemble_semantic,
    mask_owners,
    mask_pool,
    ms_deform_attn,
    ms_deform_attn_fused,
)

EMULATED = 'emulated' in loader.read_stamp('cpu') and backend('cpu') == 'native'
DEVICE = 'cpu' if EMULATED else 'cuda'
pytestmark = pytest.mark.skipif(not EMULATED and (not torch.cuda.is_available() or backend('cuda') != 'native'),
                                reason='neither a GPU with built kernels nor the emulated device')
needs_gpu = pytest.mark.skipif(EMULATED, reason='needs a real GPU')
# the emulation is a thousand times slower; 70 columns are a strip of each kernel and a part of the next
GEOMETRY = MaskGeometry((64, 96), (60, 90), (17, 70) if EMULATED else (121, 200))
OPS = torch.ops.frozenmm
definition = sys.modules['frozenmm.ops.ms_deform_attn']
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def on_gpu(case: Case) -> Case:
    return Case(**{name: tensor.to(DEVICE) for name, tensor in vars(case).items()})


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.device.type == DEVICE and found.dtype == expected.dtype
    scale = expected.double().abs().max().clamp(min=1)
    torch.testing.assert_close(found.cpu().double() / scale, expected.double() / scale, atol=tolerance, rtol=0)


# ---------------------------------------------------------------------------------------- deformable attention
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('channels', [1, 5, 8, 32, 33, 64, 128, 160])
@pytest.mark.parametrize('deterministic', [False, True])
def test_attention_agrees_with_the_definition_for_any_head_dimension(channels: int, dtype: torch.dtype,
                                                                     deterministic: bool) -> None:
    case = make_case(channels=channels, dtype=dtype)
    gpu, grad = on_gpu(case), case.grad()
    assert_near(OPS.ms_deform_attn(*gpu.plain), definition._forward(*case.plain), TOLERANCE[dtype])
    for found, wanted in zip(OPS.ms_deform_attn_bwd(grad.to(DEVICE), *gpu.plain, deterministic),
                             definition._backward(grad, *case.plain, False)):
        assert_near(found, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize('points', [1, 4, 16])
@pytest.mark.parametrize('box', [False, True], ids=['points', 'boxes'])
@pytest.mark.parametrize('deterministic', [False, True])
def test_fused_attention_agrees_with_the_definition(points: int, box: bool, deterministic: bool) -> None:
    case = make_case(points=points, box=box, channels=32)
    gpu, grad = on_gpu(case), case.grad()
    assert_near(OPS.ms_deform_attn_fused(*gpu.fused), definition._forward_fused(*case.fused), 2e-5)
    for found, wanted in zip(OPS.ms_deform_attn_fused_bwd(grad.to(DEVICE), *gpu.fused, True, deterministic),
                             definition._backward_fused(grad, *case.fused, True, False)):
        assert_near(found, wanted, 2e-5)


def test_values_that_start_between_sixteen_byte_borders_agree() -> None:
    case = make_case(channels=32)
    gpu = on_gpu(case)
    shifted = torch.empty(gpu.value.numel() + 1, device=DEVICE)[1:].view(gpu.value.shape).copy_(gpu.value)
    assert shifted.data_ptr() % 16
    assert_near(OPS.ms_deform_attn(shifted, *gpu.plain[1:]), definition._forward(*case.plain), 2e-5)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -1e30])
def test_samples_without_a_place_are_dropped(bad: float) -> None:
    case = make_case()
    case.locations[:, 2, 1, 0, 1, 0] = bad
    clean = case.weights.clone()
    clean[:, 2, 1, 0, 1] = 0
    expected = definition._forward(*case.plain[:4], clean)
    assert_near(OPS.ms_deform_attn(*on_gpu(case).plain), expected, 2e-5)


@pytest.mark.parametrize('box', [False, True])
def test_gradients_pass_gradcheck(box: bool) -> None:
    gpu = on_gpu(make_case(batch=1, shapes=((3, 2), (1, 2)), queries=2, heads=1, points=1, channels=2,
                           dtype=torch.float64, box=box))
    leaves = [t.requires_grad_() for t in (gpu.value, gpu.locations, gpu.weights)]
    assert torch.autograd.gradcheck(lambda v, x, w: ms_deform_attn(v, gpu.shapes, gpu.starts, x, w), leaves,
                                    nondet_tol=1e-10)
    leaves = [t.requires_grad_() for t in (gpu.value, gpu.reference, gpu.offsets, gpu.logits)]
    assert torch.autograd.gradcheck(lambda v, *rest: ms_deform_attn_fused(v, gpu.shapes, gpu.starts, *rest), leaves,
                                    nondet_tol=1e-10)


def test_deterministic_mode_gives_the_same_bits_again() -> None:
    queries = 20 if EMULATED else 400
    gpu = on_gpu(make_case(shapes=((20, 20), (10, 10)), queries=queries, heads=8, channels=32))
    grad = gpu.grad().to(DEVICE)
    first = OPS.ms_deform_attn_bwd(grad, *gpu.plain, True)
    for _ in range(1 if EMULATED else 5):
        assert all(torch.equal(a, b) for a, b in zip(first, OPS.ms_deform_attn_bwd(grad, *gpu.plain, True)))


@needs_gpu
def test_forward_and_backward_are_captured_in_a_graph() -> None:
    gpu = on_gpu(make_case(queries=50, channels=32))
    leaves = [t.requires_grad_() for t in (gpu.value, gpu.locations, gpu.weights)]
    grad = gpu.grad().to(DEVICE)

    def step() -> list[Tensor]:
        out = ms_deform_attn(leaves[0], gpu.shapes, gpu.starts, *leaves[1:])
        return [out, *torch.autograd.grad(out, leaves, grad)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        leaves[0].copy_(torch.randn_like(leaves[0]))
    graph.replay()
    for found, wanted in zip(captured, step()):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(('shapes', 'starts'), [
    ([[7, 5], [2**32, 2**32], [1, 2]], [0, 35, 47]), ([[-7, 5], [4, 3], [1, 2]], [0, 35, 47]),
    ([[7, 5], [4, 3], [1, 2**62]], [0, 35, 47]), ([[7, 5], [4, 3], [1, 2]], [-8, 35, 48])])
def test_levels_outside_the_values_are_never_read(shapes: list[list[int]], starts: list[int]) -> None:
    """Numbers that only the device reads are refused there: samples of such a level are dropped."""
    case = make_case()
    weights = case.weights.clone()
    for level, ((h, w), start) in enumerate(zip(shapes, starts)):
        if not (0 < h <= 49 and 0 < w <= 49 and 0 <= start and start + h * w <= 49):
            weights[:, :, :, level] = 0
    gpu = on_gpu(case)
    bad = torch.tensor(shapes, device=DEVICE), torch.tensor(starts, device=DEVICE)
    assert_near(OPS.ms_deform_attn(gpu.value, *bad, gpu.locations, gpu.weights),
                definition._forward(*case.plain[:4], weights), 2e-5)
    for deterministic in (False, True):
        by_value = OPS.ms_deform_attn_bwd(case.grad().to(DEVICE), gpu.value, *bad, gpu.locations, gpu.weights,
                                          deterministic)[0]
        assert_near(by_value, definition._backward(case.grad(), *case.plain[:4], weights, False)[0], 2e-5)


def test_lengths_beyond_64_bits_are_refused() -> None:
    sys.path.append(str(Path(__file__).parents[1] / 'hardening'))
    from test_operators import refuse_lengths
    refuse_lengths(DEVICE)


def test_no_queries_give_an_empty_result_and_zero_gradients() -> None:
    gpu = on_gpu(make_case(queries=0))
    assert OPS.ms_deform_attn(*gpu.plain).shape == (2, 0, 48)
    by_value, by_location, _ = OPS.ms_deform_attn_bwd(gpu.grad().to(DEVICE), *gpu.plain, False)
    assert by_value.shape == gpu.value.shape and not by_value.any() and by_location.numel() == 0


@needs_gpu
def test_tensors_of_two_devices_are_refused() -> None:
    case = make_case()
    with pytest.raises(ValueError, match='spatial_shapes is on cpu but value is on cuda'):
        ms_deform_attn(case.value.to(DEVICE), *case.plain[1:])


# ----------------------------------------------------------------------------------------------------- masks
@pytest.mark.parametrize('queries, classes', [(1, 1), (20, 7), (250, 150), (300, 1203)])
def test_labels_equal_the_naive_path_outside_ties(queries: int, classes: int) -> None:
    logits, probabilities = smooth_logits(queries, 16, 24, 0), random_probabilities(queries, classes, 1)
    found = mask_ensemble_semantic(probabilities.to(DEVICE), logits.to(DEVICE), GEOMETRY)
    assert_same_labels(found.labels.cpu(), naive_scores(probabilities, logits, GEOMETRY))


def test_owners_and_areas_equal_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, scores = smooth_logits(40, 16, 24, 2), torch.rand(40, generator=torch.Generator().manual_seed(3))
    found = mask_owners(scores.to(DEVICE), logits.to(DEVICE), GEOMETRY)
    choose('torch', monkeypatch)
    expected = mask_owners(scores, logits, GEOMETRY)
    assert (found.owner.cpu() != expected.owner).float().mean() < 1e-4
    torch.testing.assert_close(found.areas.cpu().double(), expected.areas.double(), atol=3, rtol=1e-3)


def test_instances_equal_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, probabilities = smooth_logits(30, 16, 24, 4), random_probabilities(30, 10, 5)
    found = mask_ensemble_instance(probabilities.to(DEVICE), logits.to(DEVICE), GEOMETRY)
    choose('torch', monkeypatch)
    expected = mask_ensemble_instance(probabilities, logits, GEOMETRY)
    torch.testing.assert_close(found.scores.cpu(), expected.scores, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.labels.cpu(), expected.labels)
    assert (found.bits.cpu() != expected.bits).float().mean() < 1e-3


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_pooling_and_its_gradient_equal_the_definition(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(2, 33, 16, 24, generator=generator, dtype=dtype)
    logits = torch.stack([smooth_logits(12, 32, 48, seed) for seed in (7, 8)]).to(dtype)
    results = []
    for device in (DEVICE, 'cpu'):
        if results:
            choose('torch', monkeypatch)
        leaf = features.detach().to(device).requires_grad_()
        pooled = mask_pool(leaf, logits.to(device))
        pooled.square().sum().backward()
        results.append((pooled.detach().cpu(), leaf.grad.cpu()))
    for found, wanted in zip(*results):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
