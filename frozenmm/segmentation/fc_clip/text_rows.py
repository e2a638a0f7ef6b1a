"""Vocabularies as the classifier uses them: unit text vectors, the class of each, seen classes, things."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import Vocabulary


@dataclass(frozen=True)
class TextRows:
    """A vocabulary in text space.

    Attributes:
        text: (S, D) unit rows, the words of the classes one after the other.
        class_index: (S,) int64 class of each row.
        seen: (K,) bool, classes of the training vocabulary.
        things: indices of the classes that have instances.
    """

    text: Tensor
    class_index: Tensor
    seen: Tensor
    things: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.seen)

    def to(self, device: torch.device) -> TextRows:
        """The same on a device."""
        return replace(self, text=self.text.to(device), class_index=self.class_index.to(device),
                       seen=self.seen.to(device))


def things_of(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Indices of the thing classes; a class that does not say counts as a thing."""
    return tuple(index for index, entry in enumerate(vocabulary) if entry.isthing is not False)


def check_seen(seen: Tensor, vocabulary: Vocabulary, train_vocabulary: Vocabulary | None) -> Tensor:
    """A seen mask (K,) bool that a checkpoint or user gives, checked against the names.

    Raises:
        UserError: wrong length; a class that the words contradict, as after a change of order.
    """
    seen = torch.as_tensor(seen).bool().cpu()
    if seen.shape != (len(vocabulary),):
        raise UserError(f'the seen mask has {tuple(seen.shape)} entries, but {vocabulary.name} has {len(vocabulary)} '
                        'classes')
    if train_vocabulary is not None:
        expected = vocabulary.seen_mask(train_vocabulary)
        wrong = (seen != expected).nonzero()[:, 0].tolist()
        if wrong:
            index = wrong[0]
            marked, found = ('seen', 'no word') if seen[index] else ('unseen', 'a word')
            raise UserError(
                f'the seen mask marks class {index} {vocabulary[index].name!r} as {marked}, but {found} of it is '
                f'in the training vocabulary {train_vocabulary.name} ({len(wrong)} classes contradict); is the '
                'vocabulary in another order than the mask?')
    return seen


def check_same_training(record: Sequence[Sequence[str]], vocabulary: Vocabulary) -> None:
    """A checkpoint's training vocabulary against the model's.

    Raises:
        UserError: they differ in words or order; the text names the first difference.
    """
    own = [list(entry.words) for entry in vocabulary]
    given = [list(words) for words in record]
    if own == given:
        return
    if sorted(own) == sorted(given):
        index = next(i for i, (a, b) in enumerate(zip(own, given)) if a != b)
        raise UserError(f'the training vocabulary {vocabulary.name} has the checkpoint\'s classes in another order: '
                        f'class {index} is {own[index][0]!r} here and {given[index][0]!r} in the checkpoint; use the '
                        'same order, or leave train_vocabulary out to take the checkpoint\'s')
    extra = [words for words in own if words not in given]
    lacking = [words for words in given if words not in own]
    raise UserError(f'the training vocabulary {vocabulary.name} ({len(own)} classes) is not the checkpoint\'s '
                    f'({len(given)} classes): only here {extra[:3]}, only in the checkpoint {lacking[:3]}; leave '
                    'train_vocabulary out to take the checkpoint\'s')
