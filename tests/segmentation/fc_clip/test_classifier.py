"""The classifier: words that change, and what a checkpoint says about them."""
from __future__ import annotations

import pytest
import torch
from tiny_segmentors import TESTING, TRAINING, WIDTH, CountingTower, classifier_options

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier


def classifier(**changes) -> MaskClassifier:
    torch.manual_seed(0)
    return MaskClassifier(**classifier_options(**changes)).eval()


def embeddings(generator):
    return torch.randn(2, 5, WIDTH, generator=generator)


def test_scores_follow_the_vocabulary_order(generator):
    module, seen = classifier(), embeddings(generator)
    names = ['zebra', 'cat', 'road', 'lamp']
    module.set_vocabulary(names)
    forward, frozen = module(seen), module.frozen_logits(torch.ones(1, 1, 16))
    module.set_vocabulary(names[::-1])
    torch.testing.assert_close(module(seen)[..., :-1], forward[..., :-1].flip(-1))
    torch.testing.assert_close(module.frozen_logits(torch.ones(1, 1, 16)), frozen.flip(-1))
    torch.testing.assert_close(module(seen)[..., -1], forward[..., -1])


def test_known_words_are_not_encoded_again(generator):
    tower = CountingTower()
    module = classifier(text_tower=tower, vocabulary=None)
    module.set_vocabulary(['unheard', 'of'])
    assert tower.encoded == 0  # nothing is encoded before it is needed
    first = module(embeddings(generator))
    assert tower.encoded == 2
    module.set_vocabulary(['something', 'else', 'unheard'])
    module(embeddings(generator))
    encoded = tower.encoded
    module.set_vocabulary(['unheard', 'of'])
    second = module(embeddings(torch.Generator().manual_seed(0)))
    assert tower.encoded == encoded and first.shape == second.shape


def test_train_mode_uses_the_training_classes(generator):
    module = classifier()
    assert module(embeddings(generator)).shape[-1] == len(TESTING) + 1
    assert module.train()(embeddings(generator)).shape[-1] == len(TRAINING) + 1
    assert module.rows.seen.all() and module.rows.things == (0, 1)
    assert module.eval().rows.seen.tolist() == [False, True, False] and module.rows.things == (0, 1, 2)


def test_an_empty_vocabulary_is_an_error():
    with pytest.raises(ValueError, match='a vocabulary needs at least one'):
        classifier().set_vocabulary([])


def test_a_vocabulary_without_any_seen_class_works(generator):
    module = classifier(vocabulary=['zebra', 'road'])
    assert not module.rows.seen.any()
    frozen = torch.randn(2, 5, 16, generator=generator)
    assert module.log_probs(module(embeddings(generator)), frozen).isfinite().all()


def test_no_vocabulary_at_all_is_an_error(generator):
    module = classifier(vocabulary=None, train_vocabulary=None)
    with pytest.raises(ValueError, match='the classifier has no vocabulary: name the classes in the config'):
        module(embeddings(generator))
    with pytest.raises(ValueError, match='the classifier has no train_vocabulary'):
        module.train()(embeddings(generator))


def test_a_seen_mask_in_another_order_is_an_error():
    module = classifier()
    module.set_vocabulary(TESTING, seen=torch.tensor([0, 1, 0]))
    assert module.rows.seen.tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"marks class 0 'zebra' as seen, but no word of it is in the training "
                                         r"vocabulary .* \(2 classes contradict\); is the vocabulary in another order"):
        module.set_vocabulary(TESTING, seen=torch.tensor([1, 0, 0]))
    with pytest.raises(ValueError, match=r'the seen mask has \(2,\) entries, but .* has 3 classes'):
        module.set_vocabulary(TESTING, seen=torch.tensor([1, 0]))


def test_a_checkpoint_brings_its_training_vocabulary():
    state = classifier(compat=True).state_dict()
    fresh = classifier(train_vocabulary=None)
    fresh.load_state_dict(state)
    assert fresh.train_vocabulary.words == Vocabulary.read(TRAINING).words and fresh.compat
    assert fresh.train_vocabulary[2].isthing is False
    assert fresh.rows.seen.tolist() == [False, True, False]


