"""The LeReS depth network: a ResNet or ResNeXt encoder and a decoder of transition and fusion blocks.

Names of parameters are the official ones, so a checkpoint loads after its prefix is removed.
Source: AdelaiDepth (LeReS), CVPR 2021; upsampling is bilinear with aligned corners throughout.
"""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.lookup import choice

STAGES = {'resnet50': ((3, 4, 6, 3), 1, 64), 'resnext101': ((3, 4, 23, 3), 32, 8)}
"""Blocks per stage, groups and width of a group, by the encoder's name."""


def upsample(maps: Tensor, factor: int) -> Tensor:
    """Bilinear, corners aligned."""
    return F.interpolate(maps, scale_factor=factor, mode='bilinear', align_corners=True)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 (with the stride), 1x1 to four times the planes."""

    def __init__(self, in_channels: int, planes: int, *, stride: int, groups: int, group_width: int) -> None:
        super().__init__()
        width = planes * group_width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = nn.Sequential(nn.Conv2d(in_channels, planes * 4, 1, stride, bias=False),
                                        nn.BatchNorm2d(planes * 4)) if stride > 1 or in_channels != planes * 4 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 planes, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + identity)


class ResNetEncoder(nn.Module):
    """Maps of strides 4, 8, 16 and 32.

    Args:
        depths: blocks of the four stages.
        groups: of the 3x3 convolutions.
        group_width: width of a group in the first stage (64 for a plain ResNet).
    """

    def __init__(self, depths: tuple[int, ...], groups: int, group_width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, depth in enumerate(depths):
            planes, blocks = 64 * 2**stage, []
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(Bottleneck(channels, planes, stride=stride, groups=groups, group_width=group_width))
                channels = planes * 4
            setattr(self, f'layer{stage + 1}', nn.Sequential(*blocks))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Four maps of 256, 512, 1024 and 2048 channels."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        maps = []
        for stage in range(1, 5):
            x = getattr(self, f'layer{stage}')(x)
            maps.append(x)
        return tuple(maps)


class FTB(nn.Module):
    """Feature transition block: a convolution and a residual branch.

    The first ReLU of the official branch works in place, so the identity is rectified, too.
    """

    def __init__(self, in_channels: int, mid_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 3, 1, 1)
        self.conv_branch = nn.Sequential(nn.ReLU(), nn.Conv2d(mid_channels, mid_channels, 3, 1, 1),
                                         nn.BatchNorm2d(mid_channels), nn.ReLU(),
                                         nn.Conv2d(mid_channels, mid_channels, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, mid, H, W)."""
        x = F.relu(self.conv1(x))
        return F.relu(x + self.conv_branch(x))


class FFM(nn.Module):
    """Feature fusion module: an encoder map joined with the decoder's, then upsampled.

    Args:
        in_channels: of the encoder's map.
        mid_channels: of the decoder's map.
        out_channels: of the result.
        up: factor of the upsampling.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, up: int = 2) -> None:
        super().__init__()
        self.ftb1 = FTB(in_channels, mid_channels)
        self.ftb2 = FTB(mid_channels, out_channels)
        self.up = up

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, in, H, W) and (B, mid, H, W) to (B, out, up H, up W)."""
        return upsample(self.ftb2(self.ftb1(low) + high), self.up)


class AO(nn.Module):
    """Adaptive output: two convolutions to the depth, then upsampling."""

    def __init__(self, in_channels: int, out_channels: int = 1, up: int = 2) -> None:
        super().__init__()
        half = in_channels // 2
        self.adapt_conv = nn.Sequential(nn.Conv2d(in_channels, half, 3, 1, 1), nn.BatchNorm2d(half), nn.ReLU(),
                                        nn.Conv2d(half, out_channels, 3, 1, 1))
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, up H, up W)."""
        return upsample(self.adapt_conv(x), self.up)


class LeReSDecoder(nn.Module):
    """From the four encoder maps to depth at the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = FTB(2048, 512)
        self.conv1 = nn.Conv2d(512, 256, 3, 1, 1)
        self.ffm2 = FFM(1024, 256, 256)
        self.ffm1 = FFM(512, 256, 256)
        self.ffm0 = FFM(256, 256, 256)
        self.outconv = AO(256)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Maps of strides 4, 8, 16, 32 to (B, 1, H, W)."""
        x = upsample(self.conv1(self.conv(maps[3])), 2)
        for fusion, low in ((self.ffm2, maps[2]), (self.ffm1, maps[1]), (self.ffm0, maps[0])):
            x = fusion(low, x)
        return self.outconv(x)


class LeReSNetwork(nn.Module):
    """Affine-invariant depth and the encoder's last map.

    Args:
        encoder: `'resnet50'` or `'resnext101'`.
    """

    def __init__(self, encoder: str = 'resnext101') -> None:
        super().__init__()
        choice('encoder', encoder, STAGES)
        # official keys nest the encoder once more
        self.encoder_modules = nn.ModuleDict({'encoder': ResNetEncoder(*STAGES[encoder])})
        self.decoder_modules = LeReSDecoder()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W), sides multiples of 32, to depth (B, 1, H, W) and features (B, 2048, h, w)."""
        maps = self.encoder_modules['encoder'](images)
        return self.decoder_modules(maps), maps[3]
