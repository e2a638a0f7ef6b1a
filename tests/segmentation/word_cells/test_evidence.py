"""Two opinions on words, calibrated."""
from __future__ import annotations

import pytest
import torch

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.segmentation.word_cells.evidence import Calibration, CellHead, KnownWords, logit

TRAINED = Vocabulary.read([dict(name='person', isthing=True), dict(name='bear', isthing=True),
                           dict(name='grass', isthing=False)])
CALIBRATION = dict(both=(1.0, 2.0, 0.5), imagenet=(1.0, 0.0), trained=(3.0, -1.0))


def known(*words: str) -> KnownWords:
    return KnownWords.of(Vocabulary.read(list(words)), TRAINED)


def test_who_knows_a_word():
    words = known('bear', 'zebra', 'grass', 'unicorn')
    assert [words.source(index) for index in range(4)] == ['both', 'imagenet', 'trained', None]


def test_words_are_stuff_where_they_mean_trained_stuff_and_things_else():
    assert known('bear', 'zebra', 'lawn', 'unicorn').things.tolist() == [True, True, False, True]
    said = KnownWords.of(Vocabulary.read([dict(name='grass', isthing=True)]), TRAINED)
    assert said.things.tolist() == [True]


def test_each_source_has_its_own_weights():
    taught, learned = torch.full((4, 1, 1), 0.3), torch.full((4, 1, 1), 0.6)
    found = Calibration(**CALIBRATION).cells(taught, learned, known('bear', 'zebra', 'grass', 'unicorn'))[:, 0, 0]
    a, b = (logit(torch.tensor(value)) for value in (0.3, 0.6))
    torch.testing.assert_close(found, torch.stack([
        (a + 2 * b + 0.5).sigmoid(), a.sigmoid(), (3 * b - 1).sigmoid(), torch.tensor(0.0)]))


def test_words_asked_for_do_not_compete():
    taught, learned = torch.rand(3, 2, 2), torch.rand(3, 2, 2)
    calibration = Calibration(**CALIBRATION)
    alone = calibration.cells(taught[:1], learned[:1], known('bear'))
    torch.testing.assert_close(calibration.cells(taught, learned, known('bear', 'zebra', 'grass'))[:1], alone)


def test_a_calibration_of_another_length_is_refused():
    with pytest.raises(UserError, match='calibration.both must be 3 numbers'):
        Calibration(**{**CALIBRATION, 'both': (1.0, 2.0)})


def test_the_head_leaves_nothing_out_in_eval_mode():
    head = CellHead(4, 3, hidden=8)
    cells = torch.randn(2, 4, 5, 6)
    head.train()(cells)
    assert not torch.equal(head(cells), head(cells))
    head.eval()
    assert head(cells).shape == (2, 3, 5, 6) and torch.equal(head(cells), head(cells))
