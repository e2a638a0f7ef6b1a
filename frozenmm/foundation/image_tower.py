"""The contract of frozen image encoders: the pipeline's batch in, named feature maps and image tokens out."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from frozenmm.deprecation import renamed_arguments, warn_renamed
from frozenmm.errors import UnknownName, UserError
from frozenmm.foundation.frozen_module import FrozenModule, FrozenNetwork
from frozenmm.foundation.lookup import choice, require_known
from frozenmm.foundation.resample import resample
from frozenmm.structures import ImageStats, TowerFeatures

RESIZE_MODES = ('center_crop', 'squash', 'pad', 'none')
TOKEN_COUNTS = {0: 0, 1: 1, 5: 2, 14: 3, 30: 4}
"""Number of image tokens -> pyramid steps: 1 (whole), + 2x2 cells, + 3x3 cells, + 4x4 cells."""


@dataclass(frozen=True)
class TowerInput:
    """What a network expects to see.

    Attributes:
        stats: its normalisation, for pixels in 0..255.
        size: side of its square input in pixels (used unless `resize_mode='none'`).
        patch: input sides must be a multiple of this (patch size of a ViT, largest stride of a convolutional network).
        interpolation: `'bicubic'` or `'bilinear'`.
    """

    stats: ImageStats
    size: int
    patch: int
    interpolation: str = 'bicubic'


@dataclass
class RawFeatures:
    """What a family reads off its network; see `TowerFeatures` for shapes. Taps are among the maps, as `'tap5'`, ..."""

    maps: dict[str, Tensor]
    tokens: Tensor | None = None
    class_token: Tensor | None = None


class TowerOptions(TypedDict, total=False):
    """Arguments that every family passes on to `ImageTower`, which says what they mean and do by default."""

    resize_mode: str
    size: int | None
    out_maps: Sequence[str] | None
    taps: Sequence[int]
    compat: bool
    quantise: bool
    gradient: str
    compile: bool


class ImageTower(FrozenModule):
    """A frozen image encoder.

    Families derive from it, set `channels`, `strides` and `token_channels`, and read their network in `extract`.

    Args:
        network: the network, or a `FrozenNetwork` to share.
        input: what the network expects.
        channels: width of every map by name, in order of falling resolution.
        strides: stride of every map, in pixels of the tower's input.
        token_channels: width of the image tokens; None if the family has none of its own (the mean of the patches of
            a cell of the last map then stands in, so the width is that map's).
        blocks: number and width of the transformer blocks that can be tapped; None where the network has none.
        name: see `FrozenModule`; likewise precision.
        **options: those below.

    Keyword Args:
        resize_mode: `'center_crop'` (default) resizes the short side and crops the centre square, `'squash'` ignores
            the aspect ratio, `'pad'` resizes the long side and pads bottom/right, `'none'` keeps the pipeline's
            resolution and pads to a multiple of the patch.
        size: side of the input in pixels, the network's own by default; a multiple of `input.patch`.
        out_maps: names of the maps to return, all by default.
        taps: blocks, counted from 0, whose whole token sequences are wanted; see `TowerFeatures.taps`.
        compat: the crop box (-1, -1, W, H) of the official Frozen-DETR: one black row on top, one black column left.
        quantise: 8-bit resampling, bit for bit that of Pillow.
        gradient: see `FrozenModule`; likewise compile.

    Raises:
        UnknownName: an option, a mode, a map or a block that there is not.
        UserError: a size that is no multiple of the patch, or 8-bit resampling with a gradient.
    """

    @renamed_arguments(removed_in='0.3', legacy_border='compat')
    def __init__(self, network: nn.Module | FrozenNetwork, *, input: TowerInput, channels: dict[str, int],
                 strides: dict[str, int], token_channels: int | None = None, blocks: tuple[int, int] | None = None,
                 name: str = '', precision: str = 'fp32', **options: Unpack[TowerOptions]) -> None:
        require_known(options, TowerOptions.__annotations__, f'option of {type(self).__name__}')
        gradient = options.get('gradient', 'detached')
        super().__init__(network, name=name, precision=precision, gradient=gradient,
                         compile=options.get('compile', False))
        self.resize_mode = choice('resize_mode', options.get('resize_mode', RESIZE_MODES[0]), RESIZE_MODES)
        self.quantise = options.get('quantise', False)
        if gradient == 'through' and self.quantise:
            raise UserError('quantise rounds to 8 bit, which has no gradient; use quantise=False with '
                            'gradient=\'through\'')
        self.input = input
        self.size = self._checked_size(options.get('size'))
        out_maps = options.get('out_maps')
        unknown = [key for key in out_maps or () if key not in channels]
        if unknown:
            raise UnknownName(f'{self.name} has no maps {unknown}; it gives {list(channels)}')
        names = [key for key in channels if out_maps is None or key in out_maps]
        self.channels = {key: channels[key] for key in names}
        self.strides = {key: strides[key] for key in names}
        self.token_channels = channels[names[-1]] if token_channels is None else token_channels
        self.compat = options.get('compat', False)
        self._blocks = blocks
        taps = options.get('taps') or ()
        self._check_taps(taps)
        self.taps = tuple(sorted(taps)) or None  # None: feature caches of older releases keep fitting

    def _checked_size(self, size: int | None) -> int:
        size, patch = self.input.size if size is None else size, self.input.patch
        if size < patch or size % patch:
            raise UserError(f'size must be a positive multiple of {self.name}\'s patch of {patch} pixels, got {size}')
        return size

    @property
    def tap_channels(self) -> int | None:
        """Width of the taps; None for a network without transformer blocks."""
        return None if self._blocks is None else self._blocks[1]

    def _check_taps(self, taps: Sequence[int]) -> None:
        if taps and self._blocks is None:
            raise UserError(f'{self.name} has no transformer blocks to tap; leave out taps={list(taps)} and take its '
                            f'maps {list(self.channels)} instead')
        count = 0 if self._blocks is None else self._blocks[0]
        if any(not 0 <= block < count for block in taps) or len(set(taps)) != len(taps):
            raise UnknownName(f'taps of {self.name} are different blocks from 0 to {count - 1}, got {list(taps)}')

    @property
    def legacy_border(self) -> bool:
        """The old name of `compat`, until 0.3."""
        warn_renamed('legacy_border', 'compat', removed_in='0.3')
        return self.compat

    @legacy_border.setter
    def legacy_border(self, value: bool) -> None:
        warn_renamed('legacy_border', 'compat', removed_in='0.3')
        self.compat = value

    def extract(self, network: nn.Module, pixels: Tensor, num_tokens: int) -> RawFeatures:
        """Read maps and tokens off the network; families implement this.

        Args:
            network: the frozen network (possibly compiled), in its own precision.
            pixels: (B, 3, h, w) in the network's normalisation, sides multiples of the patch.
            num_tokens: 0, 1, 5, 14 or 30 image tokens wanted; `tokens=None` from a family without masked class tokens.
        """
        raise NotImplementedError(f'{type(self).__name__} must implement `extract`')

    def forward(  # type: ignore[override]  # a tower takes a batch with its geometry, not any tensors
            self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
            image_stats: ImageStats | None = None, *, num_tokens: int = 0) -> TowerFeatures:
        """Features of a padded batch.

        Args:
            images: (B, 3, H, W) float, the pipeline's batch: normalised, padded at the bottom and right. A tower
                that does not resize pads on to whole patches, so a strip is as good as any picture.
            valid_sizes: B pairs (height, width) of the images without padding; the whole batch by default.
            image_stats: the pipeline's normalisation; by default raw RGB pixels in 0..255.
            num_tokens: 0, 1, 5, 14 or 30 image tokens.

        Returns:
            The maps asked for, tokens when `num_tokens > 0`, and where the maps lie in the image.

        Raises:
            UserError: wrong shape, sizes outside the batch, an image without pixels, NaN or infinite pixels.
        """
        if num_tokens not in TOKEN_COUNTS:
            raise ValueError(f'num_tokens must be one of {list(TOKEN_COUNTS)}, got {num_tokens}')
        sizes = self._check(images, valid_sizes)
        with torch.autocast(images.device.type, enabled=False):  # resampling is matrix products
            pixels, valid, region = self.prepare(images, sizes, image_stats or ImageStats())
        raw = self.run(lambda network, x: self.extract(network, x, num_tokens).__dict__, pixels)
        maps = {key: raw['maps'][key] for key in self.channels}
        tokens = raw['tokens']
        if num_tokens and tokens is None:
            tokens = cell_means(next(reversed(maps.values())), num_tokens)
        class_token = raw['class_token']
        if class_token is None and tokens is not None and raw['tokens'] is not None:
            class_token = tokens[:, 0]
        return TowerFeatures(maps=maps, valid=valid, region=region, tokens=tokens if num_tokens else None,
                             class_token=class_token,
                             taps={block: raw['maps'][f'tap{block}'] for block in self.taps or ()})

    def prepare(self, images: Tensor, sizes: list[tuple[int, int]],
                stats: ImageStats) -> tuple[Tensor, Tensor, Tensor]:
        """The network's input for a checked batch.

        Returns:
            pixels (B, 3, h, w), valid sizes (B, 2) int64 in them, region (B, 4) xyxy in pixels of `images`.
        """
        border = 1 if self.compat else 0
        if border:
            mean, std = stats.tensors(images)
            images = (F.pad(images * std + mean, (1, 0, 1, 0)) - mean) / std
            sizes = [(height + 1, width + 1) for height, width in sizes]
        if self.resize_mode == 'none':
            pixels, valid, regions = self._pad_to_patch(images, sizes, stats)
        else:
            placed = [self._place(*size) for size in sizes]
            regions = torch.tensor([box for box, _ in placed], dtype=torch.float64, device=images.device)
            valid = torch.tensor([shown for _, shown in placed], device=images.device)
            pixels = resample(images, regions, (self.size, self.size), torch.tensor(sizes, device=images.device),
                              interpolation=self.input.interpolation, source=stats, target=self.input.stats,
                              quantise=self.quantise)
        return pixels, valid, (regions - border).to(torch.float32)

    def _place(self, height: int, width: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        """Region xyxy that the square input shows of an image, and the part of the input that shows image."""
        side = self.size
        if self.resize_mode == 'squash':
            return (0.0, 0.0, width, height), (side, side)
        if self.resize_mode == 'pad':
            longest = max(height, width)
            down, across = (min(side, max(1, round(side * part / longest))) for part in (height, width))
            return (0.0, 0.0, longest, longest), (down, across)
        short = min(height, width)
        # torchvision's size rule, which the official preprocessing uses: the long side is truncated
        tall, wide = int(side * height / short), int(side * width / short)
        top, left = round((tall - side) / 2), round((wide - side) / 2)
        step_y, step_x = height / tall, width / wide
        return (left * step_x, top * step_y, (left + side) * step_x, (top + side) * step_y), (side, side)

    def _pad_to_patch(self, images: Tensor, sizes: list[tuple[int, int]],
                      stats: ImageStats) -> tuple[Tensor, Tensor, Tensor]:
        """The batch at its own resolution, re-normalised, padding set to the target's mean."""
        count, _, height, width = images.shape
        valid = torch.tensor(sizes, device=images.device)
        target = self.input.stats
        if stats.channel_order != target.channel_order:
            images = images.flip(1)
            stats = ImageStats(stats.mean[::-1], stats.std[::-1], target.channel_order)
        if stats != target:
            (mean, std), (target_mean, target_std) = stats.tensors(images), target.tensors(images)
            images = images * (std / target_std) + (mean - target_mean) / target_std
        if any(size != (height, width) for size in sizes):
            rows = torch.arange(height, device=images.device)[None] < valid[:, :1]
            columns = torch.arange(width, device=images.device)[None] < valid[:, 1:]
            images = images * (rows[:, None, :, None] & columns[:, None, None, :])
        bottom, right = -height % self.input.patch, -width % self.input.patch
        images = F.pad(images, (0, right, 0, bottom))
        edges = [torch.full((count, ), edge, dtype=torch.float64, device=images.device)
                 for edge in (0, 0, width + right, height + bottom)]
        return images, valid, torch.stack(edges, 1)

    def _check(self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | Tensor | None) -> list[tuple[int, int]]:
        """The valid size of every image of a batch that is fit for the tower."""
        if torch.compiler.is_exporting():  # nothing can be read off a traced batch; its images fill it
            return [(images.shape[-2], images.shape[-1])]
        sizes = self._check_sizes(images, valid_sizes)
        message = f'{self.name} got NaN or infinite pixels; look at the pipeline\'s images and its normalisation'
        finite = torch.isfinite(images).all()
        if images.device.type == 'cpu':
            if not finite:
                raise UserError(message)
        elif images.device.type == 'cuda':
            torch._assert_async(finite, message)  # no host synchronisation
        return sizes

    def _check_sizes(self, images: Tensor,
                     valid_sizes: Sequence[tuple[int, int]] | Tensor | None) -> list[tuple[int, int]]:
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f'{self.name} expects float images (B, 3, H, W), got {images.dtype} {tuple(images.shape)}')
        count, _, height, width = images.shape
        if valid_sizes is None:
            sizes = [(height, width)] * count
        else:
            rows = valid_sizes.tolist() if isinstance(valid_sizes, Tensor) else valid_sizes
            sizes = [(int(row[0]), int(row[1])) for row in rows]
        if len(sizes) != count:
            raise ValueError(f'{len(sizes)} valid sizes for {count} images; give one (height, width) per image')
        for index, (h, w) in enumerate(sizes):
            if h > height or w > width:
                raise ValueError(f'image {index} has the valid size {h}x{w}, larger than the batch of {height}x{width}')
            if min(h, w) < 1:
                raise UserError(f'image {index} is {h}x{w} pixels; drop it in the pipeline')
        return sizes


def cell_means(feature_map: Tensor, num_tokens: int) -> Tensor:
    """Image tokens for towers without class token: the mean patch of the whole image and of each pyramid cell.

    Args:
        feature_map: (B, C, h, w).
        num_tokens: 1, 5, 14 or 30.

    Returns:
        (B, T, C), whole image first, then cells row by row. Source: Frozen-DETR, ablation "mean of patch tokens".
    """
    steps = TOKEN_COUNTS[num_tokens]
    means = [F.adaptive_avg_pool2d(feature_map, k).flatten(2) for k in range(1, steps + 1)]
    return torch.cat(means, 2).transpose(1, 2)
