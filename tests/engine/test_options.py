from __future__ import annotations

import pytest
from mmengine.config import Config

from frozenmm.engine.options import merge_options, parse_options


def _config() -> Config:
    return Config(dict(model=dict(num_queries=900, neck=dict(channels=[1, 2])), hooks=[dict(type='A', interval=1)], lr=0.1))


@pytest.mark.parametrize(('text', 'value'), [
    ('3', 3), ('1e-4', 1e-4), ('true', True), ('None', None), ('(0.9,0.99)', (0.9, 0.99)), ('[1,2]', [1, 2]),
    ('data/coco', 'data/coco'), ('a,b', ['a', 'b']), ('\'3\'', '3'), ('x=y', 'x=y'),
])
def test_values_are_literals_where_they_look_like_one(text, value):
    assert parse_options([f'key={text}']) == {'key': value}


@pytest.mark.parametrize('pair', ['key', '=3'])
def test_a_pair_without_key_or_sign_is_refused(pair):
    with pytest.raises(ValueError, match='takes key=value'):
        parse_options([pair])


def test_known_keys_are_set_also_inside_lists():
    cfg = _config()
    merge_options(cfg, {'model.num_queries': 40, 'hooks.0.interval': 7, 'lr': 0.2})
    assert (cfg.model.num_queries, cfg.hooks[0].interval, cfg.lr) == (40, 7, 0.2)


@pytest.mark.parametrize(('key', 'message'), [
    ('model.num_querys', 'model has no key \'num_querys\' \\(nearest: num_queries\\).*\\+model.num_querys='),
    ('modle.num_queries', 'the config has no key \'modle\' \\(nearest: model'),
    ('hooks.3.interval', 'hooks has no key \'3\''),
    ('lr.value', 'lr is a single value'),
])
def test_unknown_keys_are_refused_with_the_nearest(key, message):
    with pytest.raises(ValueError, match=message):
        merge_options(_config(), {key: 1})


def test_a_plus_adds_a_key_on_purpose():
    cfg = _config()
    merge_options(cfg, {'+model.extra.deep': 1})
    assert cfg.model.extra.deep == 1
