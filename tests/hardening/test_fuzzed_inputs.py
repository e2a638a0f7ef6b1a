"""Whatever comes in, the answer is a result or an error of the documented kind; never another exception."""
from __future__ import annotations

import io
import json
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hardening_budget import FACTOR
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from PIL import Image

from frozenmm.apis.model_sources import read_config
from frozenmm.apis.vocabulary_text import parse_vocabulary
from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.compat.image_sources import read_images
from frozenmm.convert.command import CONVERTERS
from frozenmm.engine.options import merge_options, parse_options
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.zoo.checkpoints import read_index

BUDGET = settings(max_examples=60 * FACTOR)
SMALL = settings(max_examples=25 * FACTOR)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
                        ['classes', 'name', 'synonyms', 'isthing', 'id', 'color', 'palette', 'of', 'only', 'x']),
                        inner, max_size=4), max_leaves=12)


def written(content: bytes, suffix: str) -> Path:
    """A file with this content, in the test's own folder of files that live as long as the process."""
    handle = tempfile.NamedTemporaryFile(suffix=suffix, delete=False, dir=FOLDER.name)
    with handle:
        handle.write(content)
    return Path(handle.name)


FOLDER = tempfile.TemporaryDirectory(prefix='frozenmm-fuzz-')


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with bytes changed, cut off or put in."""
    place = draw(st.integers(0, len(content) - 1))
    kind = draw(st.sampled_from(['change', 'cut', 'insert']))
    if kind == 'cut':
        return content[:place]
    filling = draw(st.binary(min_size=1, max_size=8))
    return content[:place] + filling + content[place + (len(filling) if kind == 'change' else 0):]


@BUDGET
@given(damaged(png()))
def test_damaged_pictures(content):
    try:
        (image, ) = read_images(written(content, '.png'))
    except ValueError as error:
        assert 'no readable image' in str(error) or 'pixels' in str(error)
    else:
        assert image.pixels.ndim == 3 and image.pixels.dtype == np.uint8


@SMALL
@given(st.binary(max_size=200), st.sampled_from(['.png', '.jpg', '.gif', '.tif', '.webp']))
def test_bytes_that_call_themselves_a_picture(content, suffix):
    path = written(content, suffix)
    with pytest.raises(ValueError, match='no readable image'):
        list(read_images(path))


@BUDGET
@given(st.lists(st.integers(0, 5), max_size=5), st.sampled_from([np.uint8, np.float32, np.int64, np.bool_, object]))
def test_arrays_of_any_shape_and_type(shape, kind):
    array = np.zeros(shape, kind)
    try:
        (image, ) = read_images(array)
    except ValueError as error:
        assert 'image arrays must' in str(error)
    else:
        assert image.pixels.shape == (*shape[:2], 3)


@SMALL
@given(st.none() | st.integers() | st.binary() | st.dictionaries(st.text(), st.text()) | st.lists(st.integers()))
def test_sources_of_any_kind(source):
    with pytest.raises((TypeError, ValueError)):
        list(read_images(source))


@BUDGET
@given(JSON)
def test_vocabularies_of_any_structure(content):
    for source in (content, written(json.dumps(content).encode(), '.json')):
        try:
            found = Vocabulary.read(source)
        except (ValueError, TypeError, FileNotFoundError) as error:
            assert str(error)
        else:
            assert len(found) == len(found.names) > 0 and all(name.strip() for name in found.names)


@SMALL
@given(st.binary(max_size=80))
def test_vocabulary_files_of_any_bytes(content):
    for suffix in ('.txt', '.json'):
        try:
            assert Vocabulary.read(written(content, suffix)).names
        except ValueError as error:
            assert str(error)


@BUDGET
@given(st.text(alphabet=string.printable + 'äß漢\u200b\U0001f600', max_size=40))
def test_words_that_are_typed(text):
    try:
        assert parse_vocabulary(text).names
    except (ValueError, FileNotFoundError) as error:
        assert str(error)


@BUDGET
@given(st.text(alphabet=string.ascii_letters + string.digits + ' =()[]{},\'"\n#.:', max_size=60))
def test_files_that_call_themselves_a_config(text):
    path = written(text.encode(), '.py')
    try:
        assert 'model' in read_config(path)
    except (ValueError, FileNotFoundError) as error:
        assert str(error)


@BUDGET
@given(st.text(alphabet='abc.+=0123[](),\'" ', max_size=20))
def test_options_of_any_text(text):
    cfg = Config(dict(model=dict(a=1, b=[1, dict(c=2)]), data='x'))
    try:
        merge_options(cfg, parse_options([text]))
    except ValueError as error:
        assert '--cfg-options' in str(error)


@SMALL
@given(JSON)
def test_indices_of_any_structure(content):
    try:
        read_index(written(json.dumps(content).encode(), '.json'))
    except ValueError as error:
        assert str(error)
    else:
        assert content == {}


def _checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({'state_dict': {'a.weight': torch.ones(3, 2)}, 'meta': {'epoch': 3}}, buffer)
    return buffer.getvalue()


def _safetensors() -> bytes:
    from safetensors.torch import save
    return save({'a.weight': torch.ones(3, 2)}, {'config': '"x"'})


@SMALL
@given(damaged(_checkpoint()))
def test_damaged_checkpoints(content):
    try:
        assert isinstance(load_checkpoint_file(written(content, '.pth')), dict)
    except ValueError as error:
        assert str(error)


@SMALL
@given(damaged(_safetensors()))
def test_damaged_safetensors(content):
    try:
        assert isinstance(load_checkpoint_file(written(content, '.safetensors')), dict)
    except ValueError as error:
        assert str(error)


PARTS = ['module.', 'backbone.', 'sem_seg_head.', 'pixel_decoder.', 'predictor.', 'transformer.', 'encoder.',
         'layers.0.', 'visual.', 'blocks.0.', 'attn.', 'class_embed.', 'query_feat.', 'decoder.', 'fusion.', 'sam.',
         'conv1.', 'weight', 'bias', 'running_mean', 'num_batches_tracked']


@BUDGET
@given(st.sampled_from(sorted(CONVERTERS)), st.dictionaries(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(''.join),
    st.lists(st.integers(0, 3), max_size=3), max_size=6))
def test_converters_of_any_keys_and_shapes(system, shapes):
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    try:
        converted, report = CONVERTERS[system](state)
    except ValueError as error:
        assert str(error)
    else:
        assert len(report.renamed) + len(report.dropped) >= len(converted) and not report.unmatched
