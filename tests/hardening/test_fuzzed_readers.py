"""Readers of foreign bytes: any content gives a result or a `UserError` in one sentence of ours, never a traceback.

Random, truncated and changed files, and JSON of wrong types.
"""
from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hardening_budget import FACTOR
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import frozenmm  # noqa: F401  (fills the holes of the installation first)
from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.convert.identify import weights_of
from frozenmm.errors import UserError
from frozenmm.foundation import FrozenModule
from frozenmm.foundation.depth_networks.hf import HFDepth
from frozenmm.foundation.feature_cache import FeatureCache, verify_cache
from frozenmm.foundation.feature_cache.shards import from_tensors, shard_content
from frozenmm.foundation.state_file import read_state
from frozenmm.foundation.templates import resolve_templates
from frozenmm.foundation.text_towers.hf import _check_folder
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.foundation.word_store import WordStore
from frozenmm.segmentation.frozen_seg.official_masks import read_official_masks
from frozenmm.zoo.checkpoints import INDEX, read_index
from frozenmm.zoo.models import read_models

MANY = settings(max_examples=300 * FACTOR)
SLOW = settings(max_examples=200 * FACTOR)
BARE = ('object is not', 'object has no', 'argument of type', 'invalid literal', 'unhashable', 'must be str',
        "'NoneType'", 'unpack', 'out of range', 'not supported between',
        'expected str', 'missing 1 required', 'sequence item')
"""What Python says of our code when a value has another type than expected."""
NAMES = ['classes', 'name', 'synonyms', 'isthing', 'id', 'color', 'palette', 'of', 'only', 'without', 'thing_classes',
         'stuff_classes', 'index', 'aliases', 'task', 'config', 'file', 'sha256', 'model_type', 'size', 'x']
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=14)


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with bits flipped, cut off, or with bytes put in; sometimes other bytes altogether."""
    kind = draw(st.sampled_from(['flip', 'flip', 'cut', 'insert', 'random']))
    if kind == 'random':
        return draw(st.binary(max_size=120))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if kind == 'cut':
        return content[:place]
    if kind == 'insert':
        return content[:place] + draw(st.binary(min_size=1, max_size=8)) + content[place:]
    broken = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        broken[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(broken)


@st.composite
def retyped(draw: st.DrawFn, content: object) -> object:
    """The structure with one of its values, at any depth, replaced by any JSON."""
    whole = [copy.deepcopy(content)]
    here, key = whole, 0
    while isinstance(here[key], dict | list) and here[key] and draw(st.booleans()):
        here = here[key]
        key = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
    here[key] = draw(JSON)
    return whole[0]


FOLDER = tempfile.TemporaryDirectory(prefix='frozenmm-readers-')


def file_of(name: str, content: bytes) -> Path:
    """A file of this name; every example writes its own over that of the one before."""
    path = Path(FOLDER.name) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def readable(read: Callable[[], object]) -> object:
    """What a reader gives; None after an error of the user, whose sentence is checked."""
    try:
        return read()
    except UserError as error:
        text = str(error)
        assert text and '\n  File' not in text and not any(bare in text for bare in BARE), text
        return None


# --- vocabularies

VOCABULARY = {'name': 'pets', 'classes': [{'name': 'cat', 'synonyms': ['kitten'], 'id': 3, 'isthing': True,
                                           'color': [1, 2, 3]}, 'dog, puppy', ['bird']],
              'palette': [[1, 2, 3]] * 3, 'thing_classes': ['cat'], 'stuff_classes': ['dog, puppy', 'bird']}


@MANY
@given(changed(json.dumps(VOCABULARY).encode()))
def test_vocabulary_files(content):
    for name in 'words.json', 'words.txt':
        path = file_of(name, content)
        readable(lambda path=path: Vocabulary.read(path))


@MANY
@given(retyped(VOCABULARY) | retyped({'of': 'pascal_voc_21', 'only': ['cat', 'dog']}))
def test_vocabularies_of_wrong_types(content):
    readable(lambda: Vocabulary.read(content))
    readable(lambda: Vocabulary.read(file_of('typed.json', json.dumps(content).encode())))


@MANY
@given(JSON)
def test_templates_of_wrong_types(content):
    readable(lambda: resolve_templates(content))


# --- the zoo

ENTRY = json.loads(INDEX.read_text())
ENTRY = {name: ENTRY[name] for name in list(ENTRY)[:2]}


@MANY
@given(changed(json.dumps(ENTRY).encode()))
def test_the_index_of_the_zoo(content):
    readable(lambda: read_index(file_of('index.json', content)))


@MANY
@given(retyped(ENTRY))
def test_the_index_of_the_zoo_with_wrong_types(content):
    readable(lambda: read_index(file_of('index.json', json.dumps(content).encode())))


METAFILE = {'Collections': [{'Name': 'C', 'Official Weights': {'Where': 'x'}}], 'Models': [
    {'Name': 'm', 'In Collection': 'C', 'Config': 'c.py', 'Results': [
        {'Task': 't', 'Dataset': 'd', 'Metrics': {'AP': 1.5}, 'Source': 'published', 'From': 'p'}]}]}


@SLOW
@given(retyped({'Import': ['m.yml']}), retyped(METAFILE), changed(json.dumps(METAFILE).encode()), st.booleans())
def test_descriptions_of_models(index, content, raw, damaged):
    file_of('models/model-index.yml', json.dumps(index).encode())
    file_of('models/m.yml', raw if damaged else json.dumps(content).encode())
    readable(lambda: read_models(Path(FOLDER.name) / 'models'))


# --- checkpoints

def _saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _safetensors(content: dict[str, torch.Tensor], header: dict[str, str]) -> bytes:
    from safetensors.torch import save
    return save(content, header)


STATE = {'state_dict': {'a.weight': torch.ones(3, 2)}, 'meta': {'epoch': 3}}
ZIPPED, LEGACY = _saved(STATE), _saved(STATE, _use_new_zipfile_serialization=False)
TENSORS = _safetensors({'a.weight': torch.ones(3, 2)}, {'config': '"x"'})


@SLOW
@given(changed(ZIPPED) | changed(LEGACY))
def test_checkpoints_of_torch(content):
    path = file_of('state.pth', content)
    for read in (load_checkpoint_file, read_state, lambda path: weights_of(load_checkpoint_file(path))):
        readable(lambda read=read: read(path))


@SLOW
@given(changed(TENSORS))
def test_checkpoints_of_safetensors(content):
    path = file_of('state.safetensors', content)
    for read in (load_checkpoint_file, read_state):
        readable(lambda read=read: read(path))


@MANY
@given(st.recursive(st.none() | st.integers() | st.text(max_size=4) | st.just(torch.ones(2)), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(['state_dict', 'model', 'module.a', 'x', 3]), inner,
                                         max_size=3), max_leaves=6))
def test_checkpoints_of_any_structure(content):
    path = file_of('any.pth', _saved(content))
    for read in (read_state, lambda path: weights_of(load_checkpoint_file(path))):
        readable(lambda read=read: read(path))


@MANY
@given(changed(b'{"name": "Linear", "fingerprint": "0123456789abcdef"}') | JSON.map(lambda x: json.dumps(x).encode()))
def test_records_of_frozen_networks(content):
    if content:
        record = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        readable(lambda: FrozenModule(nn.Linear(1, 1)).load_state_dict({'frozen_record': record}))


# --- features and text vectors on disk

RECIPE = {'tower': 'x', 'store': 'fp32'}
FEATURES = {'maps.c1': torch.ones(1, 2, 3, 3), 'valid': torch.tensor([[3, 3]]), 'region': torch.ones(1, 4)}
SHARD = shard_content({key: {name: value.clone() for name, value in FEATURES.items()} for key in ('one', 'two')})
LINE = {'shard': 'a.safetensors', 'bytes': len(SHARD), 'keys': ['one', 'two', 'three']}


@pytest.fixture(autouse=True)
def quiet():
    """Damaged caches warn, some of them hundreds of times here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def use_cache(recipe: bytes, index: bytes, shard: bytes) -> None:
    """Open a cache with these files and read everything in it."""
    with tempfile.TemporaryDirectory(dir=FOLDER.name) as folder:
        for name, content in (('recipe.json', recipe), ('index/w.jsonl', index), ('shards/a.safetensors', shard)):
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        cache = readable(lambda: FeatureCache(folder, RECIPE))
        if cache is not None:
            for key in ('one', 'two', 'three', *list(cache._places)[:3]):
                found = cache.get(key)
                if found is not None:
                    readable(lambda found=found: from_tensors(found, ['c1']))
            verify_cache(cache)


