"""Frozen text towers with a few trained vectors: prompts around every name, or rows for names of their own."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.inside_blocks import hooked
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.vocabulary import same_word
from frozenmm.registry import MODELS

PLACES = ('front', 'behind', 'around')


def learning_tower(tower: object) -> TextTower | None:
    """The built text tower where it has something to train, so that its owner takes it among its modules; else None.

    Args:
        tower: a text tower, its config, or None.
    """
    if isinstance(tower, Mapping):
        kind = MODELS.get(tower['type']) if isinstance(tower.get('type'), str) else tower.get('type')
        tower = MODELS.build(dict(tower)) if getattr(kind, 'learns', False) else None
    return tower if isinstance(tower, TextTower) and tower.learns else None


class LearningTextTower(TextTower):
    """A text tower with trained vectors around a frozen one, `inner`, whose network and tokenizer it has.

    Args:
        text_tower: config of a text tower, or a built one.

    Raises:
        WrongKind: `text_tower` is no text tower.
    """

    learns = True
    inner: TextTower

    def __init__(self, text_tower: Mapping[str, object] | TextTower) -> None:
        inner = MODELS.build(dict(text_tower)) if isinstance(text_tower, Mapping) else text_tower
        if not isinstance(inner, TextTower) or inner.learns:
            raise WrongKind(f'{type(self).__name__} needs a text tower without trained vectors, e.g. '
                            f'dict(type=\'frozenmm.MiniLMTextTower\'), got {type(inner).__name__}')
        super().__init__(inner._frozen, inner.tokenizer, channels=inner.channels, context=inner.context,
                         pad_to_context=inner.pad_to_context, truncate=inner.truncate, batch_size=inner.batch_size)
        self.gradient = 'through'
        # outside the module tree: the state dict holds one record of the network, the one of this tower
        self.__dict__['inner'] = inner
        if hasattr(inner, 'logit_scale'):
            self.logit_scale = inner.logit_scale

    def embed(self, network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """See `TextTower.embed`; that of `inner`."""
        return self.inner.embed(network, ids, lengths)

    def options(self) -> dict[str, object]:
        """Those of `inner`: a text that has no trained vector is the same to both, and is stored once."""
        return self.inner.options()


@MODELS.register_module()
class PromptedTextTower(LearningTextTower):
    """Names in a sentence of learned vectors, in place of templates.

    The vectors stand where words would stand in front of, behind or around the name, before the positions are added;
    gradients reach them through the frozen network. In the place of a text tower (FC-CLIP, Fusioner, training-free
    heads) it encodes names alone: the owner's templates are not used.

    Args:
        text_tower: config of a text tower, or a built one; its tokenizer must set a begin and an end mark.
        start: words whose vectors are the learned ones at first, so that the tower starts as the template; None draws
            `length` vectors from a normal distribution of deviation 0.02.
        length: number of vectors without `start`.
        place: `'front'`, `'behind'` or `'around'` (half of them, rounded up, in front).
        classes: names with vectors of their own; other names, and all without `classes`, share one set.

    Raises:
        UserError: a tokenizer of other marks, no vector at all, or names that are too long beside them.

    Source: CoOp (Zhou et al., IJCV 2022), its unified and class-specific contexts and the three places; used for
    clinical images with few examples by Clinical Prompt Learning. There the place inside the sentence is `mid`.
    """

    def __init__(self, text_tower: Mapping[str, object] | TextTower, *, start: str | None = 'a photo of a',
                 length: int = 4, place: str = 'front', classes: Sequence[str] | None = None) -> None:
        super().__init__(text_tower)
        self.place = choice('place', place, PLACES)
        table = self._table()
        if self.tokenizer.marks != 2:
            raise UserError(f'prompts need a tokenizer with a begin and an end mark, but {self.name} sets '
                            f'{self.tokenizer.marks}')
        ids = self.tokenizer.rows([start])[0][1:-1] if start else [self.tokenizer.rows(['x'])[0][1]] * length
        if not ids:
            raise UserError(f'a prompt needs at least one vector, got start={start!r} and length={length}')
        self.placeholder = ids
        first = table.weight[torch.tensor(ids, device=table.weight.device)].detach().float().clone()
        if not start:
            first = 0.02 * torch.randn_like(first)
        self.shared = nn.Parameter(first)
        self.own_words = {same_word(name): index for index, name in enumerate(classes or ())}
        self.own = nn.Parameter(first.repeat(len(self.own_words), 1, 1)) if self.own_words else None
        self._memo: tuple[object, dict[str, Tensor]] = (None, {})

    def options(self) -> dict[str, object]:
        """See `TextTower.options`; the prompts in their present state count."""
        values = [parameter.detach().cpu().tolist() for parameter in self.parameters()]
        return {**super().options(), 'place': self.place, 'prompts': values}

    def _table(self) -> nn.Embedding:
        """The network's word vectors: the first embedding of every family."""
        return next(module for module in self.network.modules() if isinstance(module, nn.Embedding))

    def prompts(self, names: Sequence[str]) -> Tensor:
        """The learned vectors (N, n, D) of N names."""
        if self.own is None:
            return self.shared.expand(len(names), -1, -1)
        return torch.stack([self.own[self.own_words[key]] if key in self.own_words else self.shared
                            for key in map(same_word, names)])

    def learned(self, words: Sequence[str], templates: Sequence[str]) -> dict[str, Tensor]:
        """Unit vectors of all words; computed anew in training, and once for each state of the prompts else."""
        unique = list(dict.fromkeys(words))
        if torch.is_grad_enabled():
            return dict(zip(unique, F.normalize(self.encode(unique), dim=-1)))
        state = [(parameter._version, parameter.device) for parameter in self.parameters()]
        if self._memo[0] != state:
            self._memo = (state, {})
        missing = [word for word in unique if word not in self._memo[1]]
        if missing:
            self._memo[1].update(zip(missing, F.normalize(self.encode(missing), dim=-1)))
        return self._memo[1]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, C) of names in their prompts, with gradients to the prompts; see `TextTower.encode`."""
        names = list(self._check(texts))
        n = len(self.placeholder)
        before = {'front': n, 'behind': 0, 'around': (n + 1) // 2}[self.place]
        rows = []
        for begin, *name, end in self.tokenizer.rows(names):
            rows.append([begin, *self.placeholder[:before], *name, *self.placeholder[before:], end])
        rows = self._fit([f'{len(self.placeholder)} vectors and {name}' for name in names], rows)
        vectors = []
        for first in range(0, len(rows), self.batch_size):
            part = slice(first, first + self.batch_size)
            ids, lengths = self._collate(rows[part])
            behind = lengths[:, None] - 1 - (n - before) + torch.arange(n - before, device=ids.device)
            places = torch.cat([torch.arange(1, before + 1, device=ids.device).expand(len(ids), -1), behind], 1)
            vectors.append(self._run_with(ids, lengths, self.prompts(names[part]), places))
        return torch.cat(vectors)

    def _run_with(self, ids: Tensor, lengths: Tensor, prompts: Tensor, places: Tensor) -> Tensor:
        def embed(network: nn.Module, ids: Tensor, lengths: Tensor, prompts: Tensor) -> Tensor:
            def put(_: nn.Module, given: Any, output: Tensor) -> Tensor:
                index = places[..., None].expand(-1, -1, output.shape[-1])
                return output.scatter(1, index, prompts.to(output.dtype))

            with hooked([(self._table(), put, False)]):
                return self.inner.embed(network, ids, lengths)

        return self.run(embed, ids, lengths, prompts)


@MODELS.register_module()
class NewWords(LearningTextTower):
    """Learned rows for words of their own beside a frozen tower's; all other words stay as they were, bit for bit.

    Wherever a text tower stands (FC-CLIP, Fusioner, training-free heads), a word of `words` has a trained vector in the
    text space; templates do not touch it. Old and new words meet in the softmax only.

    Args:
        text_tower: config of a text tower, or a built one.
        words: the new words.
        start: `'name'` starts with what the tower says to the word itself, `'random'` with a random direction.

    Raises:
        UserError: no word, or one twice.

    Source: ToolkenGPT (Hao et al., NeurIPS 2023): new rows beside the frozen rows of the output layer.
    """

    def __init__(self, text_tower: Mapping[str, object] | TextTower, words: Sequence[str], *,
                 start: str = 'name') -> None:
        super().__init__(text_tower)
        self.own_words = {same_word(word): index for index, word in enumerate(words)}
        if not words or len(self.own_words) < len(words):
            raise UserError(f'NewWords needs at least one word, and each once, got {list(words)}')
        if choice('start', start, ('name', 'random')) == 'name':
            rows = F.normalize(self.inner.encode(list(words)), dim=-1)
        else:
            rows = F.normalize(torch.randn(len(words), self.channels), dim=-1)
        self.rows = nn.Parameter(rows.clone())

    def learned(self, words: Sequence[str], templates: Sequence[str]) -> dict[str, Tensor]:
        """The rows of the new words among `words`."""
        return {word: self.rows[self.own_words[same_word(word)]] for word in words if same_word(word) in self.own_words}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, C): the row where a text is a new word, else what `inner` gives."""
        known = self.learned(texts, ())
        others = [text for text in texts if text not in known]
        vectors = iter(self.inner.encode(others)) if others else iter(())
        return torch.stack([known[text] if text in known else cast(Tensor, next(vectors)) for text in texts])

    def extended(self, logits: Tensor, embeddings: Tensor, scale: float | Tensor) -> Tensor:
        """Logits (..., K + W) of K old words, untouched, and behind them of the W new ones.

        Args:
            logits: (..., K).
            embeddings: (..., C) of what they belong to, any length.
            scale: that multiplies the cosine.
        """
        new = scale * F.normalize(embeddings.float(), dim=-1) @ F.normalize(self.rows, dim=-1).T
        return torch.cat([logits, new.to(logits.dtype)], -1)
