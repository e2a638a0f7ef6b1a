"""Files of Frozen-DETR's mmdet-2.x fork: every key finds its place, with ResNet and with Swin."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from frozenmm.convert.co_dino import convert_co_dino
from frozenmm.convert.command import convert_file

sys.path.append(str(Path(__file__).parents[1] / 'detection'))
import tiny_dino as tiny

# our name -> the fork's, as its modules give it
FORK = (
    (r'level_embed', 'query_head.transformer.level_embeds'),
    (r'query_embedding\.weight', 'query_head.transformer.query_embed.weight'),
    (r'memory_trans_fc', 'query_head.transformer.enc_output'),
    (r'memory_trans_norm', 'query_head.transformer.enc_output_norm'),
    (r'patch_levels\.0\.projection', 'query_head.transformer.image_query_proj'),
    (r'patch_levels\.0\.norm', 'query_head.transformer.image_query_norm'),
    (r'image_queries\.projections', 'query_head.transformer.decoder.image_query_proj'),
    (r'image_queries\.norms', 'query_head.transformer.decoder.image_query_norm'),
    (r'encoder\.layers\.(\d+)\.self_attn', r'query_head.transformer.encoder.layers.\1.attentions.0'),
    (r'decoder\.layers\.(\d+)\.self_attn', r'query_head.transformer.decoder.layers.\1.attentions.0'),
    (r'decoder\.layers\.(\d+)\.cross_attn', r'query_head.transformer.decoder.layers.\1.attentions.1'),
    (r'(en|de)coder\.layers\.(\d+)\.ffn', r'query_head.transformer.\1coder.layers.\2.ffns.0'),
    (r'(en|de)coder\.layers', r'query_head.transformer.\1coder.layers'),
    (r'decoder\.ref_point_head\.layers\.0', 'query_head.transformer.decoder.ref_point_head.0'),
    (r'decoder\.ref_point_head\.layers\.1', 'query_head.transformer.decoder.ref_point_head.2'),
    (r'decoder\.norm', 'query_head.transformer.decoder.norm'),
    (r'bbox_head\.', 'query_head.'),
    (r'dn_query_generator\.label_embedding', 'query_head.label_embedding'),
    (r'collaborators\.projections\.(\d+)\.0', r'query_head.transformer.aux_pos_trans.\1'),
    (r'collaborators\.projections\.(\d+)\.1', r'query_head.transformer.aux_pos_trans_norm.\1'),
    (r'collaborators\.downsample', 'query_head.downsample'),
    (r'collaborators\.rpn_head', 'rpn_head'),
    (r'collaborators\.roi_head', 'roi_head.0'),
    (r'collaborators\.dense_head', 'bbox_head.0'),
)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors, without the records of frozen towers."""
    return {key: value for key, value in model.state_dict().items() if 'record' not in key and 'tower' not in key}


