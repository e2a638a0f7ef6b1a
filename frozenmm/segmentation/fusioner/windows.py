"""Sliding windows that are cut at the image border, as the official Fusioner test does."""
from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch.nn.functional as F
from torch import Tensor


def slide_logits(predict: Callable[[Tensor], Tensor], images: Tensor, *, window: int, stride: int | None = None,
                 pad_value: float = 0.0, flip: bool = False) -> Tensor:
    """Mean logits of overlapping square windows.

    Args:
        predict: (B, 3, window, window) to logits (B, K, window, window).
        images: (B, 3, H, W), normalised.
        window: side of the window in pixels.
        stride: step in pixels, `int(window * 2 / 3)` by default.
        pad_value: fills what a window shows beyond the image, in normalised units (officially -1).
        flip: average every window with the result of its mirror image (padding included).

    Returns:
        (B, K, H, W). Unlike mmseg, a window at the border is cut there and padded, not shifted back.

    Source: Fusioner's test at original resolution.
    """
    height, width = images.shape[-2:]
    stride = int(window * 2 / 3) if stride is None else stride
    images = F.pad(images, (0, max(window - width, 0), 0, max(window - height, 0)), value=pad_value)
    tall, wide = images.shape[-2:]
    total, count = images.new_zeros(0), images.new_zeros(tall, wide)
    for top in _starts(tall, window, stride):
        for left in _starts(wide, window, stride):
            part = images[..., top:top + window, left:left + window]
            h, w = part.shape[-2:]
            part = F.pad(part, (0, window - w, 0, window - h), value=pad_value)
            logits = predict(part)
            if flip:
                logits = (logits + predict(part.flip(-1)).flip(-1)) / 2
            logits = logits[..., :h, :w]
            if total.numel() == 0:  # the number of classes shows now
                total = logits.new_zeros(*logits.shape[:2], tall, wide)
            total[..., top:top + h, left:left + w] += logits
            count[top:top + h, left:left + w] += 1
    return (total / count)[..., :height, :width]


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Window positions along an axis; one window when the axis is not longer than it."""
    if length <= window:
        return [0]
    return [index * stride for index in range(ceil((length - window) / stride) + 1)]
