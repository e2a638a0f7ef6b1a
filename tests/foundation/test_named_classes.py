"""Words of a user's own and the classes that they mean."""
from __future__ import annotations

import pytest

from frozenmm.foundation.named_classes import NamedClasses, classes_of, imagenet_classes
from frozenmm.foundation.vocabulary import Vocabulary

pytest.importorskip('timm')


def imagenet(word: str) -> set[str]:
    classes = imagenet_classes()
    return {classes.names[index][0] for index in classes.meant([word])}


def coco(word: str) -> set[str]:
    words = Vocabulary.named('coco_panoptic_133')
    return {words[index].name for index in classes_of(words).meant([word])}


def test_a_group_means_all_its_classes():
    assert imagenet('bear') == {'brown bear', 'American black bear', 'ice bear', 'sloth bear'}
    assert len(imagenet('dog')) == 118
    assert imagenet('kitten') == imagenet('Cats') == imagenet('cat')


def test_an_exact_name_is_no_group_of_names_that_end_so():
    assert imagenet('lion') == {'lion'}
    assert coco('dog') == {'dog'} and coco('bear') == {'bear'}


def test_names_that_end_with_a_word_are_of_its_kind():
    classes = NamedClasses((('trailer truck', ), ('tow truck', 'wrecker'), ('tree', )))
    assert classes.meant(['truck']) == (0, 1)


def test_a_word_of_several_parts_means_what_its_end_means():
    assert imagenet('red mug') == imagenet('mug') == {'coffee mug', 'cup', 'espresso'}
    assert coco('my old sofa') == {'couch'}


def test_kinds_and_synonyms_hold_for_trained_classes():
    assert coco('wall') == {'wall', 'brick wall', 'stone wall', 'tile wall', 'wood wall'}
    assert coco('carpet') == {'rug'} and coco('lawn') == {'grass'}


@pytest.mark.parametrize('word', ['person', 'unicorn', 'sky', 'grass', 'kite', 'house'])
def test_what_imagenet_has_no_class_for_means_none(word):
    assert imagenet(word) == set()


def test_several_words_mean_the_classes_of_each():
    classes = imagenet_classes()
    assert set(classes.meant(['zebra', 'pizza'])) == {*classes.meant(['zebra']), *classes.meant(['pizza'])}


def test_every_group_holds_indices_of_imagenet():
    assert all(0 <= index < 1000 for rows in imagenet_classes().groups.values() for index in rows)
