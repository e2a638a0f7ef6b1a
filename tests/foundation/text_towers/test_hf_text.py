"""The BERT family against transformers itself, the embedded MiniLM, and unusable folders."""
from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

transformers = pytest.importorskip('transformers')

from frozenmm.foundation.text_towers import hf  # noqa: E402
from frozenmm.foundation.text_towers.hf import BertTextTower, MiniLMTextTower  # noqa: E402

TEXTS = ['a cat', 'the big dog', 'dog']
VOCABULARY = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'the', 'big', 'cat', 'dog', '##s']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A small BERT in transformers' layout, without pooler."""
    path = tmp_path_factory.mktemp('text') / 'small-bert'
    path.mkdir()
    (path / 'vocab.txt').write_text('\n'.join(VOCABULARY))
    transformers.BertTokenizerFast(vocab=dict(zip(VOCABULARY, range(99)))).save_pretrained(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertModel(transformers.BertConfig(
            vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=12), add_pooling_layer=False)
    model.save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / 'copy')


def states(folder, text):
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    batch = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors='pt')
    with torch.no_grad():
        return model(**batch).last_hidden_state[0]


@pytest.mark.parametrize('pooling', ['cls', 'mean'])
def test_vectors_equal_those_of_transformers_text_by_text(folder, pooling):
    vectors = BertTextTower(folder, pooling=pooling).encode(TEXTS)
    for text, vector in zip(TEXTS, vectors):
        tokens = states(folder, text)
        assert_close(vector, tokens[0] if pooling == 'cls' else tokens.mean(0), atol=1e-5, rtol=1e-4)


def test_normalised_vectors_have_length_one(folder):
    plain, unit = BertTextTower(folder, pooling='mean'), BertTextTower(folder, pooling='mean', normalize=True)
    assert_close(unit.encode(TEXTS), F.normalize(plain.encode(TEXTS), dim=1))
    assert plain.network is unit.network and plain.signature != unit.signature


def test_a_pooler_that_the_file_lacks_does_not_change_the_fingerprint(folder):
    first = BertTextTower(folder).fingerprint  # the network dies with its only tower, so the next one loads anew
    assert first == BertTextTower(folder).fingerprint


def test_the_context_is_the_number_of_positions(folder):
    assert BertTextTower(folder).context == 12
    with pytest.raises(ValueError, match="'dog dog.*' has 13 tokens, but text encoder small-bert takes at most 12"):
        BertTextTower(folder).encode(['dog ' * 11])
    with pytest.raises(ValueError, match='text encoder small-bert has 12 positions, but context=13 was asked for'):
        BertTextTower(folder, context=13)
    cut = BertTextTower(folder, truncate=True).encode(['dog ' * 30])
    assert_close(cut, BertTextTower(folder).encode(['dog ' * 10]))


def test_the_fingerprint_follows_the_weights_and_the_signature_the_tokenizer(folder, copy):
    tokenizer = json.loads((copy / 'tokenizer.json').read_text())
    vocabulary = tokenizer['model']['vocab']
    vocabulary['cat'], vocabulary['dog'] = vocabulary['dog'], vocabulary['cat']
    (copy / 'tokenizer.json').write_text(json.dumps(tokenizer))
    original, swapped = BertTextTower(folder), BertTextTower(copy)
    assert original.fingerprint == swapped.fingerprint and original.signature != swapped.signature
    assert_close(original.encode(['cat']), swapped.encode(['dog']))


def test_a_missing_folder_is_named_and_never_looked_up_elsewhere():
    with pytest.raises(FileNotFoundError, match='text encoder folder .*bert-base-uncased does not exist; it must hold'):
        BertTextTower('bert-base-uncased')


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'vocabulary'])
def test_a_missing_file_is_named(copy, name):
    names = ['tokenizer.json', 'vocab.txt'] if name == 'vocabulary' else [name]
    for file in names:
        (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"holds none of \['{names[0]}'"):
        BertTextTower(copy)


def test_truncated_files_are_named(copy):
    weights = copy / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(ValueError, match='copy cannot be read as a text encoder: .*of another architecture'):
        BertTextTower(copy)
    (copy / 'config.json').write_text('{"model_type": "be')
    with pytest.raises(ValueError, match='config.json cannot be read as .*truncated or damaged'):
        BertTextTower(copy)


def test_another_architecture_is_named(copy):
    config = json.loads((copy / 'config.json').read_text())
    (copy / 'config.json').write_text(json.dumps(config | {'num_hidden_layers': 3}))
    with pytest.raises(ValueError, match=r'do not fit its config.json: missing .*encoder.layer.2'):
        BertTextTower(copy)
    (copy / 'config.json').write_text(json.dumps(config | {'hidden_size': 32}))
    with pytest.raises(ValueError, match='copy .*(another architecture|do not fit)'):
        BertTextTower(copy)
    (copy / 'config.json').write_text(json.dumps(config | {'model_type': 'gpt2'}))
    with pytest.raises(ValueError, match="describes a model of type 'gpt2'; BertTextTower takes .*'bert'"):
        BertTextTower(copy)


def test_unknown_pooling_is_named(folder):
    with pytest.raises(ValueError, match=r"pooling must be one of \['cls', 'mean'\], got 'max'"):
        BertTextTower(folder, pooling='max')


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(hf, '_PACKAGE', 'gt_no_such_package')
    with pytest.raises(ImportError, match='the embedded text encoder MiniLM needs the package'):
        MiniLMTextTower()


def test_minilm_gives_unit_vectors_that_know_meaning(minilm):
    vectors = minilm.encode(['a kitten', 'a young cat', 'an aircraft carrier'])
    assert vectors.shape == (3, 384) and minilm.channels == 384 and minilm.context == 256
    assert_close(vectors.norm(dim=1), torch.ones(3))
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.6 > 0.3 > similarity[0, 2]


def test_minilm_batches_equal_single_texts(minilm):
    texts = ['cat', 'a photo of a very large grey elephant in the scene', 'espresso']
    singly = torch.cat([minilm.encode([text]) for text in texts])
    assert_close(minilm.encode(texts), singly, atol=1e-5, rtol=1e-4)