def fork_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights as the fork stores them, with some of its foundation model."""
    def name(key: str) -> str:
        for pattern, official in FORK:
            if match := re.match(pattern, key):
                return match.expand(official) + key[match.end():]
        return key
    return {name(key): value for key, value in state.items()} | {'foundation_model.conv1.weight': torch.zeros(1)}


def model(**changes: object) -> nn.Module:
    return tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',)), **({'patch_norm': 'LN'} | changes)), seed=3)


def test_every_key_of_a_co_dino_finds_its_place(tmp_path):
    source = model()
    torch.save(dict(state_dict=fork_names(weights(source)), meta={}), tmp_path / 'official.pth')
    report = convert_file('co_dino', tmp_path / 'official.pth', tmp_path / 'ours.safetensors')
    assert not report.unmatched and list(report.dropped) == ['foundation_model.conv1.weight']
    from frozenmm.compat.checkpoint import load_checkpoint_file
    converted = load_checkpoint_file(tmp_path / 'ours.safetensors')
    converted = converted.get('state_dict', converted)
    target = tiny.build(tiny.co_dino(tiny.tiny(5, ('res4',)), patch_norm='LN'), seed=4)
    found = target.load_state_dict(converted, strict=False)
    assert not found.unexpected_keys and not [key for key in found.missing_keys if 'tower' not in key]
    for key, value in weights(source).items():
        assert torch.equal(value, target.state_dict()[key]), key
    # the fork's numbers: clamp of reference boxes, detections inside the picture
    assert target.bbox_head.reference_eps == 1e-3 and target.bbox_head.clip_boxes


def test_a_dino_of_the_fork_has_no_collaborators():
    config = tiny.enhanced(tiny.tiny(5, ('res4',)), patch_norm='LN')
    dino = tiny.build(config, seed=3)
    official = fork_names(weights(dino)) | {'query_head.transformer.aux_pos_trans.0.weight': torch.zeros(1)}
    state, report = convert_co_dino(official)
    assert report.dropped['query_head.transformer.aux_pos_trans.0.weight'].startswith('made for collaborators')
    found = tiny.build(config).load_state_dict(state, strict=False)
    assert not found.unexpected_keys and not [key for key in found.missing_keys if 'tower' not in key]


def test_unknown_keys_and_other_files_are_refused():
    official = fork_names(weights(model()))
    with pytest.raises(ValueError, match='1 keys do not belong .* query_head.surprise'):
        convert_co_dino(official | {'query_head.surprise': torch.zeros(1)})
    with pytest.raises(ValueError, match='`co_dino` converts Frozen-DETR, mmdet-2.x fork, but'):
        convert_co_dino({'bbox_head.cls_branches.0.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match=r'convert it first: `python tools/convert.py co_dino'):
        model().load_state_dict(official, strict=False)


SWIN = dict(type='mmdet.SwinTransformer', embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
            out_indices=(1, 2, 3), drop_path_rate=0.0)


def swin_names(key: str) -> str:
    for pattern, official in ((r'backbone\.patch_embed\.projection', 'backbone.patch_embed.proj'),
                              (r'(.+)\.attn\.w_msa\.', r'\1.attn.'), (r'(.+)\.ffn\.layers\.0\.0\.', r'\1.mlp.fc1.'),
                              (r'(.+)\.ffn\.layers\.1\.', r'\1.mlp.fc2.')):
        if match := re.match(pattern, key):
            key = match.expand(official) + key[match.end():]
    return key.replace('backbone.stages.', 'backbone.layers.')


def merged(image: torch.Tensor, state: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    """Patch merging as Swin's authors define it: four neighbours by column, then row, channels last."""
    four = [image[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    x = torch.cat(four, -1)
    x = nn.functional.layer_norm(x, x.shape[-1:], state[f'{prefix}.norm.weight'], state[f'{prefix}.norm.bias'])
    return x @ state[f'{prefix}.reduction.weight'].T


def test_swin_keeps_its_numbers_through_another_order_of_channels():
    neck = tiny.config()['neck'] | dict(in_channels=[32, 64, 128])
    target = model(backbone=SWIN, neck=neck)
    official = {swin_names(key): value.clone() for key, value in fork_names(weights(target)).items()}
    generator = torch.Generator().manual_seed(0)
    prefix = 'backbone.layers.0.downsample'
    for key in (key for key in official if key.startswith(prefix)):
        official[key] = torch.randn(official[key].shape, generator=generator)
    state, report = convert_co_dino(official)
    found = target.load_state_dict(state, strict=False)
    assert not found.unexpected_keys and not [key for key in found.missing_keys if 'tower' not in key]
    assert any('patch merging' in note for note in report.notes)
    image = torch.randn(2, 4, 6, 16, generator=generator)
    ours, size = target.backbone.stages[0].downsample(image.flatten(1, 2), (4, 6))
    assert tuple(size) == (2, 3)
    torch.testing.assert_close(ours, merged(image, official, prefix).flatten(1, 2), atol=1e-5, rtol=1e-5)
