"""Text embeddings against recorded cases, their store on disk, and class scores."""
from __future__ import annotations

import copy
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from frozenmm.foundation import text_embeddings as module
from frozenmm.foundation import word_store
from frozenmm.foundation.templates import fill, resolve_templates
from frozenmm.foundation.text_embeddings import WordVectors, class_scores, ensemble, text_embeddings
from frozenmm.foundation.text_tower import TextTower, Tokenizer
from frozenmm.foundation.vocabulary import Vocabulary


class Sums(nn.Module):
    """A text's vector from the numbers of its letters."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.sin(torch.arange(256 * 5.).view(256, 5) * scale))

    def forward(self, ids, lengths):
        inside = (torch.arange(ids.shape[1]) < lengths[:, None]).float()
        return torch.einsum('ntc,nt->nc', self.table[ids], inside) + self.table[ids[:, 1] // 2]


class CountingTower(TextTower):
    """A quick text tower that counts the texts it encodes."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(Sums(scale), Tokenizer(lambda texts: [[0, *text.encode(), 0] for text in texts], 'bytes'),
                         channels=5, context=77, name='sums')
        self.encoded = 0

    def embed(self, network, ids, lengths):
        self.encoded += len(ids)
        return network(ids, lengths)


@pytest.fixture
def warnings(monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr(word_store, '_warn', messages.append)
    return messages


def case(golden_dir, system, name):
    folder = golden_dir / system / name
    return json.loads((folder / 'case.json').read_text()), load_file(folder / 'tensors.safetensors')


def test_recorded_text_classifier(golden_dir):
    recorded, tensors = case(golden_dir, 'fc_clip', 'text_classifier__synonyms')
    parameters, tolerance = recorded['params'], recorded['tolerance']
    vocabulary = Vocabulary.read(parameters['class_names'])
    train = Vocabulary.read(parameters['train_class_names'])
    features = tensors['in.text_features'].unflatten(0, (-1, parameters['num_templates_per_name']))
    classifier = F.normalize(ensemble(features), dim=-1)
    assert_close(classifier, tensors['out.classifier'], **tolerance)
    assert vocabulary.counts == tensors['out.num_synonyms'].tolist()
    assert vocabulary.seen_mask(train).tolist() == tensors['out.seen'].bool().tolist()
    rows = torch.cat([classifier, F.normalize(tensors['in.void_embedding'], dim=-1)])
    scores = tensors['in.logit_scale'].exp().clamp(max=100) * F.normalize(tensors['in.embeddings'], dim=-1) @ rows.T
    logits = torch.cat([class_scores(scores[..., :-1], vocabulary), scores[..., -1:]], -1)
    assert_close(logits, tensors['out.logits'], **tolerance)


def test_recorded_prompt_ensemble(golden_dir):
    recorded, tensors = case(golden_dir, 'fusioner', 'text_prompt_ensemble__two_names')
    assert_close(F.normalize(ensemble(tensors['in.raw']), dim=-1), tensors['out.embedding'], **recorded['tolerance'])


def test_vectors_follow_the_words_and_average_the_directions_of_the_templates():
    tower, vocabulary = CountingTower(), Vocabulary.read(['cat, puss', 'dog', 'hound, dog'])
    found = text_embeddings(tower, vocabulary, 'vild14', store=False)
    for word, vector in zip(vocabulary.words, found):
        prompts = tower.encode(fill(word, resolve_templates('vild14')))
        assert_close(vector, F.normalize(F.normalize(prompts, dim=1).mean(0), dim=0))
    assert_close(found[2], found[4], atol=0, rtol=0)


def test_unnormalised_vectors_have_the_same_direction_and_are_shorter():
    plain = text_embeddings(CountingTower(), ['cat', 'dog'], 'imagenet80', normalize=False, store=False)
    unit = text_embeddings(CountingTower(), ['cat', 'dog'], 'imagenet80', store=False)
    assert (plain.norm(dim=1) < 0.999).all()
    assert_close(F.normalize(plain, dim=1), unit)


def test_vectors_do_not_depend_on_the_size_of_the_parts(monkeypatch):
    vocabulary = Vocabulary.named('cityscapes_19')
    whole = text_embeddings(CountingTower(), vocabulary, 'vild14', store=False)
    monkeypatch.setattr(module, '_PROMPTS_AT_ONCE', 30)
    lines: list[str] = []
    monkeypatch.setattr(module, '_SECONDS_BETWEEN_LINES', -1.0)
    monkeypatch.setattr(module, 'print_log', lambda line, **_: lines.append(line))
    assert_close(text_embeddings(CountingTower(), vocabulary, 'vild14', store=False), whole)
    assert 'words of cityscapes_19 encoded' in lines[0] and lines[0].endswith('s left')


def test_stored_vectors_are_read_instead_of_computed(tmp_path):
    first, second = CountingTower(), CountingTower()
    computed = text_embeddings(first, ['cat, puss', 'dog'], folder=tmp_path)
    assert first.encoded == 3 * 14
    assert_close(text_embeddings(second, ['cat, puss', 'dog'], folder=tmp_path), computed, atol=0, rtol=0)
    assert second.encoded == 0
    text_embeddings(second, ['cat, puss', 'dog'], normalize=False, folder=tmp_path)
    assert second.encoded == 0


def test_the_store_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    text_embeddings(CountingTower(), ['cat'])
    assert len(list((tmp_path / 'text').glob('*.sqlite'))) == 1
    monkeypatch.delenv('FROZENMM_HOME')
    monkeypatch.setenv('HOME', '/somewhere')
    assert str(module.text_folder()) == '/somewhere/.cache/frozenmm/text'


def test_another_tower_or_template_is_another_vector(tmp_path):
    for scale, words, templates in [(1.0, ['cat', 'dog'], 'none'), (2.0, ['cat', 'dog'], 'none'),
                                    (1.0, ['dog', 'cat'], 'none'), (1.0, ['cat', 'dog'], 'simple')]:
        tower = CountingTower(scale)
        found = text_embeddings(tower, words, templates, folder=tmp_path)
        assert_close(found, text_embeddings(tower, words, templates, store=False), atol=0, rtol=0)


def test_one_word_more_encodes_one_word(tmp_path):
    words = [f'word {number}' for number in range(600)]
    text_embeddings(CountingTower(), words, folder=tmp_path)
    tower = CountingTower()
    found = text_embeddings(tower, [*words, 'another'], folder=tmp_path)
    assert tower.encoded == 14 and found.shape == (601, 5)
    text_embeddings(tower, ['another', 'word 3', 'word 599'], folder=tmp_path)
    assert tower.encoded == 14


def test_without_a_store_the_words_are_remembered_and_bounded():
    vectors = WordVectors(CountingTower(), 'none', store=False, most=3)
    vectors.means(['a', 'b', 'c'])
    vectors.means(['a', 'd'])  # b is what was used longest ago
    assert vectors.tower.encoded == 4
    vectors.means(['c', 'a', 'd'])
    assert vectors.tower.encoded == 4
    vectors.means(['b'])
    assert vectors.tower.encoded == 5


def test_words_that_are_remembered_go_with_a_copy():
    vectors = WordVectors(CountingTower(), 'none', store=False)
    before = vectors.unit(['cat', 'dog'])
    copied = copy.deepcopy(vectors)
    assert_close(copied.unit(['dog', 'cat']), before[[1, 0]], atol=0, rtol=0)


def test_many_vocabularies_do_not_fill_the_disk(tmp_path):
    store = word_store.WordStore(tmp_path / 'words.sqlite', largest=100_000)
    for number in range(300):
        store.write('kind', {f'{number} {index}': torch.full((50, ), float(number)) for index in range(10)})
        assert store.path.stat().st_size <= 100_000
    assert len(store.read('kind', [f'299 {index}' for index in range(10)], 50)) == 10
    assert not store.read('kind', ['0 0'], 50)
    assert [path.name for path in tmp_path.iterdir()] == ['words.sqlite']


def test_several_threads_encode_every_word_once(tmp_path):
    vectors = WordVectors(CountingTower(), 'none', folder=tmp_path)
    words = [f'word {number}' for number in range(50)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda first: vectors.unit(words[first:]), range(20)))
    assert vectors.tower.encoded == 50
    for first, rows in enumerate(found):
        assert_close(rows, found[0][first:], atol=0, rtol=0)


