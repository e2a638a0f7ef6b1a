"""The TinyViT image encoder of MobileSAM, under the official key names."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.image_towers.sam_vit import in_windows, neck


def conv_norm(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias and batch norm, named c and bn."""
    return nn.Sequential(OrderedDict(
        c=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        bn=nn.BatchNorm2d(outputs)))


class PatchEmbed(nn.Module):
    """Two strided convolutions: stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(conv_norm(3, width // 2, 3, stride=2), nn.GELU(),
                                 conv_norm(width // 2, width, 3, stride=2))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, width, h / 4, w / 4)."""
        return self.seq(pixels)


class MBConv(nn.Module):
    """Widen, depthwise convolution, narrow; GELU after the residual sum."""

    def __init__(self, width: int, expand: float) -> None:
        super().__init__()
        hidden = int(width * expand)
        self.conv1 = conv_norm(width, hidden)
        self.conv2 = conv_norm(hidden, hidden, 3, groups=hidden)
        self.conv3 = conv_norm(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """To the next stage's width and resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(inputs, outputs)
        self.conv2 = conv_norm(outputs, outputs, 3, stride=stride, groups=outputs)
        self.conv3 = conv_norm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class Attention(nn.Module):
    """Self-attention of a window with a learned bias per head and absolute offset (|dy|, |dx|).

    Args:
        width: channels.
        heads: number of heads.
        window: side of the window in cells.
        ratio: channels of a value, relative to those of a key.
    """

    def __init__(self, width: int, heads: int, window: int, ratio: float = 1.0) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.key_width = width // heads
        self.value_width = int(ratio * self.key_width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, heads * (2 * self.key_width + self.value_width))
        self.proj = nn.Linear(heads * self.value_width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, x: Tensor) -> Tensor:
        """(B, window, window, width) to the same shape."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, height * width, self.heads, -1).transpose(1, 2)
        query, key, value = qkv.split([self.key_width, self.key_width, self.value_width], -1)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=self._bias()[None])
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, -1))

    def _bias(self) -> Tensor:
        """(heads, N, N). The table's order: offsets as they first appear among pairs, which is row by row."""
        cells = torch.arange(self.window, device=self.attention_biases.device)
        rows, columns = (grid.flatten() for grid in torch.meshgrid(cells, cells, indexing='ij'))
        offset = (rows[:, None] - rows).abs() * self.window + (columns[:, None] - columns).abs()
        return self.attention_biases[:, offset]


class Mlp(nn.Module):
    """Norm and two linear layers with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution without residual, feed-forward."""

    def __init__(self, width: int, heads: int, window: int, *, mlp_ratio: float, local_conv_size: int,
                 attn_ratio: float) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(width, heads, window, attn_ratio)
        self.local_conv = conv_norm(width, width, local_conv_size, groups=width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        cells = x.movedim(1, -1)
        x = x + in_windows(cells, self.window, self.attn).movedim(-1, 1)
        cells = self.local_conv(x).movedim(1, -1)
        return (cells + self.mlp(cells)).movedim(-1, 1)


class Stage(nn.Module):
    """Blocks of one width, then the merge to the next stage (none after the last)."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the next stage's width and resolution."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """MobileSAM's image encoder: stride 16 (the last merge keeps the resolution), neck of SAM.

    Args:
        img_size: side of the training images in pixels.
        embed_dims: width of each stage.
        depths: blocks of each stage.
        num_heads: heads of each stage; unused for stage 0, which is convolutional.
        window_sizes: window of each stage, in cells.
        mlp_ratio: hidden width of the feed-forward part, relative to the stage's.
        mbconv_expand_ratio: hidden width of the convolutional blocks, likewise.
        local_conv_size: kernel of the depthwise convolution.
        attn_ratio: channels of an attention value, relative to those of a key.
        neck_chans: channels of the neck.
        merge_strides: stride of each merge.
    """

    def __init__(self, img_size: int = 1024, *, embed_dims: Sequence[int] = (64, 128, 160, 320),
                 depths: Sequence[int] = (2, 2, 6, 2), num_heads: Sequence[int] = (2, 4, 5, 10),
                 window_sizes: Sequence[int] = (7, 7, 14, 7), mlp_ratio: float = 4.0, mbconv_expand_ratio: float = 4.0,
                 local_conv_size: int = 3, attn_ratio: float = 1.0, neck_chans: int = 256,
                 merge_strides: Sequence[int] = (2, 2, 1)) -> None:
        super().__init__()
        self.img_size, self.embed_dims, self.neck_chans = img_size, tuple(embed_dims), neck_chans
        self.merge_strides = tuple(merge_strides)
        self.patch_embed = PatchEmbed(embed_dims[0])
        self.layers = nn.ModuleList()
        for index, width in enumerate(embed_dims):
            blocks: list[nn.Module] = []
            for _ in range(depths[index]):
                blocks.append(MBConv(width, mbconv_expand_ratio) if index == 0 else TinyViTBlock(
                    width, num_heads[index], window_sizes[index], mlp_ratio=mlp_ratio, local_conv_size=local_conv_size,
                    attn_ratio=attn_ratio))
            is_last = index == len(embed_dims) - 1
            merge = None if is_last else PatchMerging(width, embed_dims[index + 1], merge_strides[index])
            self.layers.append(Stage(blocks, merge))
        self.neck = neck(embed_dims[-1], neck_chans)

    @property
    def channels(self) -> dict[str, int]:
        """Width of every map."""
        following = (*self.embed_dims[2:], self.embed_dims[-1])
        return {**{f'stage{i + 1}': width for i, width in enumerate(following)}, 'neck': self.neck_chans}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of every map."""
        stride, result = 4 * self.merge_strides[0], {}
        for index in range(1, len(self.embed_dims)):
            stride *= self.merge_strides[index] if index < len(self.merge_strides) else 1
            result[f'stage{index}'] = stride
        return {**result, 'neck': stride}

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Maps of (B, 3, h, w): `'stage1'`..`'stage3'` (after each stage's merge) and `'neck'`."""
        x = self.layers[0](self.patch_embed(pixels))
        maps = {}
        for index in range(1, len(self.layers)):
            x = self.layers[index](x)
            maps[f'stage{index}'] = x
        return {**maps, 'neck': self.neck(x)}
