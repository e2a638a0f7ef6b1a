"""Template sets against their recorded or published lists, and the errors of one's own."""
from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from frozenmm.foundation.templates import TEMPLATES, fill, resolve_templates


def test_vild_templates_equal_the_recorded_strings(golden_dir):
    case = json.loads((golden_dir / 'fc_clip' / 'text_classifier__synonyms' / 'case.json').read_text())
    assert fill('w0', TEMPLATES['vild14']) == case['params']['first_strings']


def test_imagenet_templates_equal_the_published_list():
    published = pytest.importorskip('open_clip').OPENAI_IMAGENET_TEMPLATES
    assert fill('cat', TEMPLATES['imagenet80']) == [template('cat') for template in published]


def test_fusioner_prompts_give_the_recorded_tokens(golden_dir):
    tokenizer = pytest.importorskip('open_clip').SimpleTokenizer()
    folder = golden_dir / 'fusioner' / 'text_prompt_ensemble__two_names'
    names = json.loads((folder / 'case.json').read_text())['params']['class_names']
    recorded = load_file(folder / 'tensors.safetensors')['out.token_ids']
    for name, expected in zip(names, recorded):
        assert tokenizer(fill(name, TEMPLATES['fusioner32'])).tolist() == expected.tolist()


def test_set_sizes():
    assert {name: len(sentences) for name, sentences in TEMPLATES.items()} == {
        'none': 1, 'simple': 1, 'vild14': 14, 'imagenet80': 80, 'fusioner32': 32, 'maskclip85': 85}


def test_own_templates_are_kept_in_order():
    assert resolve_templates(['b {}', 'a {}']) == ('b {}', 'a {}')
    assert fill('{} dog', ('a {}',)) == ['a {} dog']


@pytest.mark.parametrize(('templates', 'message'), [
    ('vild', r"unknown template set 'vild'; did you mean one of \['vild14'"),
    ('a photo of a {}', 'put it in a list'),
    ([], 'no templates given'),
    (['a {}', 'a photo'], "template 1 must be a sentence with {} exactly once, got 'a photo'"),
    (['{} and {}'], "template 0 must be a sentence with {} exactly once, got '{} and {}'"),
    ([3], 'template 0 must be a sentence with {} exactly once, got 3'),
])
def test_unusable_templates_are_named(templates, message):
    with pytest.raises(ValueError, match=message):
        resolve_templates(templates)
