"""The embedded demonstration depth network: frozen EfficientNet-Lite0 maps and a small decoder trained on rooms.

It shows that everything runs without a download. It has seen generated rooms only: for real work use a depth network
trained on real scenes (`LeReS`, `HFDepth`).
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.foundation.depth_networks.base import DepthNetwork, DepthPrediction, check_images
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.image_towers.efficientnet_lite import CHANNELS, EfficientNetLiteTower
from frozenmm.foundation.state_match import load_strictly
from frozenmm.foundation.weights import build_network, random_seed, weights_key, weights_note
from frozenmm.registry import MODELS
from frozenmm.version import document

MAPS = ('res2', 'res3', 'res4', 'res5')
MULTIPLE = 32
SIDE = 192
LOG_RANGE = 5.0
"""Depth lies within exp(+-5), so that a bad prediction cannot overflow."""
ZOO = Path(__file__).resolve().parents[1] / 'zoo' / 'weights'
SHIPPED = 'depth_lite0_rooms'


class _Block(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                                  nn.GroupNorm(8, channels), nn.ReLU(inplace=True),
                                  nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(8, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        return F.relu(x + self.body(x))


class LightDepthDecoder(nn.Module):
    """Depth from maps of strides 4, 8, 16 and 32, coarse to fine.

    Where a cell lies in the image says much about depth in rooms, so its coordinates go in beside the coarsest map.

    Args:
        in_channels: widths of the four maps, finest first.
        channels: width of the decoder; a multiple of 16.

    Raises:
        ValueError: other than four maps.
    """

    def __init__(self, in_channels: Sequence[int], *, channels: int = 64) -> None:
        super().__init__()
        if len(in_channels) != 4:
            raise ValueError(f'LightDepthDecoder takes 4 maps of strides 4, 8, 16 and 32, got {len(in_channels)}')
        widths = (channels // 2, channels, channels, channels)
        places = (0, 0, 0, 2)
        self.lateral = nn.ModuleList(nn.Conv2d(given + extra, width, 1)
                                     for given, extra, width in zip(in_channels, places, widths))
        self.context = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(_Block(width) for width in widths)
        self.narrow = nn.Conv2d(channels, channels // 2, 1)
        self.last = nn.Conv2d(channels // 2, 1, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Depth (B, 1, h, w) of stride 4 up to scale and shift, about 1, from maps (B, C, h, w), finest first."""
        coarse = maps[3]
        rows, columns = (torch.linspace(-1, 1, length, dtype=coarse.dtype, device=coarse.device)
                         for length in coarse.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing='ij')).expand(len(coarse), -1, -1, -1)
        x = self.lateral[3](torch.cat((coarse, grid), 1))
        x = self.blocks[3](F.relu(x + self.context(x.mean((2, 3)))[:, :, None, None]))
        for level in (2, 1, 0):
            x = x if level else self.narrow(x)
            x = F.interpolate(x, maps[level].shape[2:], mode='bilinear', align_corners=False)
            x = self.blocks[level](F.relu(x + self.lateral[level](maps[level])))
        return self.last(x).clamp(-LOG_RANGE, LOG_RANGE).exp()


class LightDepthNetwork(nn.Module):
    """Tower and decoder, for inference; the state holds the decoder and the record of the tower."""

    def __init__(self, tower: EfficientNetLiteTower) -> None:
        super().__init__()
        self.tower = tower
        self.decoder = LightDepthDecoder([CHANNELS[name] for name in MAPS])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (B, 1, H / 4, W / 4) and the map of stride 32, from RGB (B, 3, H, W) in 0..255."""
        maps = self.tower(images.float()).maps
        dtype = self.decoder.last.weight.dtype
        return self.decoder([maps[name].to(dtype) for name in MAPS]), maps['res5']


@MODELS.register_module()
class LightDepth(DepthNetwork):
    """The demonstration depth network.

    Args:
        weights: a file that `tools/export_depth.py` wrote; None for the shipped one; `'random'`.
        side: shorter side of the network's input in pixels, a multiple of 32; it was trained at 192.
        precision: see `FrozenModule`.

    Raises:
        ValueError: a side that is no multiple of 32, or a file of another model or for another frozen network.
        FileNotFoundError: no such file.
    """

    kind = 'affine_depth'

    def __init__(self, weights: str | Path | None = None, *, side: int = SIDE, precision: str = 'fp32') -> None:
        if side < MULTIPLE or side % MULTIPLE:
            raise ValueError(f'side must be a positive multiple of {MULTIPLE}, got {side}')
        name = 'LightDepth' + weights_note(weights)
        super().__init__(shared_network(('light-depth', weights_key(weights)), lambda: self._build(weights, precision),
                                        name=name, precision=precision))
        self.side = side

    @staticmethod
    def _build(weights: str | Path | None, precision: str) -> nn.Module:
        tower = EfficientNetLiteTower(resize_mode='none', precision=precision, out_maps=MAPS)

        def build() -> LightDepthNetwork:
            return LightDepthNetwork(tower)

        if random_seed(weights) is not None:
            return build_network(build, weights, None, name='LightDepth')
        path = shipped_file() if weights is None else Path(weights).expanduser()
        content = load_checkpoint_file(path)
        bases = dict(content.get('meta', {}).get('base_models', {}))
        if tower.fingerprint not in bases.values():
            raise ValueError(f'{path} was trained on the frozen networks {bases}, but this one is {tower.name} '
                             f'({tower.fingerprint}); use the weights package that {document("setup")} names')
        network = build()
        load_strictly(network.decoder, content['state_dict'], name='LightDepth', source=str(path))
        return network

    def predict(self, images: Tensor) -> DepthPrediction:
        """Depth (B, H, W) up to scale and shift, and the tower's map of stride 32."""
        images = check_images(images, 'LightDepth')
        size = images.shape[2:]
        factor = self.side / min(size) / MULTIPLE
        height, width = (max(1, round(length * factor)) * MULTIPLE for length in size)
        resized = F.interpolate(images, (height, width), mode='bilinear', align_corners=False, antialias=True)
        depth, features = self.run(lambda network, x: network(x), resized)
        values = F.interpolate(depth, size, mode='bilinear', align_corners=False)[:, 0]
        return DepthPrediction(values, self.kind, features)


def shipped_file() -> Path:
    """The checkpoint inside the package.

    Raises:
        FileNotFoundError: it is not there.
    """
    found = sorted(ZOO.glob(f'{SHIPPED}-????????.safetensors'))
    if not found:
        raise FileNotFoundError(
            f'{ZOO} holds no {SHIPPED}-*.safetensors, the embedded demonstration depth network; install frozenmm '
            'again, train it (tools/train.py configs/frozen_recon/depth_lite0_rooms.py) and give the exported file as '
            '`weights`, or use another depth network (frozenmm.LeReS, frozenmm.HFDepth)')
    return found[0]
