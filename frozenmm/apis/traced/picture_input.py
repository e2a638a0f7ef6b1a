"""What exported models have in common at their input: pixels as pictures have them, prepared inside."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import Tensor, nn

from frozenmm.errors import WrongKind


class PictureInput(nn.Module):
    """A data preprocessor of mmdet as part of a graph.

    Args:
        preprocessor: of the model; its normalisation and channel order count.

    Attributes:
        multiple: the sides of a batch are padded to a multiple of this.
        fill: what padding is filled with, in the network's normalisation.

    Raises:
        WrongKind: it is none of mmdet's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        if not isinstance(preprocessor, DetDataPreprocessor):
            raise WrongKind(f'models with mmdet\'s DetDataPreprocessor can be exported, not with a '
                            f'{type(preprocessor).__name__}')
        self.multiple = int(preprocessor.pad_size_divisor)
        self.fill = float(preprocessor.pad_value)
        # pipelines read BGR; a preprocessor that does not turn it wants BGR
        self.flip = not preprocessor._channel_conversion
        self.normalise = bool(preprocessor._enable_normalize)
        if self.normalise:
            self.register_buffer('mean', preprocessor.mean.clone(), persistent=False)
            self.register_buffer('std', preprocessor.std.clone(), persistent=False)

    def forward(self, images: Tensor, *, pad: bool) -> Tensor:
        """The network's batch (B, 3, H', W') of images (B, 3, H, W), float32 RGB from 0 to 255."""
        if self.flip:
            images = images.flip(1)
        if self.normalise:
            images = (images - self.mean) / self.std
        if not pad or self.multiple == 1:
            return images
        height, width = images.shape[-2:]
        # so written, a padded side is a multiple in the algebra of the tracer too, which takes a tenth of the time
        bottom, right = ((side + self.multiple - 1) // self.multiple * self.multiple - side for side in (height, width))
        return F.pad(images, (0, right, 0, bottom), value=self.fill)


def float_rgb(pixels: Tensor) -> Tensor:
    """The input of an exported model, (1, 3, H, W), from what a test pipeline gives, (3, H, W) BGR."""
    return pixels.to(torch.float32).flip(0)[None]
