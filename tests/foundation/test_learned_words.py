"""Prompts and new words around frozen text towers, against their formulas, and in the places of text towers."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from frozenmm.foundation.learned_words import NewWords, PromptedTextTower
from frozenmm.foundation.text_embeddings import WordVectors
from frozenmm.foundation.text_towers.clip import CLIPTextTower
from frozenmm.registry import MODELS

SIZES = dict(width=32, layers=2, heads=2, output_dim=24, vocabulary_size=49408)


@pytest.fixture(scope='module')
def clip_text():
    pytest.importorskip('open_clip')
    return CLIPTextTower(SIZES, 'random')


def restated(tower, name, prompts, before):
    """CLIP's text encoder, step by step, with vectors around the name."""
    network = tower.network
    begin, *ids, end = tower.tokenizer.rows([name])[0]
    table = network.token_embedding.weight
    x = torch.cat([table[[begin]], prompts[:before], table[ids], prompts[before:], table[[end]]])
    x = (x + network.positional_embedding[:len(x)])[None]
    for block in network.transformer.resblocks:
        x = block(x)
    return network.ln_final(x)[0, -1] @ network.text_projection


@pytest.mark.parametrize(('place', 'before'), [('front', 3), ('behind', 0), ('around', 2)])
def test_vectors_and_gradients_are_those_of_a_sentence_with_the_prompts_in_it(clip_text, generator, place, before):
    tower = PromptedTextTower(clip_text, start=None, length=3, place=place)
    with torch.no_grad():
        tower.shared.copy_(torch.randn(tower.shared.shape, generator=generator))
    names = ['a very small dog', 'cat']
    found = tower.encode(names)
    expected = torch.stack([restated(clip_text, name, tower.shared, before) for name in names])
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=generator)
    one, other = (torch.autograd.grad((value * weight).sum(), tower.shared)[0] for value in (found, expected))
    torch.testing.assert_close(one, other)
    assert one.abs().sum() > 0 and not any(p.requires_grad for p in clip_text.network.parameters())


@pytest.mark.parametrize('family', ['clip', 'open_clip', 'bert'])
def test_it_starts_as_the_template_in_every_family(clip_text, request, family):
    if family == 'bert':
        inner = request.getfixturevalue('minilm')
    elif family == 'open_clip':
        from frozenmm.foundation.text_towers.open_clip import OpenCLIPTextTower
        config = dict(embed_dim=16, vision_cfg=dict(layers=1, width=64, patch_size=16, image_size=32),
                      text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2))
        inner = OpenCLIPTextTower(config, 'random')
    else:
        inner = clip_text
    tower = PromptedTextTower(inner)
    torch.testing.assert_close(tower.encode(['dog', 'traffic light']),
                               inner.encode(['a photo of a dog', 'a photo of a traffic light']))


def test_names_with_prompts_of_their_own_learn_apart(clip_text):
    tower = PromptedTextTower(clip_text, classes=['dog', 'cat'])
    tower.encode(['Dog', 'zebra']).sum().backward()
    assert tower.own.grad[0].abs().sum() > 0 and tower.own.grad[1].abs().sum() == 0
    assert tower.shared.grad.abs().sum() > 0  # zebra


def test_words_are_encoded_anew_after_a_step_and_never_stored(clip_text, tmp_path):
    tower = PromptedTextTower(clip_text)
    words = WordVectors(tower, 'vild14', folder=tmp_path)
    first = words.unit(['dog', 'cat'])
    first.sum().backward()
    torch.optim.SGD(tower.parameters(), 1.0).step()
    with torch.no_grad():
        assert not torch.equal(words.unit(['dog', 'cat']), first)
        again = words.unit(['dog', 'cat'])
        assert torch.equal(words.unit(['dog']), again[:1]) and not list(tmp_path.iterdir())


def test_new_words_leave_the_old_ones_as_they_were_bit_for_bit(clip_text, generator, tmp_path):
    tower = NewWords(clip_text, ['my mug'])
    old, both = (WordVectors(t, 'vild14', folder=tmp_path) for t in (clip_text, tower))
    before = old.unit(['dog', 'cat'])
    rows = both.unit(['dog', 'My  Mug', 'cat'])
    assert torch.equal(rows[[0, 2]], before) and rows.requires_grad
    torch.testing.assert_close(rows[1], F.normalize(clip_text.encode(['my mug'])[0], dim=-1))
    embeddings = torch.randn(5, 24, generator=generator)
    logits = 10 * F.normalize(embeddings, dim=-1) @ before.T
    extended = tower.extended(logits, embeddings, 10)
    assert torch.equal(extended[:, :2], logits)
    cosine = (embeddings @ tower.rows[0]) / (embeddings.norm(dim=1) * tower.rows[0].norm())
    torch.testing.assert_close(extended[:, 2], 10 * cosine)
    gradient, = torch.autograd.grad(-extended.log_softmax(-1)[:, 2].sum(), tower.rows)
    row = tower.rows.detach().clone().requires_grad_()
    logit = 10 * F.normalize(embeddings, dim=-1) @ F.normalize(row[0], dim=-1)
    restated_loss = (torch.cat([logits, logit[:, None]], 1).exp().sum(1).log() - logit).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(restated_loss, row)[0])


@pytest.mark.parametrize('kind', ['PromptedTextTower', 'NewWords'])
def test_they_train_in_fc_clip_and_fusioner_and_leave_one_record(clip_text, kind, generator):
    from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
    from frozenmm.segmentation.fusioner.class_texts import ClassTexts
    config = dict(type=f'frozenmm.{kind}', text_tower=clip_text, **({'words': ['dog']} if kind == 'NewWords' else {}))
    classifier = MaskClassifier(24, text_tower=config, train_vocabulary=['dog', 'cat'], channels=8)
    names = [name for name, _ in classifier.named_parameters() if name.startswith('learning.')]
    assert names == (['learning.rows'] if kind == 'NewWords' else ['learning.shared'])
    optimizer = torch.optim.SGD(classifier.parameters(), 0.1)
    embeddings = torch.randn(1, 4, 8, generator=generator)
    before = classifier(embeddings)
    for _ in range(2):  # a second step needs a graph of its own
        optimizer.zero_grad()
        classifier(embeddings).log_softmax(-1)[..., 0].sum().neg().backward()
        optimizer.step()
    after, before = (logits.softmax(-1)[..., 0].sum() for logits in (classifier.eval()(embeddings), before))
    assert after > before
    state = classifier.state_dict()
    assert [key for key in state if 'learning' in key and 'record' in key] == ['learning.frozen_record']
    texts = ClassTexts(MODELS.build(config), store=False)
    texts(['dog', 'cat']).sum().backward()
    assert all(parameter.grad is not None for parameter in texts.parameters())


def test_what_cannot_learn_words_is_refused(clip_text):
    with pytest.raises(ValueError, match='at least one vector, got start=None and length=0'):
        PromptedTextTower(clip_text, start=None, length=0)
    with pytest.raises(ValueError, match='takes at most 77'):
        PromptedTextTower(clip_text, start=None, length=76).encode(['dog'])
    with pytest.raises(ValueError, match=r"each once, got \['dog', 'Dog'\]"):
        NewWords(clip_text, ['dog', 'Dog'])
    with pytest.raises(TypeError, match='needs a text tower without trained vectors.*got NewWords'):
        PromptedTextTower(NewWords(clip_text, ['dog']))
