"""Official FC-CLIP and FrozenSeg checkpoints."""
from __future__ import annotations

import pytest
import torch
from parity.cases import find_cases
from parity.fc_clip import decoder_options, pixel_decoder_of
from safetensors.torch import save_file
from torch import nn

import frozenmm  # noqa: F401  (fills the holes of the installation first)
from frozenmm.convert.command import convert_file
from frozenmm.convert.fc_clip import check_tower, convert_fc_clip
from frozenmm.convert.frozen_seg import convert_frozen_seg
from frozenmm.errors import UserError
from frozenmm.foundation.image_towers.open_clip import open_clip_model, published_file
from frozenmm.foundation.weights import weights_folder
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.frozen_seg.generator import InjectedMaskGenerator
from frozenmm.segmentation.mask2former.generator import MaskGenerator


def official(golden_dir, system, pixel_decoder):
    """A checkpoint in official names, joined from two recorded cases of different sizes, and their parameters."""
    predictor = find_cases([golden_dir / system / 'eval_end_to_end__semantic_only' if system == 'fc_clip' else
                            golden_dir / system / 'eval_end_to_end__misaligned_semantic'])[0].load()
    pixels = find_cases([golden_dir / system / pixel_decoder])[0].load()
    state = {**predictor.weights,
             **{f'sem_seg_head.pixel_decoder.{key}': value for key, value in pixels.weights.items()},
             'criterion.empty_weight': torch.ones(7)}
    if system == 'frozen_seg':
        state['sam.image_encoder.pos_embed'] = torch.zeros(1)
    return state, predictor.params, pixels


@pytest.fixture
def fc_clip_state(golden_dir):
    return official(golden_dir, 'fc_clip', 'pixel_decoder__two_layers')


def test_every_key_of_fc_clip_finds_its_place(fc_clip_state):
    state, params, pixels = fc_clip_state
    converted, report = convert_fc_clip(state)
    assert not report.unmatched and len(report.renamed) + len(report.dropped) == len(state)
    assert set(report.dropped) == {key for key in state if key.startswith(('backbone.', 'criterion.'))}
    hidden = params['hidden_dim']
    from frozenmm.segmentation.mask2former.decoder import MaskedAttentionDecoder
    model = nn.ModuleDict(dict(
        mask_generator=MaskGenerator([1] * 4, pixel_decoder=pixel_decoder_of(pixels.params),
                                     decoder=MaskedAttentionDecoder(hidden, **decoder_options(params))),
        classifier=MaskClassifier(params['clip_embed_dim'], channels=hidden)))
    model.load_state_dict(converted)
    assert model['classifier'].compat and len(model['classifier'].train_vocabulary) == 133
    torch.testing.assert_close(model['classifier'].logit_scale.data, state['sem_seg_head.predictor.logit_scale'])


def test_every_key_of_frozen_seg_finds_its_place(golden_dir):
    state, params, pixels = official(golden_dir, 'frozen_seg', 'sam_pixel_decoder__two_images')
    converted, report = convert_frozen_seg(state)
    assert not report.unmatched and report.dropped['sam.image_encoder.pos_embed'].startswith('the frozen SAM model')
    sizes = pixels.params
    from frozenmm.segmentation.frozen_seg.injectors import InjectedDecoder
    from frozenmm.segmentation.frozen_seg.sam_branch import SAMBranch
    branch = SAMBranch(sizes['conv_dim'], channels=sizes['conv_dim'], compat=True,
                       num_layers=sizes['num_layers'], num_heads=sizes['num_heads'],
                       feedforward_channels=sizes['dim_feedforward'])
    model = nn.ModuleDict(dict(
        mask_generator=InjectedMaskGenerator([1] * 4, 1, pixel_decoder=pixel_decoder_of(sizes), sam_branch=branch,
                                             decoder=InjectedDecoder(params['hidden_dim'], **decoder_options(params))),
        classifier=MaskClassifier(params['clip_embed_dim'], channels=params['hidden_dim'])))
    model.load_state_dict(converted)


def test_unknown_keys_are_refused(fc_clip_state):
    state = dict(fc_clip_state[0], **{'sem_seg_head.predictor.novel': torch.zeros(1)})
    with pytest.raises(ValueError, match='1 keys do not belong to the layout of FC-CLIP: sem_seg_head.predictor.novel'):
        convert_fc_clip(state)


def test_a_checkpoint_of_another_system_is_named(fc_clip_state):
    with pytest.raises(ValueError, match='`frozen_seg` converts FrozenSeg, but this is a file of FC-CLIP'):
        convert_frozen_seg(fc_clip_state[0])


def test_another_training_vocabulary_can_be_named(fc_clip_state):
    converted, _ = convert_fc_clip(fc_clip_state[0], train_vocabulary=['cat', 'dog'], compat=False)
    classifier = MaskClassifier(10, channels=16)
    own = {key.removeprefix('classifier.'): value for key, value in converted.items() if key.startswith('classifier.')}
    classifier.load_state_dict(own)
    assert classifier.train_vocabulary.names == ['cat', 'dog'] and not classifier.compat


