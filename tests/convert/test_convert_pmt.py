"""Released PMT files of every variant become the same model; every key is accounted for."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity.cases import find_cases

import frozenmm  # noqa: F401  (before mmdet, so that the holes of the installation are filled)
from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.convert.command import convert_file
from frozenmm.convert.pmt import convert_pmt
from frozenmm.registry import MODELS

GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'pmt'


@pytest.fixture
def official():
    """A decoder-only state dict under the released names."""
    case = find_cases([GOLDEN / 'network_dinov3__eval'])[0].load()
    return {key: value for key, value in case.weights.items() if key.startswith('network.')}


def fused(state):
    """The variant with one projection to query, key and value."""
    result = {key: value for key, value in state.items()
              if not any(f'.{letter}_proj.' in key for letter in 'qkv')}
    for key in [key for key in state if key.endswith('q_proj.weight')]:
        start = key.removesuffix('q_proj.weight')
        bias = state[f'{start}q_proj.bias']
        result[f'{start}qkv_proj.weight'] = torch.cat([state[f'{start}{letter}_proj.weight'] for letter in 'qkv'])
        result[f'{start}qkv_proj.bias'] = torch.cat([bias, torch.zeros_like(bias), state[f'{start}v_proj.bias']])
    return result


def compiled(state):
    return {key.replace('.decoder.', '._orig_mod.decoder._orig_mod.'): value for key, value in state.items()}


def whole(state):
    """A training checkpoint of older code."""
    rest = {'network.encoder.backbone.norm.weight': torch.ones(2), 'network.decoder.pe.table': torch.ones(2),
            'network.bn_prefix.0.weight': torch.ones(2), 'network.bn_patch.0.weight': torch.ones(2),
            'network.rope.inv_freq': torch.ones(2), 'network._attn_mask_probs_fallback': torch.ones(2),
            'criterion.empty_weight': torch.ones(5)}
    return {**state, **rest}


VARIANTS = {'plain': lambda state: state, 'compiled': compiled, 'fused': fused, 'compiled and fused':
            lambda state: compiled(fused(state)), 'training checkpoint': lambda state: whole(compiled(fused(state)))}


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_becomes_the_same_model(official, tmp_path, variant):
    state = VARIANTS[variant](official)
    torch.save(dict(state_dict=state) if variant == 'training checkpoint' else state, tmp_path / 'pytorch_model.bin')
    report = convert_file('pmt', tmp_path / 'pytorch_model.bin', tmp_path / 'ours.safetensors')
    assert {*report.renamed, *report.dropped} == set(state) and not report.unmatched
    assert len(report.dropped) == (7 if variant == 'training checkpoint' else 0)
    found = load_checkpoint_file(tmp_path / 'ours.safetensors')['state_dict']
    expected, _ = convert_pmt(official)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    model = MODELS.build(dict(
        type='frozenmm.PlainMaskSegmentor', taps=[1, 3], classifier=dict(vocabulary=['a', 'b', 'c', 'd']),
        tower=dict(type='frozenmm.DINOv3Tower', weights='random', model=dict(embed_dim=32, depth=4, num_heads=2)),
        mask_generator=dict(num_heads=2, num_queries=6, num_blocks=2, hidden_channels=48)))
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert missing == ['image_tower.frozen_record'] or not missing
    assert not unexpected and model.mask_generator.compat


def test_other_files_are_refused(official):
    with pytest.raises(ValueError, match='1 keys do not belong to the layout of PMT: network.surprise'):
        convert_pmt({**official, 'network.surprise': torch.ones(1)})
    with pytest.raises(ValueError, match='`pmt` converts PMT, but its keys .* are not known'):
        convert_pmt({'what': torch.ones(1)})
    state = fused(official)
    state['network.decoder.blocks.0.attention.qkv_proj.bias'] = torch.ones(96)
    with pytest.raises(ValueError, match='has a bias of the keys that is not 0'):
        convert_pmt(state)
