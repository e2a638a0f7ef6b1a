"""Two opinions on words, calibrated."""
from __future__ import annotations

import pytest
import torch

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.segmentation.word_cells.evidence import Calibration, CellHead, KnownWords, logit

TRAINED = Vocabulary.read([dict(name='person', isthing=True), dict(name='bear', isthing=True),
                           dict(name='grass', isthing=False)])
CALIBRATION = dict(imagenet=(1.0, 0.0), trained=(3.0, -1.0))


def known(*words: str) -> KnownWords:
    return KnownWords.of(Vocabulary.read(list(words)), TRAINED)


def test_who_knows_a_word():
    words = known('bear', 'zebra', 'grass', 'unicorn')
    assert [bool(rows) for rows in words.imagenet] == [True, True, False, False]
    assert [bool(rows) for rows in words.trained] == [True, False, True, False]
    assert [words.known(index) for index in range(4)] == [True, True, True, False]


def test_words_are_stuff_where_they_mean_trained_stuff_and_things_else():
    assert known('bear', 'zebra', 'lawn', 'unicorn').things.tolist() == [True, True, False, True]
    said = KnownWords.of(Vocabulary.read([dict(name='grass', isthing=True)]), TRAINED)
    assert said.things.tolist() == [True]


def test_one_opinion_that_is_sure_is_enough():
    taught, learned = torch.full((4, 1, 1), 0.3), torch.full((4, 1, 1), 0.9)
    found = Calibration(**CALIBRATION).cells(taught, learned, known('bear', 'zebra', 'grass', 'unicorn'))[:, 0, 0]
    sure = (3 * logit(torch.tensor(0.9)) - 1).sigmoid()
    torch.testing.assert_close(found, torch.stack([1 - (1 - sure) * 0.7, torch.tensor(0.3), sure, torch.tensor(0.0)]))


def test_words_asked_for_do_not_compete():
    taught, learned = torch.rand(3, 2, 2), torch.rand(3, 2, 2)
    calibration = Calibration(**CALIBRATION)
    alone = calibration.cells(taught[:1], learned[:1], known('bear'))
    torch.testing.assert_close(calibration.cells(taught, learned, known('bear', 'zebra', 'grass'))[:1], alone)


def test_a_calibration_of_another_length_is_refused():
    with pytest.raises(UserError, match='calibration.imagenet must be a weight and a constant'):
        Calibration(**{**CALIBRATION, 'imagenet': (1.0, 2.0, 3.0)})


def test_a_segment_scores_by_its_calibration():
    score = Calibration(**CALIBRATION, segment=(2.0, 1.0)).score(torch.tensor(0.5))
    assert score == pytest.approx(float(torch.tensor(1.0).sigmoid()))


def test_the_head_leaves_nothing_out_in_eval_mode():
    head = CellHead(4, 3, hidden=8)
    cells = torch.randn(2, 4, 5, 6)
    head.train()(cells)
    assert not torch.equal(head(cells), head(cells))
    head.eval()
    assert head(cells).shape == (2, 3, 5, 6) and torch.equal(head(cells), head(cells))
