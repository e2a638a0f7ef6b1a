"""What examples and their surroundings say about regions."""
from __future__ import annotations

import pytest
import torch

from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.segmentation.word_cells.remembered import CellMemory

WORDS = Vocabulary.read(['mug, cup', 'spoon'])
AXES = torch.eye(4)


class Encoder:
    signature = {'tower': 'lite', 'channels': 4}


@pytest.fixture
def memory(tmp_path):
    return ClassMemory(tmp_path / 'memory.sqlite', Encoder())


def test_a_region_is_what_it_resembles_more_than_all_surroundings(memory):
    memory.add_vectors(['cup'], AXES[:1], surroundings=AXES[1:2])
    scores = CellMemory(memory).scores(AXES[:3], WORDS)
    assert scores[0, 0] > 0.9 and scores[0, 1] < 0.01 and scores[0, 2] < 0.2
    assert (scores[1] == 0).all()  # no example of a spoon


def test_what_surrounds_one_example_is_beside_all(memory):
    memory.add_vectors(['cup'], AXES[:1], surroundings=AXES[1:2])
    memory.add_vectors(['spoon'], AXES[1:2], surroundings=AXES[2:3])
    scores = CellMemory(memory).scores(torch.nn.functional.normalize(AXES[:1] + 0.8 * AXES[1:2]), WORDS)
    assert scores[0, 0] > scores[1, 0]


def test_without_surroundings_a_region_unlike_the_example_is_not_named(memory):
    memory.add_vectors(['cup'], AXES[:1])
    scores = CellMemory(memory).scores(AXES[:2], WORDS)
    assert scores[0, 0] > 0.9 and scores[0, 1] < 0.01


def test_one_that_is_sure_is_enough(memory):
    memory.add_vectors(['cup'], AXES[:1], surroundings=AXES[1:2])
    words = torch.tensor([[[0.5, 0.5]], [[0.3, 0.3]]])
    found = CellMemory(memory)(words, torch.tensor([[0, 1]]), AXES[:2], WORDS)
    assert found[0, 0, 0] > 0.9 and found[0, 0, 1] == pytest.approx(0.5, abs=0.01)
    assert torch.equal(found[1], words[1])
