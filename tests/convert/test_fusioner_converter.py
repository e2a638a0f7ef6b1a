"""A Fusioner file in the official layout becomes the trained part of our segmentor; others are refused by name."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity.cases import find_cases

import frozenmm  # noqa: F401  (before mmseg, so that the holes of the installation are filled)
from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.convert.command import convert_file
from frozenmm.convert.identify import identify
from frozenmm.registry import MODELS

GOLDEN = Path(__file__).resolve().parents[1] / 'golden' / 'fusioner'


@pytest.fixture
def official():
    case = find_cases([GOLDEN / 'head_end_to_end__k1'])[0].load()
    towers = {'text_model.token_embedding.weight': torch.ones(3, 2), 'img_model.proj': torch.ones(2, 2)}
    return dict(case.weights) | towers, case.params


def test_the_trained_part_fits_the_segmentor_and_the_towers_are_dropped(official, tmp_path):
    state, _ = official
    torch.save(dict(model=state), tmp_path / 'official.pth')
    report = convert_file('fusioner', tmp_path / 'official.pth', tmp_path / 'ours.safetensors')
    assert set(report.dropped) == {'text_model.token_embedding.weight', 'img_model.proj'}
    ours = load_checkpoint_file(tmp_path / 'ours.safetensors')['state_dict']
    visual, text = (state[f'fusion.{name}_proj.0.weight'].numel() for name in ('visual', 'text'))
    layers = 1 + max(int(key.split('.')[2]) for key in state if key.startswith('fusion.blocks.'))
    head = MODELS.build(dict(
        type='frozenmm.FusionerHead', in_channels=visual, channels=state['fusion.proj_patch'].shape[0],
        fusion=dict(num_layers=layers, num_heads=2, num_class_rows=len(state['fusion.cls_emb'])), store_text=False,
        text_tower=dict(
            type='frozenmm.CLIPTextTower', weights='random', model=dict(width=16, layers=1, heads=2, output_dim=text))))
    missing, unexpected = torch.nn.ModuleDict(dict(decode_head=head)).load_state_dict(ours, strict=False)
    assert [key for key in missing if not key.endswith('frozen_record')] == [] and unexpected == []
    assert torch.equal(head.network.fusion.patch_projection, state['fusion.proj_patch'])


def test_the_layout_is_known_by_name_and_a_foreign_file_is_refused(official, tmp_path):
    state, _ = official
    assert identify(state) == 'Fusioner'
    torch.save({'visual.conv1.weight': torch.ones(1), 'token_embedding.weight': torch.ones(1),
                'logit_scale': torch.ones(1)}, tmp_path / 'clip.pth')
    with pytest.raises(ValueError, match='Fusioner'):
        convert_file('fusioner', tmp_path / 'clip.pth', tmp_path / 'ours.safetensors')
    assert not (tmp_path / 'ours.safetensors').exists()
