"""Official files become ours, and files of other systems are refused by name."""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from parity.cases import adapters_of, find_cases
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import frozenmm  # noqa: F401  (before mmdet, so that the holes of the installation are filled)
from frozenmm.compat.checkpoint import load_checkpoint_file, save_checkpoint_file
from frozenmm.convert.clip import convert_clip
from frozenmm.convert.command import convert_file
from frozenmm.convert.dinov2 import convert_dinov2
from frozenmm.convert.frozen_detr import COCO_IDS, convert_frozen_detr
from frozenmm.convert.identify import identify, weights_of
from frozenmm.foundation.image_towers.clip import CLIPTower
from frozenmm.foundation.image_towers.dinov2 import DINOv2Tower
from frozenmm_command import main

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / 'tests' / 'golden' / 'frozen_detr'


def recorded(name):
    return find_cases([GOLDEN / name])[0].load()


@pytest.fixture
def official():
    """The state dict of an official file: the recorded weights, aliases, backbone and foundation weights."""
    state = dict(recorded('dino_eval__clip_dinov2_b1').weights)
    state |= {f'transformer.decoder.{key}': value.clone() for key, value in state.items()
              if key.startswith(('bbox_embed.', 'class_embed.'))}
    return state | {'backbone.0.body.conv1.weight': torch.randn(4, 3, 7, 7), 'foundation_model.proj': torch.ones(2),
                    'dinov2.cls_token': torch.ones(2)}


def test_an_official_file_loads_and_selects_the_official_numerics(tmp_path, official):
    torch.save(dict(model=official, args=argparse.Namespace(lr=1e-4), epoch=11), tmp_path / 'official.pth')
    report = convert_file('frozen_detr', tmp_path / 'official.pth', tmp_path / 'ours.safetensors', classes=91)
    assert len(report.renamed) + len(report.aliases) + len(report.dropped) == len(official)
    assert set(report.dropped) == {'foundation_model.proj', 'dinov2.cls_token'}
    assert all(key.startswith('transformer.decoder.') for key in report.aliases) and report.aliases
    state = load_checkpoint_file(tmp_path / 'ours.safetensors')['state_dict']
    head = dict(type='frozenmm.EnhancedDINOHead', num_classes=7, embed_dims=32, loss_cls=dict(
        type='mmdet.FocalLoss', use_sigmoid=True), train_cfg=None, test_cfg=dict(max_per_img=3))
    case = recorded('dino_eval__clip_dinov2_b1')
    model = adapters_of('frozen_detr')._detector(case.params, bbox_head=head)
    assert model.bbox_head.reference_eps == 1e-5 and model.bbox_head.clip_boxes
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert [key for key in missing if not key.endswith('frozen_record')] == []
    assert unexpected == ['backbone.conv1.weight']  # the case has no backbone of its own
    again = adapters_of('frozen_detr')._detector(case.params, bbox_head=head)
    again.load_state_dict(model.state_dict())
    for loaded in model, again:
        assert loaded.bbox_head.reference_eps == 1e-3 and not loaded.bbox_head.clip_boxes
        assert all(enhancer.tower.compat for enhancer in loaded.enhancers)


def test_plain_official_dino_converts_and_the_additions_are_reported(official):
    plain = {key: value for key, value in official.items()
             if not key.startswith(('patch_token_proj', 'foundation_model', 'dinov2')) and 'image_query' not in key}
    assert identify(plain) == 'official DINO'
    state, report = convert_frozen_detr(plain, classes=91)
    assert not report.dropped and 'level_embed' in state and not any('image_queries' in key for key in state)


def test_80_classes_are_the_rows_of_the_coco_ids(official):
    rows = torch.arange(92.0)[:, None].expand(92, 32)
    for key in list(official):
        if 'class_embed' in key:
            official[key] = rows[:91] if key.endswith('weight') else rows[:91, 0]
    official['label_enc.weight'] = rows
    state, _ = convert_frozen_detr(official)  # the default, of the command too
    assert len(COCO_IDS) == 80 and state['bbox_head.cls_branches.0.bias'].tolist() == list(COCO_IDS)
    assert state['dn_query_generator.label_embedding.weight'][:, 0].tolist() == list(COCO_IDS)
    kept, _ = convert_frozen_detr(official, classes=91)
    assert kept['dn_query_generator.label_embedding.weight'].shape == (91, 32)


def test_bad_class_numbers_are_refused(official):
    with pytest.raises(ValueError, match='classes must be 80'):
        convert_frozen_detr(official, classes=90)
    with pytest.raises(ValueError, match='has 7 rows, so it is not made for the 91 ids of COCO'):
        convert_frozen_detr(official)


def test_unequal_aliases_and_unknown_keys_are_refused(official):
    with pytest.raises(ValueError, match='both become bbox_head.cls_branches.0.bias'):
        convert_frozen_detr(official | {'transformer.decoder.class_embed.0.bias': torch.zeros(7)}, classes=91)
    with pytest.raises(ValueError, match='1 keys do not belong .* transformer.surprise'):
        convert_frozen_detr(official | {'transformer.surprise': torch.zeros(1)})


