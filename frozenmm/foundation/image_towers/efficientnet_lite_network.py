"""EfficientNet-Lite under its PyTorch key names: inverted bottlenecks, ReLU6, no squeeze-and-excitation.

`fold` turns every batch norm into the bias of its convolution: fewer passes over memory, the same function.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3
"""TensorFlow's, which the published weights were trained with."""


@dataclass(frozen=True)
class BlockGroup:
    """A run of blocks: the first one changes stride and width."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


LITE0_GROUPS = (BlockGroup(1, 3, 1, 1, 16), BlockGroup(2, 3, 2, 6, 24), BlockGroup(2, 5, 2, 6, 40),
                BlockGroup(3, 3, 2, 6, 80), BlockGroup(3, 5, 1, 6, 112), BlockGroup(4, 5, 2, 6, 192),
                BlockGroup(1, 3, 1, 6, 320))
MAP_AFTER_GROUP = {'res1': 0, 'res2': 1, 'res3': 2, 'res4': 4, 'res5': 6}
"""The last group of each resolution: strides 2, 4, 8, 16, 32."""


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    # with an even input, TensorFlow's SAME padding of a strided convolution is one less at the top and left; see `_pad`
    padding = (kernel - 1) // 2 if stride == 1 else 0
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def _pad(x: Tensor, kernel: int) -> Tensor:
    """SAME padding before a convolution of stride 2 on even sides."""
    before = (kernel - 2) // 2
    after = kernel - 2 - before
    return F.pad(x, (before, after, before, after))


class InvertedBottleneck(nn.Module):
    """Widen, depthwise convolution, narrow; added to the input where the shapes agree.

    Args:
        inputs: input width.
        group: kernel, expansion and output width.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, group: BlockGroup, stride: int) -> None:
        super().__init__()
        wide = inputs * group.expand
        self.kernel, self.stride = group.kernel, stride
        self.adds_input = stride == 1 and inputs == group.width
        if group.expand != 1:
            self._expand_conv = _conv(inputs, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=BATCH_NORM_EPS)
        self._depthwise_conv = _conv(wide, wide, group.kernel, stride=stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=BATCH_NORM_EPS)
        self._project_conv = _conv(wide, group.width, 1)
        self._bn2 = nn.BatchNorm2d(group.width, eps=BATCH_NORM_EPS)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, width, h / stride, w / stride)."""
        x = inputs
        if hasattr(self, '_expand_conv'):
            x = F.relu6(self._bn0(self._expand_conv(x)), inplace=True)
        if self.stride == 2:
            x = _pad(x, self.kernel)
        x = F.relu6(self._bn1(self._depthwise_conv(x)), inplace=True)
        x = self._bn2(self._project_conv(x))
        return x + inputs if self.adds_input else x


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 by default.

    Args:
        groups: the runs of blocks.
        stem: width of the first convolution.
        head: width before the classifier.
        num_classes: number of classes.
    """

    def __init__(self, groups: tuple[BlockGroup, ...] = LITE0_GROUPS, *, stem: int = 32, head: int = 1280,
                 num_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = _conv(3, stem, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(stem, eps=BATCH_NORM_EPS)
        self._blocks = nn.ModuleList()
        self.group_ends: list[int] = []
        width = stem
        for group in groups:
            for index in range(group.repeats):
                self._blocks.append(InvertedBottleneck(width, group, group.stride if index == 0 else 1))
                width = group.width
            self.group_ends.append(len(self._blocks) - 1)
        self._conv_head = _conv(width, head, 1)
        self._bn1 = nn.BatchNorm2d(head, eps=BATCH_NORM_EPS)
        self._fc = nn.Linear(head, num_classes)

    def forward(self, pixels: Tensor, until: str = 'res5') -> dict[str, Tensor]:
        """Maps res1..res5 (strides 2..32) of pixels (B, 3, h, w) with sides that are multiples of 32.

        Args:
            pixels: the normalised image.
            until: last map wanted; what comes after it is not computed.
        """
        x = F.relu6(self._bn0(self._conv_stem(_pad(pixels, 3))), inplace=True)
        ends = {self.group_ends[group]: name for name, group in MAP_AFTER_GROUP.items()}
        maps = {}
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in ends:
                maps[ends[index]] = x
                if ends[index] == until:
                    break
        return maps

    def classify(self, last_map: Tensor, weight: Tensor | None = None) -> Tensor:
        """Logits of the map res5.

        Args:
            last_map: (B, C, h, w).
            weight: (B, 1, h, w), the share of every cell in the mean; all alike by default.

        Returns:
            (B, num_classes).
        """
        x = F.relu6(self._bn1(self._conv_head(last_map)), inplace=True)
        pooled = x.mean((2, 3)) if weight is None else (x * weight).sum((2, 3)) / weight.sum((2, 3))
        return self._fc(pooled)


@torch.no_grad()
def fold(network: nn.Module) -> nn.Module:
    """Fold every batch norm into its convolution, in place, and lay the weights out channels last.

    The network must be in eval mode for good: statistics can no longer change.

    Args:
        network: an `EfficientNetLite`.
    """
    if not isinstance(network, EfficientNetLite):
        raise TypeError(f'fold expects an EfficientNetLite, got {type(network).__name__}')
    _fold_pair(network, '_conv_stem', '_bn0')
    _fold_pair(network, '_conv_head', '_bn1')
    for block in network._blocks:
        if hasattr(block, '_expand_conv'):
            _fold_pair(block, '_expand_conv', '_bn0')
        _fold_pair(block, '_depthwise_conv', '_bn1')
        _fold_pair(block, '_project_conv', '_bn2')
    for value in network.parameters():
        if value.dim() == 4:
            value.data = value.data.contiguous(memory_format=torch.channels_last)
    return network


def _fold_pair(owner: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = getattr(owner, conv_name), getattr(owner, norm_name)
    # float64, so that the only rounding is the final one
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    conv.weight.data = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    setattr(owner, norm_name, nn.Identity())