def test_a_training_vocabulary_in_another_order_is_refused():
    state = classifier().state_dict()
    with pytest.raises(ValueError, match="in another order: class 0 is 'dog' here and 'cat' in the checkpoint"):
        classifier(train_vocabulary=['dog', 'cat, kitten', 'sky']).load_state_dict(state)


def test_another_training_vocabulary_is_refused():
    state = classifier().state_dict()
    with pytest.raises(ValueError, match=r"is not the checkpoint's \(3 classes\): only here \[\['lamp'\]\]"):
        classifier(train_vocabulary=['cat, kitten', 'dog', 'lamp']).load_state_dict(state)


def test_a_given_seen_mask_is_checked_when_the_checkpoint_brings_the_words():
    module = classifier(train_vocabulary=None)
    module.set_vocabulary(TESTING, seen=torch.tensor([1, 0, 0]))
    with pytest.raises(ValueError, match='is the vocabulary in another order than the mask'):
        module.load_state_dict(classifier().state_dict())


def test_the_text_tower_is_built_only_when_words_must_be_encoded(generator):
    built = []

    @MODELS.register_module(name='TowerOfThisTest', force=True)
    def make():
        built.append(1)
        return CountingTower()

    module = classifier(text_tower=dict(type='TowerOfThisTest'))
    assert not built
    module(embeddings(generator))
    module.train()(embeddings(generator))
    assert built == [1]


def test_a_text_tower_of_another_width_is_refused(generator):
    module = classifier(text_tower=CountingTower(8))
    with pytest.raises(ValueError, match='vectors of width 8, but the classifier was built for embed_channels=16'):
        module(embeddings(generator))


def test_words_without_a_text_tower_are_an_error(generator):
    with pytest.raises(ValueError, match='no text tower to encode words with'):
        classifier(text_tower=None)(embeddings(generator))


def test_prepared_embeddings_need_no_text_tower(generator):
    module = classifier(text_tower=None, vocabulary=None)
    module.set_embeddings(torch.eye(16)[:3], [2, 1], seen=[1, 0], things=[1])
    assert module(embeddings(generator)).shape[-1] == 3 and module.rows.things == (1,)


@pytest.mark.parametrize('counts, seen, message', [
    ([], [], 'every class needs at least one word'), ([3, 0], [1, 1], 'every class needs at least one word'),
    ([2, 2], [1, 1], r'must have shape \(4, 16\), one row per word; got \(3, 16\)'),
    ([2, 1], [1], r'the seen mask has \(1,\) entries for 2 classes')])
def test_prepared_embeddings_that_do_not_fit_are_refused(counts, seen, message):
    with pytest.raises(ValueError, match=message):
        classifier().set_embeddings(torch.eye(16)[:3], counts, seen=seen)


def test_shares_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match="beta is the frozen branch's share, 0 to 1; got 1.5"):
        classifier(ensemble=dict(beta=1.5))


def test_void_against_the_training_classes_does_not_depend_on_the_words(generator):
    module, official, seen = classifier(void_against='training'), classifier(), embeddings(generator)
    expected = official(seen, official.rows_of(training=True)).softmax(-1)[..., -1]
    for words in (['zebra'], ['zebra', 'cat', 'road', 'lamp'], TRAINING):
        module.set_vocabulary(words)
        official.set_vocabulary(words)
        got, plain = module(seen), official(seen)
        torch.testing.assert_close(got.softmax(-1)[..., -1], expected, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(got[..., :-1], plain[..., :-1])  # classes among themselves stay as they are
    torch.testing.assert_close(got, plain, atol=1e-4, rtol=1e-4)  # the words of training: both ways agree
    torch.testing.assert_close(module.train()(seen), official.train()(seen))


def test_an_unknown_rival_of_void_is_refused():
    with pytest.raises(ValueError, match=r"void_against must be one of \['vocabulary', 'training'\], got 'all'"):
        classifier(void_against='all')


def test_a_sharpness_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match='sharpness must be positive, got 0'):
        classifier(ensemble=dict(sharpness=0))


