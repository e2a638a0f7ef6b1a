"""The image ResNet of OpenAI's CLIP under the official key names: three-part stem, pooled strides, attention pool."""
from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.foundation.masked_tokens import pyramid_cells


class Bottleneck(nn.Module):
    """Residual bottleneck; a stride is an average pool after the 3x3 convolution and before the shortcut's 1x1.

    Args:
        inputs: input width.
        planes: inner width; the output has four times as many channels.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            # the official names of the shortcut's parts are -1, 0, 1
            self.downsample = nn.Sequential(OrderedDict([
                ('-1', nn.AvgPool2d(stride)), ('0', nn.Conv2d(inputs, outputs, 1, bias=False)),
                ('1', nn.BatchNorm2d(outputs))]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, 4 * planes, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(self.avgpool(x)))
        return F.relu(x + shortcut)


class AttentionPool(nn.Module):
    """Attention pooling of a map: the query is the mean, keys and values are the mean and all cells.

    Args:
        side: side of the map at the training resolution.
        width: channels of the map.
        heads: number of heads.
        output_dim: channels of the joint space.
    """

    def __init__(self, side: int, width: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width) * width**-0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, output_dim)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """(1 + N, width): the position table, its map part resized bilinearly for other grids."""
        side = round((len(self.positional_embedding) - 1)**0.5)
        if grid == (side, side):
            return self.positional_embedding
        table = self.positional_embedding[1:].float().view(1, side, side, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, grid, mode='bilinear', align_corners=False)
        table = table.flatten(2)[0].t().to(self.positional_embedding.dtype)
        return torch.cat([self.positional_embedding[:1], table])

    def project_cells(self, feature_map: Tensor) -> Tensor:
        """Every cell of (B, width, h, w) in the joint space, (B, output_dim, h, w): value and output projections."""
        return self.c_proj(self.v_proj(feature_map.movedim(1, -1))).movedim(-1, 1)

    def pool_masks(self, feature_map: Tensor, inside: Tensor) -> Tensor:
        """One embedding per mask (FC-CLIP): the query is the mean of the whole map, keys are the cells of the mask.

        Args:
            feature_map: (B, width, h, w).
            inside: (B, Q, h, w) bool.

        Returns:
            (B, Q, output_dim); an empty mask attends to nothing and gives the bias of the output projection.
        """
        batch, width, height, columns = feature_map.shape
        table = self.positions((height, columns))
        cells = feature_map.flatten(2).transpose(1, 2)
        query = self.q_proj(cells.mean(1, keepdim=True) + table[0])
        cells = cells + table[1:]
        allowed = inside.flatten(2)
        occupied = allowed.any(-1, keepdim=True)
        # a query without any key would be NaN: let it see all, then drop what it saw
        x = F.scaled_dot_product_attention(
            self._split(query.expand(-1, allowed.shape[1], -1)), self._split(self.k_proj(cells)),
            self._split(self.v_proj(cells)), attn_mask=(allowed | ~occupied)[:, None])
        x = x.transpose(1, 2).reshape(batch, -1, width)
        return self.c_proj(x * occupied)

    def _split(self, value: Tensor) -> Tensor:
        return value.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, feature_map: Tensor, num_tokens: int = 1) -> Tensor:
        """Image tokens (B, T, output_dim) of (B, width, h, w): T = 1 is CLIP's own, others pool a pyramid cell each."""
        batch, width, *grid = feature_map.shape
        cells = pyramid_cells((grid[0], grid[1]), num_tokens, feature_map.device)
        x = feature_map.flatten(2).transpose(1, 2)
        share = cells / cells.sum(1, keepdim=True)
        means = share.to(x.dtype) @ x
        table = self.positions((grid[0], grid[1]))
        x = torch.cat([means + table[0], x + table[1:]], 1)
        allowed = torch.cat([torch.eye(num_tokens, dtype=torch.bool, device=cells.device), cells], 1)
        x = F.scaled_dot_product_attention(
            self._split(self.q_proj(x[:, :num_tokens])), self._split(self.k_proj(x)), self._split(self.v_proj(x)),
            attn_mask=None if num_tokens == 1 else allowed)
        return self.c_proj(x.transpose(1, 2).reshape(batch, num_tokens, width))


class ModifiedResNet(nn.Module):
    """CLIP's image ResNet.

    Args:
        layers: blocks per stage.
        output_dim: channels of the joint space.
        heads: heads of the attention pool.
        input_resolution: side of the training images in pixels.
        width: channels of the stem; stage i has 4 * width * 2^i.
    """

    def __init__(self, layers: tuple[int, int, int, int], output_dim: int, heads: int, input_resolution: int = 224,
                 width: int = 64) -> None:
        super().__init__()
        self.output_dim, self.width = output_dim, width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        inputs = width
        for stage, count in enumerate(layers):
            planes = width * 2**stage
            blocks = [Bottleneck(inputs, planes, 1 if stage == 0 else 2)]
            inputs = 4 * planes
            blocks += [Bottleneck(inputs, planes) for _ in range(count - 1)]
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
        self.attnpool = AttentionPool(input_resolution // 32, 32 * width, heads, output_dim)

    @property
    def channels(self) -> dict[str, int]:
        """Width of every map."""
        return {f'res{stage + 2}': 4 * self.width * 2**stage for stage in range(4)}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of every map."""
        return {f'res{stage + 2}': 4 * 2**stage for stage in range(4)}

    def forward(self, pixels: Tensor, num_tokens: int = 1,
                patch_output: str = 'raw') -> tuple[dict[str, Tensor], Tensor]:
        """Maps and image tokens.

        Args:
            pixels: (B, 3, h, w), sides multiples of 32.
            num_tokens: 1, 5, 14 or 30.
            patch_output: `'projected'` adds the map `'patch'`, every cell of res5 in the joint space.

        Returns:
            Maps res2..res5 (strides 4..32) and tokens (B, T, output_dim), whole image first.
        """
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.avgpool(F.relu(self.bn3(self.conv3(x))))
        maps = {}
        for stage in range(1, 5):
            x = self.get_submodule(f'layer{stage}')(x)
            maps[f'res{stage + 1}'] = x
        if patch_output == 'projected':
            maps['patch'] = self.attnpool.project_cells(x)
        return maps, self.attnpool(x, num_tokens)
