"""Examples beside words: nearest neighbours of each class, weights that follow from the examples, and nothing else."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.segmentation.class_memory import MemoryWeights, RegionMemory, affinity, fitted_weights, nearest_of_classes

WORDS = Vocabulary.read(['mug, cup', 'spoon', 'sky'])


class Encoder:
    signature = {'tower': 'lite', 'channels': 4}


def unknowing(vectors):
    """Words that say nothing."""
    return torch.zeros(len(vectors), 3).log_softmax(-1)


@pytest.fixture
def memory(tmp_path):
    return ClassMemory(tmp_path / 'memory.sqlite', Encoder())


def test_the_mean_of_the_nearest_examples_of_a_class_counts():
    similarity = torch.tensor([[0.9, 0.5, 0.1, 0.3]])
    near = nearest_of_classes(similarity, torch.tensor([0, 0, 0, 2]), 3, neighbours=2)
    torch.testing.assert_close(near, torch.tensor([[0.7, -torch.inf, 0.3]]))
    assert affinity(near, 10.0)[0, 1] == 0
    torch.testing.assert_close(affinity(torch.tensor(1.0), 10.0), torch.tensor(1.0))


def test_no_example_of_these_words_says_nothing(memory):
    memory.add_vectors(['fork'], torch.eye(4)[:1])
    assert RegionMemory(memory, unknowing).logits(torch.ones(1, 2, 4), WORDS) is None


def test_a_region_like_an_example_takes_its_name_and_synonyms_count(memory):
    memory.add_vectors(['Cup', 'spoon'], torch.eye(4)[:2])
    logits = RegionMemory(memory, unknowing).logits(5 * torch.eye(4)[None, :3], WORDS)
    assert logits.shape == (1, 3, 3)
    assert logits[0, :2].argmax(-1).tolist() == [0, 1]
    torch.testing.assert_close(logits[0, 0, 0], torch.tensor(MemoryWeights().weight))
    assert float(logits[0, 2].max()) < 0.01 and torch.all(logits[..., 2] == 0)  # like none, and sky has none


def test_one_example_a_class_cannot_be_left_out_so_the_defaults_hold():
    assert fitted_weights(torch.eye(4), torch.arange(4), unknowing) == MemoryWeights()


def test_examples_that_agree_count_much_and_those_that_contradict_nothing():
    torch.manual_seed(0)
    agreeing = F.normalize(torch.eye(4)[:2].repeat_interleave(5, 0) + 0.05 * torch.randn(10, 4), dim=-1)
    classes = torch.tensor([0, 1]).repeat_interleave(5)
    assert fitted_weights(agreeing, classes, unknowing).weight == 8.0

    def knowing(vectors):
        return 4 * F.one_hot(classes, 3).float().log_softmax(-1)

    mixed = F.normalize(torch.eye(4)[:2].repeat(5, 1) + 0.05 * torch.randn(10, 4), dim=-1)  # the other's neighbours
    assert fitted_weights(mixed[torch.arange(10)], classes, knowing).weight < 8.0
    swapped = torch.tensor([0, 1]).repeat(5)
    assert fitted_weights(mixed, swapped, unknowing).weight == 8.0


def test_weights_follow_from_the_examples_alone(memory):
    torch.manual_seed(1)
    vectors = torch.eye(4)[:2].repeat_interleave(3, 0) + 0.3 * torch.randn(6, 4)
    memory.add_vectors(['mug'] * 3 + ['spoon'] * 3, vectors)
    regions = torch.randn(1, 5, 4)
    scorer = RegionMemory(memory, unknowing)
    before = scorer.logits(regions, WORDS)
    memory.add_vectors(['sky'] * 2, torch.randn(2, 4))
    assert not torch.equal(scorer.logits(regions, WORDS), before)
    memory.remove('sky')
    assert torch.equal(scorer.logits(regions, WORDS), before)
    assert torch.equal(RegionMemory(ClassMemory(memory.path), unknowing).logits(regions, WORDS), before)
