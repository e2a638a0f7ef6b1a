from __future__ import annotations

import pytest
from mmengine.config import Config

from frozenmm.engine.options import merge_options, parse_options


def _config() -> Config:
    return Config(dict(model=dict(num_queries=900, neck=dict(channels=[1, 2])), work_dir='a', minutes=3,
                       custom_hooks=[dict(type='A', interval=1)]))


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
    merge_options(cfg, {'model.num_queries': 40, 'custom_hooks.0.interval': 7, 'work_dir': 'b'})
    assert (cfg.model.num_queries, cfg.custom_hooks[0].interval, cfg.work_dir) == (40, 7, 'b')


@pytest.mark.parametrize(('key', 'message'), [
    ('model.num_querys', 'model has no key \'num_querys\' \\(nearest: num_queries\\).*\\+model.num_querys='),
    ('modle.num_queries', 'the config has no key \'modle\' \\(nearest: model'),
    ('custom_hooks.3.interval', 'custom_hooks has no key \'3\''),
    ('work_dir.value', 'work_dir is a single value'),
    ('minutes', '\'minutes\' is a variable of the config file.*\\+minutes='),
])
def test_unknown_keys_are_refused_with_the_nearest(key, message):
    with pytest.raises(ValueError, match=message):
        merge_options(_config(), {key: 1})


def test_a_plus_adds_a_key_on_purpose():
    cfg = _config()
    merge_options(cfg, {'+model.extra.deep': 1})
    assert cfg.model.extra.deep == 1


def test_keys_of_the_runner_are_known_even_where_the_config_is_silent():
    cfg = _config()
    merge_options(cfg, {'log_level': 'ERROR'})
    assert cfg.log_level == 'ERROR'
