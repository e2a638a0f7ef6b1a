"""PMT as an mmseg segmentor: whole, sliding, or square windows spread evenly along the longer side."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import choice
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.mmseg_segmentor import OpenVocabularySegmentor

WINDOWS = ('shift', 'spread')


def spread_starts(length: int, side: int) -> list[int]:
    """Where the fewest windows of a length begin that cover a side, equally far apart.

    Args:
        length: of the side, in pixels.
        side: of a window, in pixels.

    >>> spread_starts(900, 512), spread_starts(512, 512)
    ([0, 388], [0])
    """
    count = math.ceil(length / side)
    step = (length - side) / max(count - 1, 1)
    return [int(place * step) for place in range(count)]


@MODELS.register_module()
class PlainMaskSemanticSegmentor(OpenVocabularySegmentor):
    """`OpenVocabularySegmentor` around a `PlainMaskSegmentor`, with the official windows as an option.

    `test_cfg` knows one key more: with `mode='slide'`, `window='shift'` (default) moves the last window back into the
    image, as mmseg does; `window='spread'` cuts squares as large as the shorter side, equally far apart along the
    longer one, and averages scores where they overlap (as officially; resize the shorter side to the crop first).

    Raises:
        UserError: another `window`.
    """

    def __init__(self, model: Mapping[str, object], *, test_cfg: Mapping[str, object] | None = None,
                 data_preprocessor: Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        super().__init__(model, test_cfg=test_cfg, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        choice('test_cfg.window', self.test_cfg.get('window', 'shift'), WINDOWS)

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[Mapping[str, object]]) -> Tensor:
        """Scores (B, K, H, W) of (B, 3, H, W) from overlapping windows."""
        if self.test_cfg.get('window', 'shift') == 'shift':
            return super().slide_inference(inputs, list(batch_img_metas))
        side, axis = min(inputs.shape[-2:]), 2 if inputs.shape[-2] > inputs.shape[-1] else 3
        sizes = {tuple(cast(Sequence[int], meta['img_shape'])[:2]) for meta in batch_img_metas}
        if sizes - {tuple(inputs.shape[-2:])}:
            raise UserError('test_cfg.window=\'spread\' needs images without padding; use batch_size=1 and no '
                            'size_divisor in the data preprocessor')
        total = inputs.new_zeros(len(inputs), self.out_channels, *inputs.shape[-2:])
        counts = torch.zeros_like(total[:1, :1])
        for start in spread_starts(inputs.shape[axis], side):
            scores = self.encode_decode(inputs.narrow(axis, start, side), batch_img_metas)
            total.narrow(axis, start, side).add_(scores)
            counts.narrow(axis, start, side).add_(1)
        return total / counts