@pytest.mark.parametrize('keys,name', [
    (['bbox_head.cls_branches.0.weight', 'memory_trans_fc.weight', 'query_embedding.weight'], 'mmdet DINO'),
    (['visual.conv1.weight', 'token_embedding.weight', 'logit_scale'], 'OpenAI CLIP'),
    (['blocks.0.ls1.gamma', 'patch_embed.proj.weight', 'cls_token', 'mask_token'], 'DINOv2'),
    (['image_encoder.pos_embed', 'prompt_encoder.x', 'mask_decoder.x'], 'SAM'),
    (['sem_seg_head.predictor.x', 'backbone.clip_model.visual.x'], 'FC-CLIP'),
    (['query_head.transformer.level_embeds'], 'Frozen-DETR, mmdet-2.x fork')])
def test_files_of_other_systems_are_refused_by_name(keys, name):
    with pytest.raises(ValueError, match=f'this is a file of {name}'):
        convert_frozen_detr(dict.fromkeys(keys, torch.zeros(1)))


def test_unknown_files_are_refused_with_their_keys():
    with pytest.raises(ValueError, match=r'its keys \(what, ...\) are not known'):
        convert_frozen_detr(dict(what=torch.zeros(1)))
    with pytest.raises(ValueError, match='no weights in the checkpoint'):
        weights_of(dict(epoch=3))


def test_prefixes_and_containers_are_taken_off():
    weight = torch.ones(1)
    assert weights_of(dict(model={'module.a': weight}, args=None)) == dict(a=weight)


def test_clip_gives_its_image_encoder(tmp_path):
    weights = recorded('clip_multi_class_token__t5_g6').weights
    text = {'token_embedding.weight': torch.ones(2, 2), 'logit_scale': torch.ones(()), 'ln_final.bias': torch.ones(2),
            'transformer.resblocks.0.ln_1.bias': torch.ones(2), 'positional_embedding': torch.ones(2, 2),
            'text_projection': torch.ones(2, 2), 'context_length': torch.tensor(77)}
    torch.save(text | {f'visual.{key}': value.half() for key, value in weights.items()}, tmp_path / 'clip.pt')
    report = convert_file('clip', tmp_path / 'clip.pt', tmp_path / 'image.safetensors')
    assert set(report.dropped) == set(text)
    tower = CLIPTower(dict(input_resolution=24, patch_size=4, width=32, layers=2, heads=4, output_dim=24),
                      tmp_path / 'image.safetensors')
    assert torch.equal(tower.network.proj, weights['proj'].half().float())
    assert convert_clip(weights)[0].keys() == weights.keys()


@pytest.mark.parametrize('wrapped', [False, True], ids=['published', 'training'])
def test_dinov2_gives_its_vit(tmp_path, wrapped):
    weights = recorded('dinov2_patch_map__native').weights
    state = dict(weights)
    if wrapped:
        state = {f'backbone.{key.replace("blocks.0.", "blocks.0.0.")}': value for key, value in weights.items()}
        state = {'teacher': state | {'dino_head.mlp.bias': torch.ones(1)}}
    converted, report = convert_dinov2(weights_of(state))
    assert converted.keys() == weights.keys() and len(report.dropped) == int(wrapped)
    save_checkpoint_file(tmp_path / 'vit.safetensors', converted, {})
    DINOv2Tower(dict(img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2), tmp_path / 'vit.safetensors')


def test_the_file_has_a_header_and_appears_complete_or_not_at_all(tmp_path, official):
    save_file(official, tmp_path / 'in.safetensors')
    target = tmp_path / 'out.safetensors'
    convert_file('frozen_detr', tmp_path / 'in.safetensors', target, classes=91)
    with safe_open(target, 'pt') as file:
        assert json.loads(file.metadata()['system']) == 'frozen_detr'
    before = target.read_bytes()
    save_file(dict(what=torch.zeros(1)), tmp_path / 'bad.safetensors')
    with pytest.raises(ValueError, match='not known'):
        convert_file('frozen_detr', tmp_path / 'bad.safetensors', target)
    assert target.read_bytes() == before and len(list(tmp_path.iterdir())) == 3


def test_only_safetensors_are_written(tmp_path):
    with pytest.raises(ValueError, match='name the file a.safetensors, got a.pth'):
        save_checkpoint_file(tmp_path / 'a.pth', dict(w=torch.ones(1)), {})


def test_misspelt_converters_are_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean one of \\['frozen_detr'"):
        convert_file('frozen_dter', tmp_path / 'a', tmp_path / 'b.safetensors')


def test_the_command_reports_and_refuses(tmp_path, official, capsys):
    save_file(official, tmp_path / 'in.safetensors')
    command = ['frozen_detr', str(tmp_path / 'in.safetensors'), str(tmp_path / 'out.safetensors'), '--classes', '91']
    main('convert', command)
    printed = capsys.readouterr().out
    assert 'foundation weights come from their own file' in printed and '0 unmatched' in printed
    assert load_file(tmp_path / 'out.safetensors')['level_embed'].shape == (5, 32)
    for wrong, message in ((['clip', *command[1:3]], 'this is a file of Frozen-DETR, DINO-coco'),
                           (['clip', *command[1:]], '--classes goes with frozen_detr only, not with clip'),
                           ([*command[:3], '--tower', 'x.pt'], '--tower goes with fc_clip and frozen_seg only')):
        with pytest.raises(SystemExit, match='2'):
            main('convert', wrong)
        assert message in capsys.readouterr().err


def test_the_report_has_a_name_of_its_own_and_the_old_one_works_for_one_release():
    import frozenmm.convert as room
    with pytest.warns(FutureWarning, match='ConversionReport'):
        assert room.Report is room.ConversionReport
