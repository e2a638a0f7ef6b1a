"""The official format of prepared SAM masks: one pickle per image, opened without running code."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from frozenmm.compat import plain_pickle
from frozenmm.errors import UserError, reading
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks


def official_name(image: str | Path) -> str:
    """The official file name of an image's masks."""
    return f'{Path(image).name.split(".")[0]}.pkl'


def read_official_masks(path: str | Path) -> SAMMasks:
    """The masks of a pickle as FrozenSeg's `save_sam_masks.py` writes it.

    That is a list of dictionaries, largest mask first, with the logits `preds` (H, W) at image size and
    `predicted_iou`. An image without any mask leaves an empty list, whose size is not known.

    Raises:
        UserError: damaged, another content, or a pickle that needs more than arrays of numbers.
    """
    with reading(path, 'SAM masks in the official format', 'prepare the image again'):
        return _masks(plain_pickle.loads(Path(path).read_bytes()), path)


def _masks(records: object, path: str | Path) -> SAMMasks:
    if not isinstance(records, Sequence) or not all(isinstance(record, Mapping) for record in records):
        raise UserError(f'{path} holds no SAM masks in the official format: expected a list of dictionaries, got '
                        f'{type(records).__name__}')
    if not records:
        return SAMMasks(torch.zeros(0, 1, 1), (1, 1))
    missing = [key for key in ('preds', 'predicted_iou') if any(key not in record for record in records)]
    if missing:
        raise UserError(f'{path}: masks without {missing}; FrozenSeg\'s own fork of segment-anything writes the '
                        'logits `preds`, the original package does not: prepare the image with '
                        'tools/prepare_sam_masks.py')
    logits = torch.from_numpy(np.stack([np.asarray(record['preds'], np.float32) for record in records]))
    if logits.dim() != 3:
        raise UserError(f'{path}: `preds` must be (H, W) logits, got {tuple(logits.shape[1:])}')
    scores = torch.tensor([float(record['predicted_iou']) for record in records])
    return SAMMasks(logits, (logits.shape[1], logits.shape[2]), scores)
