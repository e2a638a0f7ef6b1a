"""A small tower with random weights, batch norm and dropout; registered, so that configs can name it."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from frozenmm.foundation import ImageTower, RawFeatures, TowerInput
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats

STATS = ImageStats((127.0, ) * 3, (128.0, ) * 3)


def network(channels: dict[str, int], stride: int, seed: int = 0) -> nn.ModuleDict:
    """Patches of `stride` pixels, then halvings; every map goes through batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers, width = {}, 3
        for index, (name, out) in enumerate(channels.items()):
            step = stride if index == 0 else 2
            layers[name] = nn.Sequential(nn.Conv2d(width, out, step, stride=step), nn.BatchNorm2d(out), nn.ReLU(),
                                         nn.Dropout(0.5))
            width = out
    return nn.ModuleDict(layers)


@MODELS.register_module(force=True)
class RandomTower(ImageTower):
    """Maps c1, c2, ... at `stride`, 2 * `stride`, ..."""

    def __init__(self, widths: tuple[int, ...] = (8, 12), stride: int = 8, seed: int = 0, **options: object) -> None:
        channels = {f'c{i + 1}': width for i, width in enumerate(widths)}
        strides = {name: stride * 2**i for i, name in enumerate(channels)}
        patch = max(strides.values())
        super().__init__(network(channels, stride, seed), input=TowerInput(STATS, 4 * patch, patch), channels=channels,
                         strides=strides, name='RandomTower', **options)

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        maps, x = {}, pixels
        for name, layer in network.items():
            x = layer(x)
            maps[name] = x
        return RawFeatures(maps)