def test_sharpness_acts_without_the_frozen_branch_too(generator):
    plain, sharp = (classifier(ensemble=dict(frozen=False, **more)) for more in ({}, dict(sharpness=4.0)))
    logits = torch.randn(1, 5, len(TESTING) + 1, generator=generator)
    one, other = plain.log_probs(logits, None), sharp.log_probs(logits, None)
    assert (other[..., :-1].softmax(-1).amax(-1) > one[..., :-1].softmax(-1).amax(-1)).all()
    torch.testing.assert_close(other.softmax(-1)[..., -1], one.softmax(-1)[..., -1], atol=1e-6, rtol=1e-5)


def test_without_ensemble_the_trained_branch_decides(generator):
    module = classifier(ensemble=dict(frozen=False))
    logits = module(embeddings(generator))
    torch.testing.assert_close(module.log_probs(logits, torch.zeros(2, 5, 16)), logits.log_softmax(-1))


def test_the_official_rules_for_queries_without_mask(generator):
    logits, frozen = torch.randn(1, 2, 4, generator=generator), torch.randn(1, 2, 16, generator=generator)
    valid = torch.tensor([[True, False]])
    results = {}
    for compat in False, True, 'all_masks', 'valid_masks':
        results[compat] = classifier(compat=compat).log_probs(logits, frozen, valid)
    torch.testing.assert_close(results[False], results['valid_masks'], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(results[False][:, 0], results[True][:, 0], atol=1e-5, rtol=1e-4)
    assert (results[False][:, 1] - results[True][:, 1]).abs().max() > 1e-2
    assert torch.equal(results[True], results['all_masks'])


def test_the_old_flag_says_what_compat_stands_for(generator):
    logits, frozen = torch.randn(1, 2, 4, generator=generator), torch.randn(1, 2, 16, generator=generator)
    valid = torch.tensor([[True, False]])
    with pytest.warns(FutureWarning, match="ensemble_on_valid_mask=True is now called compat='valid_masks'"):
        old = classifier(compat=True, ensemble_on_valid_mask=True)
    new = classifier(compat='valid_masks')
    assert torch.equal(old.log_probs(logits, frozen, valid), new.log_probs(logits, frozen, valid))


def test_an_unknown_rule_and_option_are_refused():
    with pytest.raises(UserError, match=r"compat must be False, True or one of \['all_masks', 'valid_masks'\]"):
        classifier(compat='resnet')
    with pytest.raises(UserError, match=r"EnsembleOptions has no option 'alhpa'; did you mean one of \['alpha'"):
        classifier(ensemble=dict(alhpa=0.5))


def test_flat_options_of_the_ensemble_still_work():
    with pytest.warns(FutureWarning, match=r'frozen_log_scale is now called ensemble=dict\(alpha=0.1, log_scale'):
        old = classifier(alpha=0.1, frozen_log_scale=2.0)
    assert (old.alpha, old.beta, old.frozen_log_scale, old.ensemble) == (0.1, 0.8, 2.0, True)
    with pytest.warns(FutureWarning, match=r'is now called ensemble=dict\(frozen=False, sharpness=4.0\)'):
        old = classifier(ensemble=False, sharpness=4.0)
    assert not old.ensemble and old.sharpness == 4.0


def test_the_frozen_temperature_is_that_of_the_text_tower(generator):
    tower = CountingTower()
    tower.logit_scale = 0.0
    cosines = classifier(text_tower=tower).frozen_logits(torch.randn(1, 4, 16, generator=generator))
    assert cosines.abs().max() <= 1
    sharp = classifier(ensemble=dict(log_scale=2.0)).frozen_logits(
        torch.randn(1, 4, 16, generator=generator.manual_seed(0)))
    torch.testing.assert_close(sharp, cosines * torch.tensor(2.0).exp())