@SLOW
@given(changed(SHARD))
def test_shards_of_a_feature_cache(shard):
    for index in (b'', json.dumps(LINE | {'bytes': len(shard)}).encode() + b'\n'):
        use_cache(json.dumps(RECIPE).encode(), index, shard)


@SLOW
@given(changed(json.dumps(LINE).encode() + b'\n') | retyped(LINE).map(lambda x: json.dumps(x).encode() + b'\n'))
def test_the_index_of_a_feature_cache(index):
    use_cache(json.dumps(RECIPE).encode(), index, SHARD)


@SLOW
@given(changed(json.dumps(RECIPE).encode()) | retyped(RECIPE).map(lambda x: json.dumps(x).encode()))
def test_the_recipe_of_a_feature_cache(recipe):
    use_cache(recipe, b'', SHARD)


VECTORS = torch.ones(2, 4)


def _stored_words() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        store = WordStore(Path(folder) / 'words.sqlite')
        store.write('kind', dict(zip(['cat', 'dog'], VECTORS)))
        return store.path.read_bytes()


@SLOW
@given(changed(_stored_words()))
def test_stored_text_vectors(content):
    found = WordStore(file_of('words.sqlite', content)).read('kind', ['cat', 'dog'], 4)
    for word, vector in zip(['cat', 'dog'], VECTORS):  # what cannot be trusted is computed anew
        assert word not in found or torch.equal(found[word], vector)


# --- folders in transformers' layout

@SLOW
@given(changed(b'{"model_type": "bert"}') | JSON.map(lambda x: json.dumps(x).encode()))
def test_configs_of_text_encoders(content):
    for name in 'model.safetensors', 'vocab.txt':
        file_of(f'text/{name}', b'')
    readable(lambda: _check_folder(file_of('text/config.json', content).parent))


@SLOW
@given(JSON.filter(lambda x: not isinstance(x, dict)).map(lambda x: json.dumps(x).encode())
       | changed(b'{"model_type": "dpt"}'))
def test_configs_of_depth_models(content):
    readable(lambda: HFDepth(file_of('depth/config.json', content).parent))


# --- masks that FrozenSeg's own tools prepared

RECORDS = [{'preds': np.ones((3, 4), np.float32), 'predicted_iou': 0.9}]


@MANY
@given(changed(pickle.dumps(RECORDS)) | retyped([{'preds': [[1.0]], 'predicted_iou': 0.5}]).map(pickle.dumps))
def test_official_masks(content):
    readable(lambda: read_official_masks(file_of('a.pkl', content)))
