"""What a frozen multimodal model says about phrases: attention maps over the picture and states of the words."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from frozenmm.foundation.lookup import choice

MERGES = ('mean', 'max')


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in the square that the multimodal model sees, in pixels of that square.

    Attributes:
        top: rows before the picture; likewise left.
        left: see above.
        height: of the picture; likewise width.
        width: see above.
        side: of the square.
    """

    top: float
    left: float
    height: float
    width: float
    side: float

    @classmethod
    def centred(cls, height: int, width: int) -> Placement:
        """A picture padded to a square on both sides, as LLaVA does."""
        side = max(height, width)
        return cls((side - height) // 2, (side - width) // 2, height, width, side)

    def cut(self, maps: Tensor) -> Tensor:
        """The part of maps (..., h, w) over the square that shows the picture.

        Source: F-LMM's rounding: int(before * cells / side) before, int(valid * cells / side + 0.5) of it.
        """
        ranges = []
        for before, valid, cells in ((self.top, self.height, maps.shape[-2]), (self.left, self.width, maps.shape[-1])):
            start = int(before * cells / self.side)
            ranges.append(slice(start, start + max(1, int(valid * cells / self.side + 0.5))))
        return maps[..., ranges[0], ranges[1]]


@dataclass(frozen=True)
class Evidence:
    """What is known of N phrases of one picture.

    Attributes:
        attention: (N, L * H, gh, gw), in 0..1: of L layers and H heads, layers first.
        words: for each phrase (T_n, L, C), the states of its T_n tokens after each layer, embeddings left out.
        placement: of the picture in the square that the grid covers.
    """

    attention: Tensor
    words: list[Tensor]
    placement: Placement


class EvidenceProvider(Protocol):
    """A frozen model, or what stands for one.

    Attributes:
        channels: L * H.
        layers: L.
        width: C.
    """

    channels: int
    layers: int
    width: int

    def __call__(self, picture: Tensor, phrases: Sequence[str], masks: Tensor | None = None) -> Evidence:
        """The evidence for phrases about a picture (3, H, W) RGB in 0..255; `masks` (N, H, W) are the truth, if known.

        A real model does not look at the masks.
        """


def phrase_attention(attentions: Sequence[Tensor], phrase_of_token: Tensor, image_tokens: Tensor,
                     grid: tuple[int, int], *, merge: str = 'mean') -> Tensor:
    """Attention maps of phrases: what their tokens look at, in every layer and head.

    Args:
        attentions: per layer (H, T, T) after the softmax, rows looking at columns.
        phrase_of_token: (T,) int64, the phrase of a token, -1 for none; every phrase has a token.
        image_tokens: (gh * gw,) int64, places of the image's tokens, row by row.
        grid: (gh, gw).
        merge: `'mean'` or `'max'` over the tokens of a phrase.

    Returns:
        (N, L * H, gh, gw), layers first.

    Source: F-LMM, steps 3 of its dataflow. Each layer is cut to the rows and columns that count at once, so that the
    L * H * T * T values of a whole pass need never be held together.
    """
    choice('merge', merge, MERGES)
    count = int(phrase_of_token.max()) + 1
    rows = phrase_of_token >= 0
    owner = phrase_of_token[rows]
    maps = []
    for layer in attentions:
        looked = layer[:, rows][..., image_tokens].float()  # H, tokens of phrases, image tokens
        parts = [looked[:, owner == phrase] for phrase in range(count)]
        maps.append(torch.stack([part.mean(1) if merge == 'mean' else part.amax(1) for part in parts]))
    return torch.cat(maps, 1).unflatten(-1, grid)


def phrase_words(states: Sequence[Tensor], phrase_of_token: Tensor) -> list[Tensor]:
    """States (T_n, L, C) of each phrase's tokens.

    Args:
        states: L + 1 tensors (T, C) of a model, the first of which, the embeddings, is left out.
        phrase_of_token: (T,) as above.
    """
    stacked = torch.stack([state.float() for state in states[1:]], 1)
    return [stacked[phrase_of_token == phrase] for phrase in range(int(phrase_of_token.max()) + 1)]
