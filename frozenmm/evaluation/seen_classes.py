"""Seen and unseen classes, for every metric of open-vocabulary models by the same rule."""
from __future__ import annotations

import numpy as np

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource


def seen_split(vocabulary: VocabularySource | None, train_vocabulary: VocabularySource | None,
               metric: str) -> np.ndarray | None:
    """(K,) bool, classes that share a word with the training vocabulary; None without one.

    Args:
        vocabulary: the classes that are predicted, with their synonyms.
        train_vocabulary: the classes of the training set.
        metric: what the error calls the metric.

    Raises:
        UserError: a training vocabulary without a vocabulary. The names of a data set will not do: "sky-other-merged"
            shares no word with "sky".
    """
    if train_vocabulary is None:
        return None
    if vocabulary is None:
        raise UserError(f'{metric} decides by words which classes are seen, so with train_vocabulary it needs the '
                        'model\'s `vocabulary` too')
    return Vocabulary.read(vocabulary).seen_mask(Vocabulary.read(train_vocabulary)).numpy()
