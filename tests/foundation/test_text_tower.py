"""The contract of text towers, on a network whose output shows what it was given."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from frozenmm.foundation.text_tower import TextTower, Tokenizer

BEGIN, END = 1, 2


class Echo(nn.Module):
    """Gives back sums of its input, and remembers the shapes of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(ids.shape))
        total = (ids * (torch.arange(ids.shape[1]) < lengths[:, None])).sum(1)
        return torch.stack([total, lengths, ids[torch.arange(len(ids)), lengths - 1]], 1) * self.one


class LetterTower(TextTower):
    """One token per letter."""

    def embed(self, network, ids, lengths):
        return network(ids, lengths)


def rows(texts):
    return [[BEGIN, *(ord(letter) for letter in text.strip('!')), END] for text in texts]


def tower(**options) -> LetterTower:
    options = {'context': 8, 'name': 'letters'} | options
    return LetterTower(Echo(), Tokenizer(rows, 'letters'), channels=3, **options)


def expected(text: str) -> list[float]:
    return [BEGIN + END + sum(map(ord, text)), len(text) + 2, END]


def test_vectors_come_in_the_order_of_the_texts_whatever_the_batches():
    texts = ['abc', 'a', 'abcdef', 'b', 'a', 'ab']
    for batch_size in 1, 2, 5, 256:
        vectors = tower(batch_size=batch_size).encode(texts)
        assert vectors.dtype == torch.float32
        assert vectors.tolist() == [expected(text) for text in texts]


def test_repeated_texts_are_encoded_once_and_batches_hold_similar_lengths():
    letters = tower(batch_size=2)
    letters.encode(['abcdef', 'a', 'abcde', 'b', 'a'])
    assert letters.network.shapes == [(2, 3), (2, 8)]


def test_rows_are_filled_to_the_context_where_the_network_wants_it():
    letters = tower(pad_to_context=True)
    letters.encode(['a'])
    assert letters.network.shapes == [(1, 8)]


def test_half_precision_inside_is_float32_outside():
    vectors = tower(precision='bf16').encode(['a', 'b'])
    assert vectors.dtype == torch.float32


def test_a_cut_text_keeps_its_end_mark():
    assert tower(truncate=True).encode(['abcdefgh']).tolist() == [expected('abcdef')]


def test_a_text_longer_than_the_context_is_named():
    with pytest.raises(ValueError, match="the text 'abcdefg' has 9 tokens, but letters takes at most 8; .*truncate"):
        tower().encode(['a', 'abcdefg'])


@pytest.mark.parametrize(('texts', 'error', 'message'), [
    ('cat', TypeError, 'encodes a list of texts, got str; put a single text in a list'),
    ({'cat'}, TypeError, 'encodes a list of texts, got set'),
    (['cat', 3], TypeError, 'entry 1 is int 3'),
    ([], ValueError, 'letters got an empty list'),
    (['cat', ' \n'], ValueError, "letters got an empty text at entry 1: ' "),
    (['cat', '!!'], ValueError, "nothing of the text '!!' is left after the tokenizer of letters cleaned it"),
])
def test_unusable_texts_are_named(texts, error, message):
    with pytest.raises(error, match=message):
        tower().encode(texts)


def test_unusable_options_are_named():
    with pytest.raises(ValueError, match='context must be more than the 2 begin and end marks of letters, got 2'):
        tower(context=2)
    with pytest.raises(ValueError, match='batch_size must be at least 1, got 0'):
        tower(batch_size=0)
    with pytest.raises(NotImplementedError, match='TextTower must implement `embed`'):
        TextTower(Echo(), Tokenizer(rows, 'letters'), channels=3, context=8).encode(['a'])


def test_the_signature_tells_everything_apart_that_changes_vectors():
    plain = tower()
    others = [tower(context=9), tower(truncate=True), tower(precision='bf16'),
              LetterTower(Echo(), Tokenizer(rows, 'other letters'), channels=3, context=8)]
    assert len({plain.signature, *(other.signature for other in others)}) == 5
    assert tower(batch_size=3).signature == plain.signature


def test_a_tower_brings_nothing_into_its_model():
    model = nn.ModuleDict({'text': tower()})
    assert not list(model.parameters()) and list(model.state_dict()) == ['text.frozen_record']
