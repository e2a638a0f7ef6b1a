"""The contract of frozen text encoders: texts in, one float32 vector each out."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.frozen_module import FrozenModule, FrozenNetwork


@dataclass(frozen=True)
class Tokenizer:
    """How a text becomes token ids.

    Attributes:
        rows: texts -> the ids of each with begin and end marks, neither cut nor filled up.
        identity: text that differs whenever the ids may differ.
        marks: how many ids of each row are begin and end marks.
        pad_id: fills short rows up.
    """

    rows: Callable[[Sequence[str]], list[list[int]]]
    identity: str
    marks: int = 2
    pad_id: int = 0


class TextTower(FrozenModule):
    """A frozen text encoder.

    Families derive from it and implement `embed`.

    Args:
        network: the network, or a `FrozenNetwork` to share.
        tokenizer: turns texts into token ids.
        channels: width of a text vector.
        context: the most tokens that a text may have, begin and end marks included.
        pad_to_context: fill up to the whole context rather than to the longest text of a batch; for networks whose
            result depends on it.
        truncate: cut a longer text (the end mark stays) instead of refusing it.
        batch_size: texts per forward pass.
        name: see `FrozenModule`; likewise precision, compile.
    """

    learns = False
    """Whether it has trained vectors around the frozen network, so that a word's vector changes in training."""

    def __init__(self, network: nn.Module | FrozenNetwork, tokenizer: Tokenizer, *, channels: int, context: int,
                 pad_to_context: bool = False, truncate: bool = False, batch_size: int = 256, name: str = '',
                 precision: str = 'fp32', compile: bool = False) -> None:
        super().__init__(network, name=name, precision=precision, compile=compile)
        if context <= tokenizer.marks:
            raise UserError(f'context must be more than the {tokenizer.marks} begin and end marks of {self.name}, '
                             f'got {context}')
        if batch_size < 1:
            raise UserError(f'batch_size must be at least 1, got {batch_size}')
        self.tokenizer = tokenizer
        self.channels = channels
        self.context = context
        self.pad_to_context = pad_to_context
        self.truncate = truncate
        self.batch_size = batch_size

    def embed(self, network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """Text vectors of a batch; families implement this.

        Args:
            network: the frozen network (possibly compiled), in its own precision.
            ids: (N, T) int64.
            lengths: (N,) int64, the tokens of each row that are not padding.

        Returns:
            (N, C).
        """
        raise NotImplementedError(f'{type(self).__name__} must implement `embed`')

    def learned(self, words: Sequence[str], templates: Sequence[str]) -> dict[str, Tensor]:
        """Mean directions (C,) of those of the words that are trained, for use now; never stored."""
        return {}

    def options(self) -> dict[str, object]:
        """What else than the weights decides a text's vector; families add theirs."""
        tokenizer = hashlib.sha256(self.tokenizer.identity.encode()).hexdigest()[:16]
        return {'family': type(self).__name__, 'precision': self.precision, 'context': self.context,
                'truncate': self.truncate, 'tokenizer': tokenizer}

    @property
    def signature(self) -> str:
        """Sixteen hex digits that identify the weights and everything else that decides a text's vector."""
        content = json.dumps({'fingerprint': self.fingerprint, **self.options()}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts.

        A text that occurs several times is encoded once; texts of similar length share a batch.

        Args:
            texts: at least one, none empty.

        Returns:
            (N, C) float32, on the tower's device.

        Raises:
            WrongKind: not a list of texts.
            UserError: no text, an empty one, or one longer than the context without `truncate=True`.
        """
        unique = list(dict.fromkeys(self._check(texts)))
        rows = self._fit(unique, self.tokenizer.rows(unique))
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        vectors: list[Tensor] = []
        for start in range(0, len(order), self.batch_size):
            batch = [rows[index] for index in order[start:start + self.batch_size]]
            vectors.append(self.run(self.embed, *self._collate(batch)))
        place = {unique[index]: position for position, index in enumerate(order)}
        return torch.cat(vectors)[torch.tensor([place[text] for text in texts], device=vectors[0].device)]

    def forward(self, texts: Sequence[str]) -> Tensor:  # type: ignore[override]
        """See `encode`."""
        return self.encode(texts)

    def _check(self, texts: Sequence[str]) -> Sequence[str]:
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise WrongKind(f'{self.name} encodes a list of texts, got {type(texts).__name__}; put a single text in a '
                            'list')
        if not texts:
            raise UserError(f'{self.name} got an empty list; give at least one text')
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise WrongKind(f'{self.name} encodes texts, but entry {index} is {type(text).__name__} {text!r}')
            if not text.strip():
                raise UserError(f'{self.name} got an empty text at entry {index}: {text!r}')
        return texts

    def _fit(self, texts: Sequence[str], rows: list[list[int]]) -> list[list[int]]:
        """The token rows, each within the context."""
        fitting = []
        for text, row in zip(texts, rows):
            if len(row) <= self.tokenizer.marks:
                raise UserError(f'nothing of the text {text!r} is left after the tokenizer of {self.name} cleaned it')
            if len(row) > self.context:
                if not self.truncate:
                    shown = text if len(text) <= 80 else f'{text[:77]}...'
                    raise UserError(f'the text {shown!r} has {len(row)} tokens, but {self.name} takes at most '
                                     f'{self.context}; shorten it, or build the tower with truncate=True')
                row = row[:self.context - 1] + row[-1:]
            fitting.append(row)
        return fitting

    def _collate(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        width = self.context if self.pad_to_context else max(map(len, rows))
        ids = torch.tensor([row + [self.tokenizer.pad_id] * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        return ids.to(self._frozen.device), lengths.to(self._frozen.device)