def damage_half(content: bytes) -> bytes:
    return content[:len(content) // 2]


def damage_vectors(content: bytes) -> bytes:
    vector = text_embeddings(CountingTower(), ['cat'], 'none', store=False, normalize=False).numpy().tobytes()
    assert content.count(vector) == 1
    return content.replace(vector, bytes(len(vector)))


def damage_all(content: bytes) -> bytes:
    return b'no words here, but enough of them to be no data base at all ' * 9


@pytest.mark.parametrize('damage', [damage_half, damage_vectors, damage_all])
def test_a_damaged_file_is_named_and_computed_anew(tmp_path, warnings, damage):
    before = text_embeddings(CountingTower(), ['cat', 'dog'], 'none', folder=tmp_path)
    path = tmp_path / 'words.sqlite'
    path.write_bytes(damage(path.read_bytes()))
    assert_close(text_embeddings(CountingTower(), ['cat', 'dog'], 'none', folder=tmp_path), before, atol=0, rtol=0)
    assert warnings and all(str(path) in text for text in warnings) and 'damaged' in warnings[0]
    again = CountingTower()
    assert_close(text_embeddings(again, ['cat', 'dog'], 'none', folder=tmp_path), before, atol=0, rtol=0)
    assert again.encoded == 0


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, warnings):
    (tmp_path / 'file').write_text('')
    found = text_embeddings(CountingTower(), ['cat'], folder=tmp_path / 'file' / 'text')
    assert found.shape == (1, 5) and 'set FROZENMM_HOME to a folder that can be written' in warnings[0]


