"""Examples of classes on disk: whole, in order, of one tower, and gone without a trace when they are removed."""
from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from frozenmm.errors import MissingFile, UnknownName, UnreadableFile, UserError
from frozenmm.foundation.class_memory import ClassMemory

CHANNELS = 8


class Encoder:
    """Gives the vector that stands in place of the picture."""

    def __init__(self, tower='lite', channels=CHANNELS):
        self.signature = dict(tower=tower, fingerprint='12ab', channels=channels)

    def __call__(self, image, *, mask=None, box=None):
        return image

    def surroundings(self, image, *, mask=None, box=None):
        return -image[None]


def vector(seed, channels=CHANNELS):
    return torch.randn(channels, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def memory(tmp_path):
    made = ClassMemory(tmp_path / 'things' / 'memory.sqlite', Encoder())
    for seed, name in enumerate(['mug', 'spoon', 'mug']):
        made.add(vector(seed), name)
    return made


def test_examples_come_back_as_unit_vectors_in_the_order_of_their_coming(memory):
    again = ClassMemory(memory.path).examples()
    assert again.names == ('mug', 'spoon', 'mug')
    given = torch.stack([vector(seed) for seed in range(3)])
    torch.testing.assert_close(again.vectors, F.normalize(given, dim=-1))
    torch.testing.assert_close(again.vectors * again.lengths, given)
    assert again.of_words(['cup', 'MUG']) == [0, 2] and again.of_words(['cup']) == []
    assert memory.list() == {'mug': 2, 'spoon': 1}


def test_a_memory_without_file_is_empty_and_makes_none(tmp_path):
    memory = ClassMemory(tmp_path / 'memory.sqlite', Encoder())
    assert memory.examples().names == () and memory.list() == {} and not memory.path.exists()
    with pytest.raises(MissingFile, match='nothing to export'):
        memory.export(tmp_path / 'copy.sqlite')


def test_only_what_is_new_is_read_and_another_process_is_noticed(memory):
    before = memory.examples()
    ClassMemory(memory.path, Encoder()).add(vector(9), 'fork')
    after = memory.examples()
    assert after.names == (*before.names, 'fork') and torch.equal(after.vectors[:3], before.vectors)
    assert memory.examples() is after
    ClassMemory(memory.path).remove('mug')
    assert memory.examples().names == ('spoon', 'fork')


def test_what_is_removed_leaves_no_trace(memory):
    before = memory.examples()
    memory.add(vector(7), 'Fork')
    memory.add(vector(8), 'fork')
    assert memory.list()['Fork'] == 2
    assert memory.remove('FORK') == 2
    after = memory.examples()
    assert after.names == before.names and torch.equal(after.vectors, before.vectors)


def test_an_emptied_memory_takes_any_tower(memory):
    memory.remove('mug')
    memory.remove('spoon')
    assert memory.examples().names == () and memory.signature is None
    other = ClassMemory(memory.path, Encoder('ViT-B', 4))
    other.add(vector(0, 4), 'mug')
    assert memory.examples().vectors.shape == (1, 4)


def test_surroundings_come_and_go_with_their_class(memory):
    before = memory.surroundings()
    memory.add(vector(7), 'fork')
    assert torch.equal(memory.surroundings(), torch.cat([before, -vector(7)[None]]))
    memory.remove('fork')
    assert torch.equal(memory.surroundings(), before)


def test_a_memory_from_before_surroundings_has_none_and_takes_them(memory):
    with sqlite3.connect(memory.path) as database:
        database.execute('DROP TABLE surroundings')
    assert len(memory.surroundings()) == 0
    memory.add(vector(7), 'fork')
    assert len(memory.surroundings()) == 1


def test_a_class_that_is_not_there_is_answered_with_near_ones(memory):
    with pytest.raises(UnknownName, match='spoon'):
        memory.remove('spoom')


def test_another_tower_is_refused_by_name(memory):
    with pytest.raises(UserError, match=r'as lite sees them, but the model\'s tower is ViT-B \(tower differ\)'):
        ClassMemory(memory.path, Encoder('ViT-B'))
    late = ClassMemory(memory.path.with_name('late.sqlite'), Encoder('ViT-B'))
    ClassMemory(late.path, Encoder()).add(vector(0), 'mug')
    with pytest.raises(UserError, match='another tower'):  # it was attached before the file was there
        late.add(vector(0), 'mug')


@pytest.mark.parametrize(('names', 'shape', 'message'), [
    ([' '], (1, CHANNELS), 'needs the name of its class'), (['mug'], (1, 3), r'vectors \(1, 8\), got \(1, 3\)'),
    (['mug', 'cup'], (1, CHANNELS), r'2 examples of lite')])
def test_examples_that_cannot_be_are_refused(memory, names, shape, message):
    with pytest.raises(UserError, match=message):
        memory.add_vectors(names, torch.ones(shape))
    assert len(memory.examples().names) == 3


def test_pictures_need_an_encoder(memory):
    with pytest.raises(UserError, match='without a model'):
        ClassMemory(memory.path).add('photo.jpg', 'mug', box=(0, 0, 1, 1))
    with pytest.raises(UserError, match='encoder before vectors'):
        ClassMemory(memory.path).add_vectors(['mug'], torch.ones(1, CHANNELS))


def test_an_export_is_a_memory(memory, tmp_path):
    copy = memory.export(tmp_path / 'copy.sqlite')
    memory.remove('mug')
    assert ClassMemory(copy, Encoder()).examples().names == ('mug', 'spoon', 'mug')
    memory.export(copy)  # replaces it whole
    assert ClassMemory(copy).list() == {'spoon': 1}


def test_a_file_of_another_kind_is_a_sentence(tmp_path):
    path = tmp_path / 'memory.sqlite'
    path.write_bytes(b'this is no database, but long enough to be one' * 50)
    with pytest.raises(UnreadableFile, match='no memory of classes, or it is damaged'):
        ClassMemory(path, Encoder())
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute('CREATE TABLE words (kind TEXT)')
    with pytest.raises(UnreadableFile, match='no memory of classes'):
        ClassMemory(path).list()


def test_damaged_examples_are_named_and_can_be_removed(memory):
    with sqlite3.connect(memory.path) as database:
        database.execute("UPDATE regions SET vector = ? WHERE name = 'spoon'", (bytes(4 * CHANNELS), ))
    fresh = ClassMemory(memory.path, Encoder())
    with pytest.raises(UnreadableFile, match='damaged examples of spoon; remove these classes'):
        fresh.examples()
    fresh.remove('spoon')
    assert fresh.examples().names == ('mug', 'mug')


WRITER = '''
import sys, torch
sys.path.insert(0, sys.argv[2])
from test_class_memory import Encoder, vector
from frozenmm.foundation.class_memory import ClassMemory
memory = ClassMemory(sys.argv[1], Encoder())
for number in range(100000):
    memory.add_vectors([f'class {number}'] * 2, torch.stack([vector(number), vector(number)]))
    print(number, flush=True)
'''


def test_a_writer_that_is_killed_leaves_whole_examples(tmp_path):
    path = tmp_path / 'memory.sqlite'
    with subprocess.Popen([sys.executable, '-c', WRITER, str(path), str(Path(__file__).parent)],
                          stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as writer:
        assert writer.stdout.readline() == '0\n'
        time.sleep(0.05)  # wherever it is then
        writer.send_signal(signal.SIGKILL)
        said = 0 if not (lines := writer.stdout.read().splitlines()) else int(lines[-1])
    examples = ClassMemory(path, Encoder()).examples()
    counts = ClassMemory(path).list()
    assert len(counts) >= said + 1 and set(counts.values()) == {2}
    assert torch.allclose(examples.vectors[-1], F.normalize(vector(len(counts) - 1), dim=-1))
    ClassMemory(path, Encoder()).add(vector(0), 'after')
