"""A frozen tower whose last block is changed: images in, cosines of every cell with text rows out."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import lcm
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.segmentation.dense_clip.aggregation import SamAggregation, SamCells, SelfAggregation
from frozenmm.segmentation.dense_clip.attention import ProxyAttention, mean_similarity
from frozenmm.segmentation.dense_clip.labels import drop_absent, smooth_by_keys
from frozenmm.segmentation.dense_clip.method import Method, method_of
from frozenmm.segmentation.dense_clip.pictures import batch_picture
from frozenmm.segmentation.dense_clip.sam_reading import SamReader, rounded_picture
from frozenmm.segmentation.dense_clip.trunk import LastTokens, Trunk
from frozenmm.segmentation.dense_clip.windows import (
    CellMaps,
    Placing,
    Size,
    WindowPlan,
    fitted_size,
    split_padding,
    stitch,
    window_plan,
)
from frozenmm.structures import ImageStats


class DenseCLIP(nn.Module):
    """Dense features of a frozen tower in the space of text.

    Args:
        tower: a CLIP ViT or RADIO.
        method: see `method_of`.
        proxy: any tower, whose last map gives the similarities of ProxyCLIP and Trident; with `resize_mode='none'` it
            sees windows at their own size, else as the mode says (SAM: `'squash'`).
        sam: SAM's image encoder, for Trident's aggregation.
        windows_at_once: windows per forward pass.

    Raises:
        UserError: a tower without replaceable block, or one that the method needs and does not have.
    """

    def __init__(self, tower: ImageTower, method: str | Mapping[str, Any] | Method = 'naclip', *,
                 proxy: ImageTower | None = None, sam: ImageTower | None = None, windows_at_once: int = 8) -> None:
        super().__init__()
        self.method = method_of(method)
        self.trunk = Trunk(tower, self.method.arithmetic())
        self.block = self.method.last_block()
        self.aggregation = self.method.aggregation()
        if isinstance(self.block.attention, ProxyAttention) and proxy is None:
            raise UserError("attention 'proxy' needs a proxy tower; give proxy=dict(type='frozenmm.DINOTower', ...)")
        if isinstance(self.aggregation, SamAggregation) and sam is None:
            raise UserError("aggregation by SAM needs sam=dict(type='frozenmm.SAMPrompter', ...)")
        if windows_at_once < 1:
            raise UserError(f'windows_at_once must be 1 or more, got {windows_at_once}')
        self.tower, self.proxy = tower, proxy
        self.sam = SamReader(sam) if sam is not None and isinstance(self.aggregation, SamAggregation) else None
        self.windows_at_once = windows_at_once

    @property
    def multiple(self) -> int:
        """What sides of windows must be multiples of, so that no tower cuts a patch."""
        own = self.proxy is not None and self.proxy.resize_mode == 'none'
        return lcm(self.trunk.patch, self.proxy.input.patch) if own and self.proxy else self.trunk.patch

    def normalised(self, images: Tensor, stats: ImageStats) -> Tensor:
        """Images (B, 3, H, W) in the tower's normalisation and channel order."""
        target = self.tower.input.stats
        if stats == target:
            return images
        (mean, std), (target_mean, target_std) = stats.tensors(images), target.tensors(images)
        pixels = images * std + mean
        return ((pixels if stats.channel_order == target.channel_order else pixels.flip(1)) - target_mean) / target_std

    def proxy_maps(self, pixels: Tensor) -> Tensor:
        """(B, C, h, w) of the proxy for pixels (B, 3, H, W) in the tower's normalisation."""
        if self.proxy is None:
            raise UserError('there is no proxy tower')
        if self.proxy.resize_mode == 'none':
            # a last patch that is cut is not seen, as by a convolution without padding
            patch = self.proxy.input.patch
            pixels = pixels[..., :pixels.shape[-2] // patch * patch, :pixels.shape[-1] // patch * patch]
        return self.proxy(pixels, image_stats=self.tower.input.stats).map()

    def dense(self, pixels: Tensor, proxy_maps: Tensor | None = None, *, shared_mean: bool | None = None,
              keys: bool = False) -> LastTokens:
        """What the changed last block gives.

        Args:
            pixels: (B, 3, h, w) in the tower's normalisation.
            proxy_maps: (B, C, h', w') of the proxy, if they are known; computed otherwise.
            shared_mean: one mean of the proxy's similarity over all B, as ProxyCLIP's code has it for a batch; the
                method decides by default.
            keys: also give the keys through the output projection.
        """
        attention = self.block.attention
        parts = [pixels[start:start + self.windows_at_once] for start in range(0, len(pixels), self.windows_at_once)]
        if not isinstance(attention, ProxyAttention):
            return _joined([self._last(part, keys=keys) for part in parts])
        if proxy_maps is None:
            proxy_maps = torch.cat([self.proxy_maps(part) for part in parts])
        mean = self.similarity(proxy_maps, shared_mean=shared_mean)
        grid = (int(proxy_maps.shape[-2]), int(proxy_maps.shape[-1]))
        found, start = [], 0
        for part in parts:
            here = slice(start, start + len(part))
            rows = attention.rows(proxy_maps[here], mean[here])
            found.append(self._last(part, proxy=rows, proxy_grid=grid, keys=keys))
            start += len(part)
        return _joined(found)

    def similarity(self, proxy_maps: Tensor, *, shared_mean: bool | None = None) -> Tensor:
        """(B,) the mean similarity that is taken off, of maps (B, C, h, w); see `dense`."""
        mean = mean_similarity(proxy_maps)
        if shared_mean is None:
            shared_mean = getattr(self.block.attention, 'shared_mean', False)
        return mean.mean(0, keepdim=True).expand_as(mean) if shared_mean else mean

    def _last(self, pixels: Tensor, **options: Any) -> LastTokens:
        """`Trunk.last` under the contract of the frozen tower."""
        def run(network: nn.Module, x: Tensor) -> dict[str, Any]:
            return vars(self.trunk.last(network, x, self.block, **options))

        return LastTokens(**self.tower.run(run, pixels))

    def final_norm(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) after the tower's last norm."""
        return self.tower.run(self.trunk.final_norm, tokens)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) of the last block in the space of text, (..., E), not normalised."""
        return self.tower.run(lambda network, x: self.trunk.project(network, self.trunk.final_norm(network, x)), tokens)

    def cosines(self, cells: Tensor, text: Tensor) -> Tensor:
        """Cosines (N, Q, h, w) of cells (N, D, h, w) of the last block with text rows (Q, E)."""
        embedding = F.normalize(self.embed(cells.movedim(1, -1)), dim=-1)
        return (embedding @ F.normalize(text, dim=-1).T).movedim(-1, 1)

    def forward(self, image: Tensor, text: Tensor, stats: ImageStats, *, crop: Size | None = None,
                stride: Size | None = None, picture: Tensor | None = None) -> CellMaps:
        """Cosines of an image with text.

        Args:
            image: (1, 3, H, W), the pipeline's, without padding.
            text: (Q, E).
            stats: the pipeline's normalisation.
            crop: height and width of the windows; None: the whole image is one.
            stride: from window to window.
            picture: (3, h, w) RGB in 0..255, the picture at its own size, for SAM; None: SAM sees `image`.
        """
        pixels = self.normalised(image, stats)
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if self.method.splice == 'logits':
            plan = window_plan(size, crop or size, stride or size)
            return self._logits(plan, pixels, text)
        spliced = self.spliced(pixels, crop, stride)
        if isinstance(self.aggregation, SelfAggregation):
            spliced = self.aggregation(spliced)
        elif isinstance(self.aggregation, SamAggregation):
            shown = batch_picture(image, stats) if picture is None else picture
            spliced = self.aggregation(spliced, self.sam_cells(shown))
        return CellMaps(self.cosines(spliced, text), Placing(WindowPlan(size, size, (0,), (0,)), size))

    def _logits(self, plan: WindowPlan, pixels: Tensor, text: Tensor) -> CellMaps:
        """Cosines of every window."""
        windows, shown, before = self.padded(plan.cut(pixels[0]))
        smooth = self.method.smooth_keys
        last = self.dense(windows, keys=bool(smooth))
        maps = self.cosines(last.cells, text)
        if self.method.drop_absent:
            maps = drop_absent(maps, self.method.drop_absent)
        if last.keys is not None:
            maps = smooth_by_keys(maps, last.keys[:, last.prefix:], smooth, compat=self.method.compat)
        return CellMaps(maps, Placing(plan, shown, before), direct=not self.method.two_resizes)

    def padded(self, windows: Tensor) -> tuple[Tensor, Size, Size]:
        """Windows (N, 3, h, w) padded as the method says, their size then, and what stands above and to the left."""
        size = (int(windows.shape[-2]), int(windows.shape[-1]))
        if self.method.padding == 'none':
            return windows, size, (0, 0)
        multiple = self.method.multiple or self.multiple
        top, bottom, left, right = (*split_padding(size[0], multiple), *split_padding(size[1], multiple))
        if self.method.padding == 'corner':
            top, bottom, left, right = 0, top + bottom, 0, left + right
        windows = F.pad(windows, (left, right, top, bottom))
        return windows, (int(windows.shape[-2]), int(windows.shape[-1])), (top, left)

    def fitted(self, size: Size, crop: Size | None, stride: Size | None) -> Size:
        """The size that an image gets whose windows are joined as features."""
        if self.method.multiple:
            return fitted_size(size, self.method.multiple, crop or (0, 0))
        # Parity: RADSeg fits to the stride of the windows and squeezes the picture
        fit_to_stride = self.method.compat and stride is not None and isinstance(self.aggregation, SelfAggregation)
        return fitted_size(size, stride[0] if fit_to_stride and stride else self.trunk.patch, crop or (0, 0))

    def spliced(self, pixels: Tensor, crop: Size | None = None, stride: Size | None = None) -> Tensor:
        """(1, D, rows, columns): features of all windows averaged on one grid.

        Args:
            pixels: (1, 3, H, W) in the tower's normalisation; resized to whole cells if need be.
            crop: of the windows.
            stride: of the windows.
        """
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        fitted = self.fitted(size, crop, stride)
        if fitted != size:
            pixels = F.interpolate(pixels, fitted, mode='bilinear', align_corners=False)
        plan = window_plan(fitted, crop or fitted, stride or fitted)
        cells = self.dense(plan.cut(pixels[0])).cells
        patch = self.trunk.patch
        grid = (plan.window[0] // patch, plan.window[1] // patch)
        found = (int(cells.shape[-2]), int(cells.shape[-1]))
        if found[1] % grid[1] or found[0] % grid[0]:
            ratio = max(1, round(found[0] / grid[0]))
        else:
            ratio = found[1] // grid[1]
        return stitch(cells, Placing(_rescaled(plan, patch, ratio), (grid[0] * ratio, grid[1] * ratio)))

    def sam_cells(self, picture: Tensor) -> list[SamCells]:
        """What SAM's last block does with a picture (3, H, W) RGB in 0..255, or with its halves."""
        if self.sam is None or not isinstance(self.aggregation, SamAggregation):
            raise UserError('the method does not aggregate by SAM')
        picture = rounded_picture(picture, self.trunk.patch)
        middle = picture.shape[-1] // 2
        parts = [picture[..., :middle], picture[..., middle:]] if self.aggregation.halves else [picture]
        return [self.sam.cells(part) for part in parts]


def _joined(parts: list[LastTokens]) -> LastTokens:
    keys = [part.keys for part in parts if part.keys is not None]
    return replace(parts[0], tokens=torch.cat([part.tokens for part in parts]), keys=torch.cat(keys) if keys else None)


def _rescaled(plan: WindowPlan, patch: int, ratio: int) -> WindowPlan:
    """A plan in pixels as one in cells of a patch, each `ratio` by `ratio` parts."""
    def scaled(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(value // patch * ratio for value in values)

    (height, width), (down, across) = scaled(plan.size), scaled(plan.window)
    return WindowPlan((height, width), (down, across), scaled(plan.tops), scaled(plan.lefts))