def _work(folder, queue):
    torch.set_num_threads(1)
    tower = CountingTower()
    vectors = text_embeddings(tower, 'cityscapes_19', folder=folder)
    queue.put((tower.encoded, vectors.sum().item()))


def test_of_several_processes_only_one_computes(tmp_path):
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(tmp_path, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(encoded > 0 for encoded, _ in results) == [False, False, True]
    assert len({total for _, total in results}) == 1


def test_unusable_input_is_named():
    with pytest.raises(ValueError, match='unknown vocabulary'):
        text_embeddings(CountingTower(), 'cityscape', store=False)
    with pytest.raises(ValueError, match='unknown template set'):
        text_embeddings(CountingTower(), ['cat'], 'vild', store=False)
    with pytest.raises(ValueError, match="the text 'There is the x.* in the scene' has 78 tokens, but sums takes"):
        text_embeddings(CountingTower(), ['x' * 50], store=False)
    with pytest.raises(ValueError, match='3 word scores for vocabulary, which has 2 words in 1 classes'):
        class_scores(torch.zeros(3), Vocabulary.read(['cat, puss']))


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 99))
def test_a_class_scores_as_its_best_word(counts, seed):
    words = iter(range(99))
    vocabulary = Vocabulary.read([[f'w{next(words)}' for _ in range(count)] for count in counts])
    scores = torch.randn(2, sum(counts), generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([part.max(-1).values for part in scores.split(counts, -1)], -1)
    assert_close(class_scores(scores, vocabulary), expected, atol=0, rtol=0)


def test_the_gradient_goes_to_the_first_best_word():
    scores = torch.tensor([1., 3., 3., 2.], requires_grad=True)
    class_scores(scores, Vocabulary.read(['a, b, c', 'd'])).sum().backward()
    assert scores.grad.tolist() == [0, 1, 0, 1]


def test_minilm_finds_the_class_of_a_description(minilm):
    vocabulary = Vocabulary.read(['cat, kitten', 'car, automobile', 'tree'])
    classes = text_embeddings(minilm, vocabulary, 'simple', store=False)
    queries = text_embeddings(minilm, ['a furry pet that purrs', 'a vehicle with four wheels'], 'none', store=False)
    assert class_scores(queries @ classes.T, vocabulary).argmax(-1).tolist() == [0, 1]
