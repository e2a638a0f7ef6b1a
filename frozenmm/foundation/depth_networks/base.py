"""The contract of frozen monocular depth networks."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frozenmm.foundation.frozen_module import FrozenModule

DEPTH_KINDS = ('affine_depth', 'affine_disparity', 'metric')


@dataclass
class DepthPrediction:
    """Depth of a batch of images.

    Attributes:
        values: (B, H, W) float32 at the images' size, positive.
        kind: `'affine_depth'`: true up to scale and shift, larger is farther; `'affine_disparity'`: its reciprocal is
            true up to scale and shift, larger is nearer; `'metric'`: metres.
        features: (B, C, h, w) of the encoder, where the network gives them.
    """

    values: Tensor
    kind: str
    features: Tensor | None = None


class DepthNetwork(FrozenModule):
    """A frozen network that predicts depth from images of any size."""

    kind: str

    def predict(self, images: Tensor) -> DepthPrediction:
        """Depth of images.

        Args:
            images: (B, 3, H, W) RGB in 0..255, uint8 or floating point.
        """
        raise NotImplementedError(f'{type(self).__name__} must define `predict`')


def check_images(images: Tensor, name: str) -> Tensor:
    """The images as float32, after a check of their shape."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f'{name} takes images (B, 3, H, W) in 0..255, got {tuple(images.shape)}')
    return images.float()
