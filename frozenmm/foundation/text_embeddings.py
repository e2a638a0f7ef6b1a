"""Text vectors of a vocabulary: every word encoded once, kept in memory and on disk, and turned into class scores.

On disk they lie in `$FROZENMM_HOME/text/words.sqlite` (by default under `~/.cache/frozenmm`), a row for each tower,
templates and word.
"""
from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F

from frozenmm.compat.files import locked
from frozenmm.foundation.templates import fill, resolve_templates
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.foundation.word_store import WordStore

_PROMPTS_AT_ONCE = 2048
_SECONDS_BETWEEN_LINES = 10.0
_LAYOUT = '2'
_MOST_IN_MEMORY = 8192


def text_folder() -> Path:
    """Where text embeddings are stored."""
    home = os.environ.get('FROZENMM_HOME')
    return (Path(home).expanduser() if home else Path.home() / '.cache' / 'frozenmm') / 'text'


def ensemble(vectors: Tensor) -> Tensor:
    """Mean of the directions of several text vectors.

    Args:
        vectors: (..., P, C), one per template, not normalised.

    Returns:
        (..., C) float32, not normalised: shorter than 1 the more the templates disagree.
    """
    return F.normalize(vectors.float(), dim=-1).mean(-2)


class WordVectors:
    """Vectors of words, as a tower and templates give them: encoded once, whichever vocabularies they stand in.

    May be used by several threads. In memory are the words used last.

    Args:
        tower: encodes the prompts.
        templates: a named set or sentences, see `resolve_templates`.
        store: read and write the stored words.
        folder: where they lie; `text_folder()` by default.
        most: words in memory; more where one vocabulary has more.
    """

    def __init__(self, tower: TextTower, templates: str | Sequence[str], *, store: bool = True,
                 folder: str | Path | None = None, most: int = _MOST_IN_MEMORY) -> None:
        self.tower, self.templates, self.most = tower, resolve_templates(templates), most
        self.folder = (Path(folder) if folder else text_folder()) if store else None
        self._known: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key != '_lock'}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def means(self, words: Sequence[str], name: str = 'vocabulary') -> Tensor:
        """Mean directions (S, C) float32 of S words on the tower's device, not normalised; see `ensemble`.

        Args:
            words: what to encode; a word that stands twice is encoded once.
            name: of the vocabulary, for the lines that say how far it is.
        """
        learned = self.tower.learned(words, self.templates)
        unique = [word for word in dict.fromkeys(words) if word not in learned]
        with self._lock:
            missing = [word for word in unique if word not in self._known]
            if missing:
                get = self._computed if self.folder is None else self._stored
                self._known.update(get(missing, name))
            for word in unique:  # the last in a dict are those used last
                self._known[word] = self._known.pop(word)
            rows = [learned[word] if word in learned else self._known[word] for word in words]
            for word in list(self._known)[:max(0, len(self._known) - max(self.most, len(unique)))]:
                del self._known[word]
        device = next(self.tower.network.parameters()).device
        return torch.stack([row.to(device) for row in rows] if learned else rows).to(device)

    def unit(self, words: Sequence[str], name: str = 'vocabulary') -> Tensor:
        """The same (S, C), L2-normalised."""
        return F.normalize(self.means(words, name), dim=-1)

    def _stored(self, words: Sequence[str], name: str) -> dict[str, Tensor]:
        """From disk, where they are there."""
        folder = cast(Path, self.folder)
        key = hashlib.sha256(json.dumps([_LAYOUT, self.tower.signature, self.templates]).encode()).hexdigest()[:32]
        store = WordStore(folder / 'words.sqlite')
        found = store.read(key, words, self.tower.channels)
        if len(found) == len(words):
            return found
        with _one_process(folder / f'{key}.lock'):  # the others wait for its words instead of encoding them
            found |= store.read(key, [word for word in words if word not in found], self.tower.channels)
            missing = [word for word in words if word not in found]
            if missing:
                computed = self._computed(missing, name)
                store.write(key, computed)
                found |= computed
        return found

    def _computed(self, words: Sequence[str], name: str) -> dict[str, Tensor]:
        """The mean direction (C,) of every word, on the CPU."""
        step = max(1, _PROMPTS_AT_ONCE // len(self.templates))
        start = last = time.monotonic()
        found: dict[str, Tensor] = {}
        for first in range(0, len(words), step):
            part = words[first:first + step]
            vectors = self.tower.encode([prompt for word in part for prompt in fill(word, self.templates)])
            found.update(zip(part, ensemble(vectors.view(len(part), len(self.templates), -1)).cpu()))
            done, now = first + len(part), time.monotonic()
            if now - last > _SECONDS_BETWEEN_LINES and done < len(words):
                last = now
                print_log(f'{self.tower.name}: {done} of {len(words)} words of {name} encoded, '
                          f'{(now - start) / done * (len(words) - done):.0f} s left', logger='current')
        return found


def text_embeddings(tower: TextTower, vocabulary: VocabularySource, templates: str | Sequence[str] = 'vild14', *,
                    normalize: bool = True, store: bool = True, folder: str | Path | None = None) -> Tensor:
    """One vector per word of a vocabulary; words that have been encoded before are read from disk.

    Every word is put into every template, the vectors are L2-normalised, averaged, and L2-normalised again.

    Args:
        tower: encodes the prompts.
        vocabulary: a `Vocabulary` or what `Vocabulary.read` understands.
        templates: a named set or sentences, see `resolve_templates`.
        normalize: False leaves out the last normalisation. Source: the class embeddings of Frozen-DETR's LVIS models.
        store: read and write the stored words; False computes only.
        folder: where they lie; `text_folder()` by default.

    Returns:
        (S, C) float32 on the tower's device, in the order of `vocabulary.words`.

    Raises:
        ValueError: unusable vocabulary or templates, or a prompt that is too long for the tower.
    """
    vocabulary = Vocabulary.read(vocabulary)
    vectors = WordVectors(tower, templates, store=store, folder=folder)
    take = vectors.unit if normalize else vectors.means
    return take(vocabulary.words, vocabulary.name)


def class_scores(similarities: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Score of every class: that of its best word.

    Args:
        similarities: (..., S), scores of the words in the order of `vocabulary.words`.
        vocabulary: K classes with S words.

    Returns:
        (..., K); the gradient goes to the best word, the first one of equals.

    Raises:
        ValueError: not S scores.
    """
    if similarities.shape[-1] != len(vocabulary.words):
        raise ValueError(f'{similarities.shape[-1]} word scores for {vocabulary.name}, which has '
                         f'{len(vocabulary.words)} words in {len(vocabulary)} classes; embed this vocabulary')
    table = vocabulary.word_table.to(similarities.device)
    return similarities[..., table].max(-1).values


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    """Only one process at a time; where no lock can be had (an unwritable folder), each goes on by itself."""
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(locked(path, busy=f'another process encodes words; waiting for it ({path})'))
        yield
