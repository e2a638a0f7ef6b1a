"""Examples beside words: nearest neighbours of each class, weights that follow from the examples, and nothing else."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.segmentation.class_memory import MemoryWeights, RegionMemory, affinities, fitted_weights
from frozenmm.segmentation.near_examples import near_pairs

WORDS = Vocabulary.read(['mug, cup', 'spoon', 'sky'])


class Encoder:
    signature = {'tower': 'lite', 'channels': 4}


def unknowing(vectors):
    """Words that say nothing."""
    return torch.zeros(len(vectors), 3).log_softmax(-1)


@pytest.fixture
def memory(tmp_path):
    return ClassMemory(tmp_path / 'memory.sqlite', Encoder())


def test_the_mean_over_the_nearest_examples_of_a_class_counts():
    similarity = torch.tensor([[0.9, 0.6, 0.8, 0.3, 1.0], [0.5, 0.1, 0.2, 0.7, -2.0]])
    classes, weights = torch.tensor([0, 0, 0, 2, 3]), MemoryWeights(neighbours=2, threshold=0.5)
    near = affinities(near_pairs(similarity, 0.5), classes, classes.bincount(minlength=5), weights)
    torch.testing.assert_close(near, torch.tensor([[0.7, 0, 0, 1, 0], [0, 0, 0.4, 0, 0]]))


def test_affinities_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    similarity, classes = torch.rand(7, 40, generator=generator), torch.randint(0, 6, (40, ), generator=generator)
    for neighbours in 1, 3, 50:
        weights, counts = MemoryWeights(neighbours, 0.3), classes.bincount(minlength=6)
        found = affinities(near_pairs(similarity, 0.3), classes, counts, weights)
        for index in range(6):
            best = similarity[:, classes == index].sort(descending=True).values[:, :neighbours]
            torch.testing.assert_close(found[:, index], ((best - 0.3) / 0.7).clamp(min=0).mean(-1))


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


def test_one_example_a_class_cannot_be_left_out_so_the_usual_weight_holds():
    vectors = F.normalize(torch.tensor([[1.0, 0.5], [0.5, 1.0]]), dim=-1)
    found = fitted_weights(vectors, torch.arange(2), unknowing)
    assert found.weight == MemoryWeights().weight and found.threshold == pytest.approx(0.8)
    assert fitted_weights(vectors, torch.zeros(2).long(), unknowing) == MemoryWeights()  # nothing to tell apart


def test_examples_that_agree_count_much_and_those_that_contradict_each_other_nothing():
    torch.manual_seed(0)
    vectors = F.normalize(torch.eye(4)[:2].repeat_interleave(5, 0) + 0.05 * torch.randn(10, 4), dim=-1)
    classes = torch.tensor([0, 1]).repeat_interleave(5)
    assert fitted_weights(vectors, classes, unknowing).weight == 12.0
    # every example is like one of the other class and unlike its own
    assert fitted_weights(torch.eye(4)[[0, 1, 0, 1]], torch.tensor([0, 0, 1, 1]), unknowing).weight == 0.0


def test_the_words_judge_an_example_as_the_tower_gave_it(memory):
    given = []

    def listening(regions):
        given.append(regions)
        return unknowing(regions)

    vectors = 7 * torch.eye(4)[:2].repeat(2, 1)
    memory.add_vectors(['mug', 'spoon'] * 2, vectors)
    RegionMemory(memory, listening).logits(torch.ones(1, 1, 4), WORDS)
    assert torch.equal(given[0], vectors[[0, 2, 1, 3]])


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
