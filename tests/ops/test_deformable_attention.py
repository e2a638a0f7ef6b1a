from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from frozenmm.ops import MultiScaleDeformableAttention
from frozenmm.registry import MODELS

GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'fc_clip'
SHAPES = torch.tensor([[6, 8], [3, 4]])
STARTS = torch.tensor([0, 48])


def inputs(seed: int = 0, size: int = 2, batch: int = 2, channels: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return dict(query=torch.randn(5, batch, channels, generator=generator),
                value=torch.randn(60, batch, channels, generator=generator),
                query_pos=torch.randn(5, batch, channels, generator=generator),
                reference_points=torch.rand(batch, 5, 2, size, generator=generator),
                key_padding_mask=torch.rand(batch, 60, generator=generator) < 0.2,
                spatial_shapes=SHAPES, level_start_index=STARTS)


def pair(**options: object):
    """Our module and mmcv's with the same weights, away from the symmetric initial state."""
    from mmcv.ops import MultiScaleDeformableAttention as Foreign
    sizes = dict(embed_dims=16, num_heads=4, num_levels=2, num_points=3, **options)
    with torch.random.fork_rng():
        torch.manual_seed(3)  # mmcv's initialisation takes the process's generator
        theirs, ours = Foreign(**sizes), MultiScaleDeformableAttention(**sizes)
    generator = torch.Generator().manual_seed(3)
    for parameter in theirs.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


@pytest.mark.parity
@pytest.mark.parametrize('name', ['points', 'boxes'])
def test_recorded_cases_of_the_official_module_agree(name: str) -> None:
    folder = GOLDEN / f'ms_deform_attn_module__{name}'
    case, tensors = json.loads((folder / 'case.json').read_text()), load_file(folder / 'tensors.safetensors')
    module = MultiScaleDeformableAttention(**case['params'], batch_first=True, dropout=0.)
    module.load_state_dict({k.removeprefix('w.'): v for k, v in tensors.items() if k.startswith('w.')})
    given = {k.removeprefix('in.'): v for k, v in tensors.items() if k.startswith('in.')}
    out = module(given['query'], value=given['value'], identity=torch.zeros_like(given['query']),
                 key_padding_mask=given['padding_mask'], reference_points=given['reference_points'],
                 spatial_shapes=given['spatial_shapes'], level_start_index=given['level_start_index'])
    torch.testing.assert_close(out, tensors['out.output'], **case['tolerance'])


@pytest.mark.parametrize('size', [2, 4])
@pytest.mark.parametrize('batch_first', [False, True])
def test_outputs_and_gradients_equal_those_of_mmcv(size: int, batch_first: bool) -> None:
    results = []
    for module in pair(batch_first=batch_first):
        given = inputs(size=size)
        if batch_first:
            given.update({k: given[k].transpose(0, 1) for k in ('query', 'value', 'query_pos')})
        tensors = [given[k].requires_grad_() for k in ('query', 'value', 'reference_points')]
        out = module(**given)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in tensors), *(p.grad for p in module.parameters())])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)


def test_initial_weights_equal_those_of_mmcv_under_one_seed() -> None:
    from mmcv.ops import MultiScaleDeformableAttention as Foreign
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = Foreign(embed_dims=32, num_heads=4).state_dict()
        torch.manual_seed(1)
        ours = MultiScaleDeformableAttention(embed_dims=32, num_heads=4).state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, msg=name)


def test_module_is_built_from_an_mmcv_config() -> None:
    module = MODELS.build(dict(type='frozenmm.MultiScaleDeformableAttention', embed_dims=16, num_heads=2,
                               im2col_step=128, norm_cfg=None, value_proj_ratio=0.5))
    assert module.value_proj.out_features == 8 and module.output_proj.in_features == 8


def test_one_reference_point_serves_all_levels() -> None:
    ours, _ = pair()
    given = inputs()
    given['reference_points'] = given['reference_points'][:, :, :1]
    spread = dict(given, reference_points=given['reference_points'].expand(-1, -1, 2, -1))
    torch.testing.assert_close(ours(**given), ours(**spread))


def test_level_starts_are_computed_when_not_given() -> None:
    ours, _ = pair()
    given = inputs()
    torch.testing.assert_close(ours(**dict(given, level_start_index=None)), ours(**given))


def test_padding_has_no_influence() -> None:
    ours, _ = pair()
    given = inputs()
    other = dict(given, value=torch.where(given['key_padding_mask'].T[..., None], 1e6, given['value']))
    torch.testing.assert_close(ours(**given), ours(**other))


def test_autocast_runs_and_stays_near_float32() -> None:
    ours, _ = pair()
    given = inputs()
    exact = ours(**given)
    with torch.autocast('cpu', torch.bfloat16):
        out = ours(**given)
    assert 0 < (out.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_module_with_more_levels_than_maps_is_an_error() -> None:
    given = inputs()
    module = MultiScaleDeformableAttention(embed_dims=16, num_heads=4, num_levels=3)
    given['reference_points'] = given['reference_points'][:, :, :1]
    with pytest.raises(ValueError, match=r'spatial_shapes must have shape \[3, 2\], got \[2, 2\]'):
        module(**given)


def test_heads_that_do_not_divide_the_channels_are_an_error() -> None:
    with pytest.raises(ValueError, match='num_heads=3 must divide embed_dims=16'):
        MultiScaleDeformableAttention(embed_dims=16, num_heads=3)


def test_missing_reference_points_are_an_error() -> None:
    ours, _ = pair()
    with pytest.raises(ValueError, match='needs reference_points and spatial_shapes'):
        ours(**dict(inputs(), reference_points=None))


def test_reference_points_of_three_numbers_are_an_error() -> None:
    ours, _ = pair()
    with pytest.raises(ValueError, match=r'reference_points must have shape .* got \[2, 5, 2, 3\]'):
        ours(**inputs(size=3))
