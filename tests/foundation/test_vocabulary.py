"""Vocabularies: every reader, every error, the packaged lists, and properties that hold for any words."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frozenmm.foundation.vocabulary import MAX_WORD_LENGTH, Vocabulary, VocabularyClass, named_vocabularies

# words without commas, line breaks or outer blanks, as a file with comma-separated words can hold them; no comments, no
# numbers before a colon
WORDS = st.text(st.characters(codec='utf-8', exclude_categories=('C', 'Z'), exclude_characters=',#:'), min_size=1,
                max_size=12)
CLASSES = st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=8, unique_by=tuple)

SIZES = {'ade20k_150': (150, 403), 'ade20k_847': (847, 1342), 'bdd100k_40': (40, 40), 'cityscapes_19': (19, 60),
         'coco_panoptic_133': (133, 254), 'coco_stuff_171': (171, 328), 'mapillary_vistas_65': (65, 153),
         'pascal_context_459': (459, 559), 'pascal_context_59': (59, 160), 'pascal_voc_20': (20, 79),
         'pascal_voc_21': (21, 153)}


@settings(deadline=None, max_examples=50)  # writes files
@given(CLASSES)
def test_lists_text_and_json_give_the_same_classes(tmp_path_factory, classes):
    folder = tmp_path_factory.mktemp('vocabulary')
    lines = '\n'.join(', '.join(words) for words in classes) + '\n'
    (folder / 'words.txt').write_bytes(lines.encode())
    (folder / 'words.json').write_text(json.dumps({'classes': classes}), encoding='utf-8')
    from_list = Vocabulary.read([','.join(words) for words in classes])
    for vocabulary in (Vocabulary.read(classes), Vocabulary.read(folder / 'words.txt'),
                       Vocabulary.read(str(folder / 'words.json'))):
        assert [entry.words for entry in vocabulary] == [tuple(words) for words in classes]
        assert vocabulary.fingerprint == from_list.fingerprint
    from_list.save(folder / 'saved.json')
    assert Vocabulary.read(folder / 'saved.json').classes == from_list.classes
    assert sorted(path.name for path in folder.iterdir()) == ['saved.json', 'words.json', 'words.txt']


@settings(deadline=None)
@given(CLASSES)
def test_words_and_their_classes_belong_together(classes):
    vocabulary = Vocabulary.read(classes)
    assert sum(vocabulary.counts) == len(vocabulary.words) == len(vocabulary.class_of_word)
    for word, index in zip(vocabulary.words, vocabulary.class_of_word.tolist()):
        assert word in vocabulary[index].words


@settings(deadline=None)
@given(CLASSES, st.randoms())
def test_reordering_changes_the_fingerprint_and_permutes_the_seen_mask(classes, random):
    vocabulary = Vocabulary.read(classes)
    train = vocabulary.subset(random.sample(range(len(classes)), random.randint(1, len(classes))))
    order = random.sample(range(len(classes)), len(classes))
    shuffled = vocabulary.subset(order)
    assert (shuffled.fingerprint == vocabulary.fingerprint) == (order == sorted(order))
    assert shuffled.seen_mask(train).tolist() == vocabulary.seen_mask(train)[order].tolist()


@pytest.mark.parametrize('name', SIZES)
def test_packaged_vocabularies_load_with_all_their_words(name):
    vocabulary = Vocabulary.named(name)
    assert (len(vocabulary), len(vocabulary.words)) == SIZES[name]


def test_packaged_vocabularies_are_the_given_ones(shared_dir):
    assert named_vocabularies() == sorted(SIZES)
    for name in set(SIZES) - {'bdd100k_40', 'pascal_voc_20'}:
        original = Vocabulary.read(shared_dir / 'data' / 'vocabularies' / f'{name}.json')
        assert original.classes == Vocabulary.named(name).classes


def test_coco_panoptic_has_80_things_and_its_own_ids():
    vocabulary = Vocabulary.named('COCO-panoptic 133')
    assert int(vocabulary.thing_mask.sum()) == 80
    assert vocabulary.ids[:3] == [1, 2, 3] and vocabulary.ids[-1] == 200
    assert vocabulary[0].words[:2] == ('person', 'child')


def test_voc_without_background_has_20_classes():
    vocabulary = Vocabulary.named('pascal_voc_21').without('background')
    assert len(vocabulary) == 20 and vocabulary[0].name == 'aeroplane'
    assert vocabulary.classes == Vocabulary.named('pascal_voc_20').classes


def test_nearest_names_answer_a_misspelt_packaged_name():
    with pytest.raises(ValueError, match=r"unknown vocabulary 'coco_panoptic_13'; did you mean.*'coco_panoptic_133'"):
        Vocabulary.named('coco_panoptic_13')


def test_seen_is_equality_of_any_word_with_any_training_word():
    test = Vocabulary.read(['w0, w1', 'w2', 'w3, w4, w5', 'W1'])
    assert test.seen_mask(Vocabulary.read(['w1,foo', 'bar'])).tolist() == [True, False, False, False]
    assert test.seen_mask(Vocabulary.read(['nothing of that'])).tolist() == [False] * 4
    assert test.seen_mask(test).tolist() == [True] * 4


def test_a_word_may_stand_in_several_classes_and_twice_in_one():
    vocabulary = Vocabulary.read(['bag, sack', 'bag, purse', 'stove, oven, oven'])
    assert vocabulary.counts == [2, 2, 3]


def test_metainfo_gives_things_colours_and_synonyms():
    metainfo = {'classes': ('cat', 'wall', 'picture, painting'),
                'palette': [(1, 2, 3), [4, 5, 6], (7, 8, 9), (0, 0, 0)],
                'thing_classes': ('cat', 'picture, painting'), 'stuff_classes': ['wall']}
    vocabulary = Vocabulary.read(metainfo)
    assert vocabulary.thing_mask.tolist() == [True, False, True]
    assert vocabulary[1] == VocabularyClass('wall', (), 1, False, (4, 5, 6))
    assert vocabulary[2].synonyms == ('painting',)
    assert vocabulary.metainfo() == {
        'classes': ('cat', 'wall', 'picture'), 'palette': [(1, 2, 3), (4, 5, 6), (7, 8, 9)],
        'thing_classes': ('cat', 'picture'), 'stuff_classes': ('wall',)}


def test_one_of_thing_and_stuff_classes_is_enough():
    assert Vocabulary.read({'classes': ['cat', 'wall'], 'thing_classes': ['cat']}).thing_mask.tolist() == [True, False]
    assert Vocabulary.read({'classes': ['cat', 'wall'], 'stuff_classes': ['cat']}).thing_mask.tolist() == [False, True]


@pytest.mark.parametrize(('package', 'name', 'size'), [
    ('mmdet', 'CocoPanopticDataset', 133), ('mmdet', 'ADE20KPanopticDataset', 150), ('mmdet', 'LVISV1Dataset', 1203),
    ('mmseg', 'ADE20KDataset', 150), ('mmseg', 'CityscapesDataset', 19)])
def test_metainfo_of_installed_data_sets_is_understood(package, name, size):
    pytest.importorskip(package)
    import frozenmm  # noqa: F401  (fills the hole of a missing mmcv._ext)
    dataset = getattr(__import__(f'{package}.datasets', fromlist=['datasets']), name)
    assert len(Vocabulary.read(dataset.METAINFO)) == size


def test_things_are_unknown_until_somebody_says():
    vocabulary = Vocabulary.read(['cat', 'wall'])
    with pytest.raises(ValueError, match="does not say whether class 0 'cat' is a thing or stuff"):
        _ = vocabulary.thing_mask
    assert vocabulary.with_things(['cat']).thing_mask.tolist() == [True, False]
    with pytest.raises(ValueError, match=r"has no class 'cart'; did you mean one of \['cat'"):
        vocabulary.with_things(['cart'])


@pytest.mark.parametrize(('source', 'message'), [
    ([], 'vocabulary has no classes'),
    (['cat', ''], r"class 1 \(''\) has an empty name"),
    (['cat', ' \t'], r"class 1 \(''\) has an empty name"),
    (['cat', 'dog,,hound'], r"class 1 \('dog', '', 'hound'\) has an empty synonym 1"),
    (['cat', ['dog', '  ']], r"class 1 \('dog', ''\) has an empty synonym 1"),
    (['cat, puss', 'dog', 'cat,puss'], "class 2 'cat' has the same words as class 0"),
    (['x' * (MAX_WORD_LENGTH + 1)], 'class 0 has a name of 201 characters'),
    ([['cat', 3]], 'class 0 holds 3 where a word should be'),
    ([3], 'class 0 must be a name, a list of words, or an object with "name"; got 3'),
    ([[]], 'class 0 must be a name'),
    ([{'nam': 'cat'}], r"class 0 has the unknown key 'nam'; did you mean one of \['name'"),
    ([{'id': 3}], 'class 0 has no "name"'),
    ([{'name': 'cat', 'synonyms': 'puss'}], "the synonyms of class 0 'cat' must be a list, got 'puss'"),
    ([{'name': 'cat', 'id': '1'}], "the id of class 0 'cat' must be a whole number, got '1'"),
    ([{'name': 'cat', 'id': 1}, {'name': 'dog', 'id': 1}],
     "class 1 'dog' has the id 1, which class 0 'cat' has already"),
    ([{'name': 'cat', 'isthing': 'yes'}], "\"isthing\" of class 0 'cat' must be true or false, got 'yes'"),
    ([{'name': 'cat', 'index': 1}], "class 0 'cat' says index 1; classes must be listed in the order"),
    ([{'name': 'cat', 'color': [0, 300, 0]}], r'class 0 must be three numbers in 0..255 \(RGB\), got \[0, 300, 0\]'),
    ({'names': ['cat']}, r"vocabulary has no \"classes\"; it has \['names'\]"),
    ({'classes': 'cat'}, "\"classes\" must be a list, got str 'cat'"),
    ({'classes': None}, '"classes" must be a list, got NoneType'),
    ({'classes': ['cat', 'dog'], 'palette': [(0, 0, 0)]}, 'the palette must be a list of at least 2 RGB colours'),
    ({'classes': ['cat'], 'palette': [(0, 0)]}, 'palette entry 0 must be three numbers'),
    ({'classes': ['cat'], 'thing_classes': ['cut']}, r"thing_classes names 'cut', which is not among.*\['cat'\]"),
    ({'classes': ['cat'], 'thing_classes': ['cat'], 'stuff_classes': ['cat']}, "'cat' is among the thing_classes and"),
    ({'classes': ['cat', 'dog'], 'thing_classes': ['cat'], 'stuff_classes': []},
     r"\['dog'\] are neither among the thing"),
])
def test_unusable_content_is_named_with_its_place(source, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.read(source)


def test_duplicate_classes_pass_when_asked_for():
    assert len(Vocabulary.read(['cat', 'cat'], allow_duplicates=True)) == 2


@pytest.mark.parametrize(('content', 'name', 'message'), [
    (b'cat\n\ndog\n', 'a.txt', r'a.txt: line 2 \(\'\'\) has an empty name'),
    (b'cat\ndog\ncat\n', 'a.txt', "a.txt: line 3 'cat' has the same words as line 1"),
    (b'\n\n', 'a.txt', 'a.txt has no classes'),
    (b'caf\xe9\n', 'a.txt', 'a.txt cannot be read as a vocabulary: it is no text in utf-8 .byte 3'),
    (b'{"classes": ["cat", "do', 'a.json', 'a.json cannot be read as a vocabulary: Unterm.*line 1 column 21'),
    (b'3', 'a.json', 'must hold a list of classes or an object with "classes", got int'),
])
def test_unusable_files_are_named_with_the_line(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.read(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_first_class(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfcat\r\ndog\r\n')
    assert Vocabulary.read(tmp_path / 'a.txt').names == ['cat', 'dog']


def test_a_missing_file_is_named_in_full(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / 'none.json')):
        Vocabulary.read(tmp_path / 'none.json')


def test_other_files_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match='neither a .json nor a .txt file, nor a packaged vocabulary'):
        Vocabulary.read(tmp_path / 'words.csv')
    with pytest.raises(TypeError, match='got int'):
        Vocabulary.read(3)
    with pytest.raises(TypeError, match='class 0 has the name 3; words must be text'):
        Vocabulary((VocabularyClass(3),))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path: Path = tmp_path / 'words.json'
    Vocabulary.read(['cat']).save(path)
    before = path.read_bytes()

    def broken(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', broken)
    with pytest.raises(OSError, match='disk full'):
        Vocabulary.read(['dog']).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_part_of_a_vocabulary_keeps_its_order_ids_and_synonyms():
    kept = Vocabulary.read(dict(of='coco_panoptic_133', only=['wall', 'person']))
    assert kept.names == ['person', 'wall'] and kept.ids == [1, 199] and 'woman' in kept.words
    rest = Vocabulary.read(dict(of='coco_panoptic_133', without=['wall', 'person'], name='most'))
    assert len(rest) == 131 and rest.name == 'most' and not set(rest.words) & set(kept.words)


@pytest.mark.parametrize(('source', 'message'), [
    (dict(of='coco_panoptic_133'), r'dict\(of=vocabulary, only=\[names\]\)'),
    (dict(of='coco_panoptic_133', only=['cat'], without=['dog']), 'got the keys'),
    (dict(of='coco_panoptic_133', only='cat'), "'only' must be a list"),
    (dict(of='coco_panoptic_133', only=['kat']), 'did you mean one of'),
    (dict(of=['cat'], without=['cat']), 'has no classes'),
])
def test_unusable_parts_of_a_vocabulary_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.read(source)


def test_categories_of_coco_and_lvis_are_a_vocabulary(tmp_path):
    coco = [dict(id=1, name='person', supercategory='person', keypoints=['nose'], skeleton=[[1, 2]]),
            dict(id=184, name='tree-merged', supercategory='plant', isthing=0, color=[107, 142, 35])]
    (tmp_path / 'instances.json').write_text(json.dumps(dict(images=[], annotations=[], categories=coco)))
    for source in (coco, tmp_path / 'instances.json', dict(categories=coco)):
        vocabulary = Vocabulary.read(source)
        assert vocabulary.names == ['person', 'tree-merged'] and vocabulary.ids == [1, 184]
        assert vocabulary[0].isthing is None and vocabulary[1].isthing is False
        assert vocabulary[1].color == (107, 142, 35)
    lvis = [dict(id=2, name='sofa', synonyms=['sofa', 'couch'], synset='sofa.n.01', **{'def': 'a seat'}, frequency='f',
                 image_count=3, instance_count=9)]
    assert Vocabulary.read(lvis)[0].words == ('sofa', 'couch')


def test_text_may_have_comments_and_numbers(tmp_path):
    path = tmp_path / 'words.txt'
    path.write_text('# what the robot knows\n0: cat, kitten\n2:dog\n')
    vocabulary = Vocabulary.read(path)
    assert [entry.words for entry in vocabulary] == [('cat', 'kitten'), ('dog', )] and vocabulary.ids == [0, 2]
    path.write_text('0: cat\n# the rest\n0: dog\n')
    with pytest.raises(ValueError, match="line 3 'dog' has the id 0, which line 1 'cat' has already"):
        Vocabulary.read(path)
    path.write_text('ratio 16: 9\n4: cat\n')  # not every line has a number, so none is one
    assert Vocabulary.read(path).names == ['ratio 16: 9', '4: cat']
