"""All facets in one pass equal a pass for each, in every family of language models, with padding beside them."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

transformers = pytest.importorskip('transformers')
tokenizers = pytest.importorskip('tokenizers')

from frozenmm.foundation.text_embeddings import text_embeddings  # noqa: E402
from frozenmm.foundation.text_towers.long_caption import LongCaptionTower, facet_layout  # noqa: E402

WORDS = 'a dog cat sits on the red wall and looks at every bird that flies past in one word : things place'.split()
FACETS = ['things in one word :', 'place :']
SMALL = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, max_position_embeddings=64)


def folder(path, family):
    """A language model with random weights and a tokenizer of whole words."""
    vocabulary = {word: index for index, word in enumerate(['[PAD]', '[UNK]', *WORDS])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='[UNK]'))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token='[PAD]', unk_token='[UNK]'
                                         ).save_pretrained(path)
    torch.manual_seed(0)
    if family == 'llama':
        config = transformers.LlamaConfig(**SMALL, vocab_size=len(vocabulary), intermediate_size=48)
    elif family == 'gpt2':
        config = transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2, n_positions=64, vocab_size=len(vocabulary))
    else:
        config = transformers.OPTConfig(**SMALL, vocab_size=len(vocabulary), ffn_dim=48, word_embed_proj_dim=32)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize('family', ['llama', 'gpt2', 'opt'])
def test_one_pass_equals_a_pass_for_each_facet(tmp_path, family):
    tower = LongCaptionTower(folder(tmp_path, family), facets=FACETS, pooling='concatenate')
    texts = ['the red dog sits on the wall and looks at every bird that flies past', 'a cat']
    found = tower.encode(texts).view(2, 2, 32)
    tokenizer = tower.tokenizer
    with torch.no_grad():
        for row, text in enumerate(texts):
            for column, facet in enumerate(FACETS):
                ids = torch.tensor([tokenizer.rows([text])[0] + tokenizer.rows([facet])[0]])
                state = tower.network(input_ids=ids).last_hidden_state[0, -1]
                torch.testing.assert_close(found[row, column], F.normalize(state, dim=0), rtol=1e-4, atol=1e-5)
    assert (found[0, 0] - found[0, 1]).abs().max() > 0.01
    mean = LongCaptionTower(tmp_path, facets=FACETS)
    torch.testing.assert_close(mean.encode(texts), found.mean(1))
    assert mean.channels == 32 and mean.signature != tower.signature


def test_the_layout_by_hand():
    seen, position = facet_layout([2, 1], [1, 2], 5)
    assert position.tolist() == [[0, 1, 2, 2, 3], [0, 1, 1, 2, 0]]
    assert seen[0].int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0],
                                      [1, 1, 0, 1, 1]]
    assert seen[1, :4].int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 0]]


def test_descriptions_are_stored_like_names(tmp_path):
    tower = LongCaptionTower(folder(tmp_path / 'model', 'llama'), facets=FACETS)
    first = text_embeddings(tower, ['a red dog', 'a bird on the wall'], 'none', folder=tmp_path / 'store')
    assert first.shape == (2, 32) and (tmp_path / 'store').is_dir()
    tower.facet_states = None  # would fail if it were computed again
    assert torch.equal(text_embeddings(tower, ['a red dog', 'a bird on the wall'], 'none',
                                       folder=tmp_path / 'store'), first)


def test_folders_and_prompts_that_do_not_do(tmp_path):
    with pytest.raises(FileNotFoundError, match='is no folder of a language model'):
        LongCaptionTower(tmp_path)
    path = folder(tmp_path / 'model', 'gpt2')
    with pytest.raises(ValueError, match='has positions for 59 tokens of a caption.*but 60 were asked for'):
        LongCaptionTower(path, facets=FACETS, context=60)
    with pytest.raises(ValueError, match='at least one facet prompt'):
        LongCaptionTower(path, facets=[])
    transformers.BertModel(transformers.BertConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1,
                                                   intermediate_size=16)).save_pretrained(path)
    with pytest.raises(ValueError, match='holds a bert, no causal language model'):
        LongCaptionTower(path, facets=FACETS)
