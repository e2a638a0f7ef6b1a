"""The picture at its own size, as SAM wants to see it beside the pipeline's image."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frozenmm.compat import require
from frozenmm.structures import ImageStats


def batch_picture(image: Tensor, stats: ImageStats) -> Tensor:
    """(3, H, W) RGB, whole numbers in 0..255, of a normalised image (1, 3, H, W)."""
    mean, std = stats.tensors(image)
    pixels = (image[0] * std + mean).round().clamp(0, 255)
    return pixels if stats.channel_order == 'rgb' else pixels.flip(0)


def picture_of(metainfo: Mapping[str, Any], image: Tensor, stats: ImageStats) -> Tensor:
    """The file that an image was read from; the pipeline's image where there is none, or where it was flipped.

    An array and the frame of a video have no file.

    Args:
        metainfo: of its data sample: `img_path`, `ori_shape`, `flip`.
        image: (1, 3, H, W), normalised, without padding.
        stats: its normalisation.

    Returns:
        (3, h, w) RGB, whole numbers in 0..255.

    Source: Trident, which reads the file again; an array of a user has none.
    """
    path = metainfo.get('img_path')
    if not path or metainfo.get('flip') or not Path(path).is_file():
        return batch_picture(image, stats)
    pixels = require('mmcv', 'reading a picture for SAM').imread(str(path), channel_order='rgb')
    if pixels is None or pixels.shape[:2] != tuple(metainfo['ori_shape'][:2]):
        return batch_picture(image, stats)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(image)
