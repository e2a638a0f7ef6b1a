"""What the tests of the mask operators share: the naive procedure, inputs, and the choice of an implementation."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from frozenmm.ops.mask_geometry import MaskGeometry
from frozenmm.ops.mask_instance import InstanceMasks, instance_definition, rle_definition, unpack_masks
from frozenmm.ops.mask_panoptic import panoptic_definition
from frozenmm.ops.mask_pool import pool_backward_definition, pool_definition
from frozenmm.ops.mask_semantic import mask_ensemble_semantic, semantic_definition

GOLDEN = Path(__file__).parents[1] / 'golden' / 'fc_clip'
DEFINITIONS = {
    'mask_pool': pool_definition,
    'mask_pool_backward': pool_backward_definition,
    'mask_ensemble_semantic': semantic_definition,
    'mask_ensemble_panoptic': panoptic_definition,
    'mask_ensemble_instance': instance_definition,
    'mask_rle': rle_definition,
}
# The torch path, and each instruction set of the compiled one; a machine without one runs the next narrower.
IMPLEMENTATIONS = ('torch', 'base', 'avx2', 'avx512', 'amx')


def compiled() -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key('frozenmm::mask_ensemble_semantic', 'CPU')


def choose(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the public functions run one implementation."""
    if implementation == 'torch':
        for name, definition in DEFINITIONS.items():
            monkeypatch.setattr(torch.ops.frozenmm, name, definition)
    elif not compiled():
        pytest.skip('the compiled CPU operators are not loaded')
    else:
        monkeypatch.setenv('FROZENMM_CPU', implementation)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    choose(request.param, monkeypatch)
    return request.param


def naive_logits(mask_logits: Tensor, geometry: MaskGeometry) -> Tensor:
    """(Q, H, W) in two resizes, all of it in memory."""
    maps = F.interpolate(mask_logits[None], geometry.padded, mode='bilinear', align_corners=False)
    maps = maps[..., :geometry.image[0], :geometry.image[1]]
    if geometry.image != geometry.output:
        maps = F.interpolate(maps, geometry.output, mode='bilinear', align_corners=False)
    return maps[0]


def naive_scores(probabilities: Tensor, mask_logits: Tensor, geometry: MaskGeometry) -> Tensor:
    return torch.einsum('qk,qhw->khw', probabilities, naive_logits(mask_logits, geometry).sigmoid())


def assert_same_labels(labels: Tensor, reference_scores: Tensor, tolerance: float = 1e-4) -> None:
    """Labels equal the argmax of the reference wherever its two best scores differ by more than the tolerance."""
    reference = reference_scores.argmax(0)
    if reference_scores.shape[0] == 1:
        assert torch.equal(labels, reference)
        return
    first, second = reference_scores.topk(2, dim=0).values
    tie = first - second < tolerance * first.abs()
    wrong = (labels != reference) & ~tie
    assert not wrong.any(), f'{int(wrong.sum())} labels differ from the naive path outside ties'
    chosen = reference_scores.gather(0, labels[None])[0]
    assert ((first - chosen) <= tolerance * first.abs()).all()


def smooth_logits(queries: int, height: int, width: int, seed: int, scale: float = 4.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, queries, max(1, height // 4), max(1, width // 4), generator=generator) * scale
    return F.interpolate(coarse, (height, width), mode='bilinear', align_corners=False)[0].contiguous()


def random_probabilities(queries: int, classes: int, seed: int, temperature: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(queries, classes, generator=generator) * temperature).softmax(dim=1)


def recorded(name: str) -> tuple[dict, dict[str, Tensor], dict[str, float]]:
    """Parameters, tensors and tolerance of a recorded case."""
    case = json.loads((GOLDEN / name / 'case.json').read_text())
    return case['params'], load_file(GOLDEN / name / 'tensors.safetensors'), case['tolerance']


@st.composite
def geometries(draw: st.DrawFn) -> MaskGeometry:
    sizes = st.integers(1, 40)
    padded = (draw(sizes), draw(sizes))
    image = (draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1])))
    return MaskGeometry(padded, image, (draw(sizes), draw(sizes)))


def recorded_probabilities(tensors: dict[str, Tensor], geometry: MaskGeometry, order: str) -> Tensor:
    """The recorded network's (Q, K+1) probabilities, from its score maps: these are linear in them.

    The recorded logits are those before the ensemble with CLIP, which changes all columns but void.
    """
    logits = tensors['out.pred_masks'][0]
    maps = mask_ensemble_semantic(torch.eye(len(logits)), logits, geometry, return_scores=True, order=order)
    basis, scores = maps.class_scores.flatten(1).t().double(), tensors['out.sem_seg'].flatten(1).t().double()
    solved = torch.linalg.lstsq(basis, scores).solution
    # only the right geometry spans the recorded maps
    torch.testing.assert_close(basis @ solved, scores, atol=1e-5, rtol=1e-5)
    void = tensors['out.pred_logits'][0].softmax(1)[:, -1:]
    probabilities = torch.cat([solved.float(), void], dim=1)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(logits)), atol=1e-3, rtol=1e-3)
    return probabilities


def assert_same_instances(instances: InstanceMasks, scores: Tensor, labels: Tensor, masks: Tensor,
                          tolerance: dict[str, float]) -> None:
    """Instances equal recorded ones as a set: scores, labels and, but for a thousandth of the pixels, masks."""
    order, expected = instances.scores.argsort(descending=True), scores.argsort(descending=True)
    torch.testing.assert_close(instances.scores[order], scores[expected], **tolerance)
    assert torch.equal(instances.labels[order], labels[expected])
    found = unpack_masks(instances.bits, instances.size[1])[order]
    assert (found != masks[expected].bool()).float().mean() < 1e-3
