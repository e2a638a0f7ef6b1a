"""Official FC-CLIP and FrozenSeg checkpoints."""
from __future__ import annotations

import pytest
import torch
from parity.cases import find_cases
from parity.fc_clip import decoder_options, pixel_decoder_of
from torch import nn

import frozenmm  # noqa: F401  (fills the holes of the installation first)
from frozenmm.convert.command import convert_file
from frozenmm.convert.fc_clip import check_tower, convert_fc_clip
from frozenmm.convert.frozen_seg import convert_frozen_seg
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
    with pytest.raises(ValueError, match=r'trained with other CLIP weights than the tower\'s: head.0.weight differs'):
        check_tower(state, visual)
    visual.head[0].weight.data = state['backbone.clip_model.visual.head.0.weight'].clone()
    assert check_tower(state, visual) == 1
    with pytest.raises(ValueError, match="none of the tower's; it is another architecture"):
        check_tower(state, nn.Linear(2, 2))
