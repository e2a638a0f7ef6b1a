"""Thinning of a video by the similarity of depth-encoder features (spec section 2)."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

MAX_WIDTH = 200
THRESHOLD = 0.85
KEPT_PER_RUN = 5


def frame_similarity(features: Tensor, *, max_width: int = MAX_WIDTH) -> Tensor:
    """Similarity (F, max_width + 1) of every frame to its neighbours; the middle column is the frame itself.

    Two frames are as similar as the mean of every cell's best cosine in the other frame, the smaller of both
    directions. Neighbours outside the sequence get 0.

    Args:
        features: (F, C, h, w).
        max_width: even; neighbours up to half of it on either side.
    """
    if features.ndim != 4:
        raise ValueError(f'features must have shape (F, C, h, w), got {tuple(features.shape)}')
    if max_width < 2 or max_width % 2:
        raise ValueError(f'max_width must be even and at least 2, got {max_width}')
    unit, half = normalize(features.flatten(2), dim=1), max_width // 2
    table = features.new_zeros(len(features), max_width + 1)
    for first in range(len(features)):
        cosines = unit[first].mT @ unit[first:first + half + 1]
        similarity = torch.minimum(cosines.amax(2).mean(1), cosines.amax(1).mean(1))
        table[first, half:half + len(similarity)] = similarity
        for offset in range(1, len(similarity)):
            table[first + offset, half - offset] = similarity[offset]
    return table


def select_frames(similarity: Tensor, *, threshold: float = THRESHOLD) -> list[int]:
    """Ascending indexes of the frames to keep: of every run of similar frames its end and four between.

    Args:
        similarity: (F, W) table of `frame_similarity`.
        threshold: frames above it count as similar.

    >>> select_frames(frame_similarity(torch.eye(4)[:, :, None, None], max_width=2))   # four frames, nothing alike
    [0, 1, 2, 3]
    """
    count, half = len(similarity), similarity.shape[1] // 2
    similar = similarity[:, half + 1:] > threshold
    runs = similar.long().cumprod(1).sum(1).tolist()
    kept, current = [0], 0
    while True:
        right = current + runs[current]
        if right > count - 1 or current == count - 1:
            return kept
        if right <= kept[-1]:
            current += 1
            kept.append(current)
            continue
        places = ((right - current) * m // KEPT_PER_RUN + current for m in range(1, KEPT_PER_RUN + 1))
        before = len(kept)
        for place in places:
            if place > kept[-1]:
                kept.append(place)
        if len(kept) > before:
            current = kept[-1]
        else:
            current = 1
            kept.append(1)
