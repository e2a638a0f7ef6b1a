"""mmseg's encoder-decoder for heads whose number of classes changes with the vocabulary."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from frozenmm.deprecation import warn_renamed
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import VocabularySource
from frozenmm.registry import MODELS
from frozenmm.segmentation.fusioner.windows import slide_logits


@MODELS.register_module()
class FusionerSegmentor(EncoderDecoder):
    """`EncoderDecoder` with a free vocabulary and the official windows of Fusioner as an option.

    `test_cfg` knows one key more than mmseg's: with `mode='slide'`, the last window is moved back into the image, as
    mmseg does; `compat=True` cuts it at the border and pads it with `pad_value` (0 by default, officially -1), with
    `flip=True` averaging mirrored windows, as the official code does.

    Raises:
        UserError: windows that are not square with `compat`.
    """

    test_cfg: ConfigDict

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.test_cfg = ConfigDict(self.test_cfg or dict(mode='whole'))
        if 'window' in self.test_cfg:
            self.test_cfg.compat = _compat_of(self.test_cfg.pop('window'))
        crop = self.test_cfg.get('crop_size', (0, 0))
        if self.test_cfg.get('compat', False) and crop[0] != crop[1]:
            raise UserError(f'test_cfg.compat=True needs a square crop_size, got {crop}')

    def set_vocabulary(self, vocabulary: VocabularySource) -> None:
        """See `FusionerHead.set_vocabulary`."""
        self.decode_head.set_vocabulary(vocabulary)
        self.out_channels = self.decode_head.out_channels

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[Mapping[str, Any]]) -> Tensor:
        """Logits (B, K + 1, H, W) from overlapping windows."""
        names = batch_img_metas[0].get('class_names')
        self.out_channels = self.decode_head.out_channels if names is None else len(names) + 1
        if not self.test_cfg.get('compat', False):
            return super().slide_inference(inputs, list(batch_img_metas))

        def predict(window: Tensor) -> Tensor:
            metas = [dict(meta, img_shape=tuple(window.shape[-2:])) for meta in batch_img_metas]
            return self.encode_decode(window, metas)

        return slide_logits(predict, inputs, window=self.test_cfg.crop_size[0], stride=self.test_cfg.stride[0],
                            pad_value=self.test_cfg.get('pad_value', 0.0), flip=self.test_cfg.get('flip', False))


def _compat_of(window: object) -> bool:
    """What frozenmm 0.1 called `test_cfg.window`."""
    if window not in ('shift', 'cut'):
        raise UserError('test_cfg.window is now test_cfg.compat, True for \'cut\' and False for \'shift\'; got '
                        f'{window!r}')
    warn_renamed(f'test_cfg.window={window!r}', f'test_cfg.compat={window == "cut"}', removed_in='0.3')
    return window == 'cut'
