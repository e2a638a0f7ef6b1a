"""What a data pipeline did to the pixels of a batch."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError


@dataclass(frozen=True)
class ImageStats:
    """Normalisation of a batch: `x = (pixel - mean) / std` with pixels in 0..255.

    Attributes:
        mean: three channel means, in the channel order of the batch.
        std: three channel deviations, likewise; all positive.
        channel_order: `'rgb'` or `'bgr'`, the order of the batch's channels.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channel_order: str = 'rgb'

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3:
            raise UserError(f'mean and std need three numbers each, got {self.mean} and {self.std}')
        if min(self.std) <= 0:
            raise UserError(f'std must be positive, got {self.std}')
        if self.channel_order not in ('rgb', 'bgr'):
            raise UserError(f'channel_order must be \'rgb\' or \'bgr\', got {self.channel_order!r}')

    @classmethod
    def from_preprocessor(cls, preprocessor: nn.Module) -> ImageStats:
        """The statistics that an mmengine / mmdet / mmseg data preprocessor applies.

        Args:
            preprocessor: module with buffers `mean`, `std` of 3 values (when it normalises). Images arrive from
                OpenCV as BGR; a channel conversion makes them RGB.
        """
        converts = bool(getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion',
                                                                               False)))
        order = 'rgb' if converts else 'bgr'
        enabled = getattr(preprocessor, '_enable_normalize', hasattr(preprocessor, 'mean'))
        if not enabled:
            return cls(channel_order=order)
        mean, std = (torch.as_tensor(getattr(preprocessor, name)).flatten().tolist() for name in ('mean', 'std'))
        return cls(tuple(mean), tuple(std), order)

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std as (3, 1, 1) tensors on the device and with the dtype of `like`."""
        return like.new_tensor(self.mean).view(3, 1, 1), like.new_tensor(self.std).view(3, 1, 1)
