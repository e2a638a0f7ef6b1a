"""Text vectors of a vocabulary: computed once, stored, and turned into class scores.

Stored under `$FROZENMM_HOME/text` (by default `~/.cache/frozenmm/text`), one safetensors file per tower, vocabulary and
templates. A file is written under another name and renamed, so that nobody reads half of one.
"""
from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.errors import UserError, reading
from frozenmm.foundation.templates import fill, resolve_templates
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource

_PROMPTS_AT_ONCE = 2048
_SECONDS_BETWEEN_LINES = 10.0
_LAYOUT = '1'


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


def text_embeddings(tower: TextTower, vocabulary: VocabularySource, templates: str | Sequence[str] = 'vild14', *,
                    normalize: bool = True, store: bool = True, folder: str | Path | None = None) -> Tensor:
    """One vector per word of a vocabulary; read from disk if they have been computed before.

    Every word is put into every template, the vectors are L2-normalised, averaged, and L2-normalised again.

    Args:
        tower: encodes the prompts.
        vocabulary: a `Vocabulary` or what `Vocabulary.read` understands.
        templates: a named set or sentences, see `resolve_templates`.
        normalize: False leaves out the last normalisation. Source: the class embeddings of Frozen-DETR's LVIS models.
        store: read and write the stored file; False computes only.
        folder: where the file lies; `text_folder()` by default.

    Returns:
        (S, C) float32 on the tower's device, in the order of `vocabulary.words`.

    Raises:
        ValueError: unusable vocabulary or templates, or a prompt that is too long for the tower.
    """
    vocabulary = Vocabulary.read(vocabulary)
    sentences = resolve_templates(templates)
    if store:
        means = _stored(tower, vocabulary, sentences, Path(folder) if folder else text_folder())
    else:
        means = _compute(tower, vocabulary, sentences)
    return F.normalize(means, dim=-1) if normalize else means


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


def _compute(tower: TextTower, vocabulary: Vocabulary, templates: tuple[str, ...]) -> Tensor:
    """(S, C), the mean direction of every word; a word that stands twice is encoded once."""
    words = list(dict.fromkeys(vocabulary.words))
    step = max(1, _PROMPTS_AT_ONCE // len(templates))
    start = last = time.monotonic()
    means = []
    for first in range(0, len(words), step):
        part = words[first:first + step]
        vectors = tower.encode([prompt for word in part for prompt in fill(word, templates)])
        means.append(ensemble(vectors.view(len(part), len(templates), -1)))
        done, now = first + len(part), time.monotonic()
        if now - last > _SECONDS_BETWEEN_LINES and done < len(words):
            last = now
            print_log(f'{tower.name}: {done} of {len(words)} words of {vocabulary.name} encoded, '
                      f'{(now - start) / done * (len(words) - done):.0f} s left', logger='current')
    place = {word: index for index, word in enumerate(words)}
    return torch.cat(means)[torch.tensor([place[word] for word in vocabulary.words], device=means[0].device)]


def _stored(tower: TextTower, vocabulary: Vocabulary, templates: tuple[str, ...], folder: Path) -> Tensor:
    key = hashlib.sha256(json.dumps([_LAYOUT, tower.signature, vocabulary.fingerprint, templates]).encode()).hexdigest()
    path = folder / f'{key[:32]}.safetensors'
    shape = (len(vocabulary.words), tower.channels)
    with _one_process(path.with_suffix('.lock')):
        means = _read(path, shape)
        if means is None:
            means = _compute(tower, vocabulary, templates)
            notes = {'tower': tower.name, 'signature': tower.signature, 'vocabulary': vocabulary.name,
                     'templates': json.dumps(templates)}
            try:
                _write(path, means, notes)
            except OSError as error:
                _warn(f'text embeddings of {vocabulary.name} cannot be stored in {folder} ({error}), so they will be '
                      'computed again next time; set FROZENMM_HOME to a folder that can be written')
    return means.to(next(tower.network.parameters()).device)


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    """Only one process at a time: the others wait for the first one's result instead of computing it as well.

    Where no lock can be had (a folder that cannot be written, some network file systems), each goes on by itself.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open('w')
    except OSError:
        yield
        return
    with lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(means: Tensor) -> str:
    return hashlib.sha256(means.contiguous().numpy().tobytes()).hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The stored vectors; None, with a warning, if the file cannot be trusted."""
    if not path.is_file():
        return None
    safetensors = require('safetensors', 'a file of stored text embeddings')
    try:
        with reading(path, 'stored text embeddings', 'they are computed anew'):
            with safetensors.safe_open(path, 'pt') as file:
                means, metadata = file.get_tensor('means'), file.metadata() or {}
            if means.dtype != torch.float32 or tuple(means.shape) != shape:
                raise ValueError(f'{means.dtype} {tuple(means.shape)} instead of float32 {shape}')
            if metadata.get('sha256') != _digest(means):
                raise ValueError('its content does not match its checksum')
    except UserError as error:
        _warn(str(error))
        return None
    return means


def _write(path: Path, means: Tensor, metadata: dict[str, str]) -> None:
    save = require('safetensors.torch', 'storing text embeddings').save
    means = means.cpu().contiguous()
    content = save({'means': means}, {**metadata, 'sha256': _digest(means)})
    write_whole(path, content)


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