def test_files_convert_on_the_command_line(fc_clip_state, tmp_path):
    torch.save(dict(model=fc_clip_state[0]), tmp_path / 'in.pth')
    report = convert_file('fc_clip', tmp_path / 'in.pth', tmp_path / 'out.safetensors')
    assert not report.unmatched and (tmp_path / 'out.safetensors').is_file()


def test_the_frozen_weights_inside_are_compared_with_the_tower(fc_clip_state):
    state = fc_clip_state[0]
    visual = nn.Module()
    visual.head = nn.Sequential(nn.Linear(12, 10, bias=False))
    with pytest.raises(UserError, match=r'trained with other CLIP weights than the tower\'s: head.0.weight differs'):
        convert_fc_clip(state, tower=visual)
    visual.head[0].weight.data = state['backbone.clip_model.visual.head.0.weight'].clone()
    assert check_tower(state, visual) == 1
    _, report = convert_fc_clip(state, tower=visual)
    assert "the CLIP weights inside are the tower's: 1 tensors agree" in str(report)
    with pytest.raises(UserError, match="none of the tower's; it is another architecture"):
        convert_fc_clip(state, tower=nn.Linear(2, 2))


@pytest.mark.parametrize('system', ['fc_clip', 'frozen_seg'])
def test_files_are_compared_with_the_file_of_the_tower(system, golden_dir, tmp_path):
    decoder = 'pixel_decoder__two_layers' if system == 'fc_clip' else 'sam_pixel_decoder__two_images'
    state = official(golden_dir, system, decoder)[0]
    clip = {key.removeprefix('backbone.clip_model.'): value for key, value in state.items()
            if key.startswith('backbone.clip_model.')}
    clip = clip or {'visual.head.0.weight': torch.ones(2)}
    state |= {f'backbone.clip_model.{key}': value for key, value in clip.items()}
    save_file(state, tmp_path / 'in.safetensors')
    save_file(clip, tmp_path / 'clip.safetensors')
    report = convert_file(system, tmp_path / 'in.safetensors', tmp_path / 'out.safetensors',
                          tower=tmp_path / 'clip.safetensors')
    assert f'those in {tmp_path / "clip.safetensors"}: {len(clip)} tensors agree' in report.notes[0]
    save_file({key: value + 1 for key, value in clip.items()}, tmp_path / 'clip.safetensors')
    with pytest.raises(UserError, match='other CLIP weights'):
        convert_file(system, tmp_path / 'in.safetensors', tmp_path / 'out.safetensors',
                     tower=tmp_path / 'clip.safetensors')


def test_without_a_tower_the_published_one_is_compared_where_it_is_on_the_machine(
        fc_clip_state, tmp_path, monkeypatch):
    state = dict(fc_clip_state[0])
    assert 'were not compared' in convert_fc_clip(state)[1].notes[0]
    stem = torch.rand(192, 3, 4, 4)
    state['backbone.clip_model.visual.trunk.stem.0.weight'] = stem
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    assert 'were not compared' in convert_fc_clip(state)[1].notes[0]
    file = weights_folder() / published_file(*open_clip_model('convnext_large_d_320', None)).file_name
    file.parent.mkdir()
    save_file({'visual.trunk.stem.0.weight': stem}, file)
    assert f'those in {file}: 1 tensors agree' in convert_fc_clip(state)[1].notes[0]
    save_file({'visual.trunk.stem.0.weight': stem * 2}, file)
    with pytest.raises(UserError, match='other CLIP weights'):
        convert_fc_clip(state)


def test_frozen_seg_with_queries_of_another_width_than_its_maps(golden_dir):
    """The official decoder then has a projection of SAM maps per level, of which only the first is read."""
    from frozenmm.segmentation.frozen_seg.injectors import InjectedDecoder
    state, params, _ = official(golden_dir, 'frozen_seg', 'sam_pixel_decoder__two_images')
    hidden = params['hidden_dim']
    width, prefix = 2 * hidden, 'sem_seg_head.predictor.'
    state |= {f'{prefix}{name}.{level}.{part}': torch.rand(shape)
              for name in ('input_proj', 'input_proj_sam') for level in range(3)
              for part, shape in (('weight', (hidden, width, 1, 1)), ('bias', (hidden, )))}
    converted, report = convert_frozen_seg(state)
    assert sum('nothing reads' in why for why in report.dropped.values()) == 4
    decoder = InjectedDecoder(width, **decoder_options(params))
    place = 'mask_generator.decoder.'
    own = {key.removeprefix(place): value for key, value in converted.items() if key.startswith(place)}
    own = {key: value for key, value in own.items() if key in decoder.state_dict()}
    decoder.load_state_dict(own)
    torch.testing.assert_close(decoder.sam_input_proj.weight.data, state[f'{prefix}input_proj_sam.0.weight'])
