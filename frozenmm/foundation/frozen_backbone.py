"""Any frozen image tower as the backbone of an mmdet or mmseg model."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from frozenmm.deprecation import renamed_arguments
from frozenmm.errors import UserError
from frozenmm.foundation.feature_pyramid import SimpleFeaturePyramid
from frozenmm.foundation.image_grid import grid_size
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.joining import AUTO, agreed_stats, join_when_taken_in, parse_stats
from frozenmm.foundation.tower_building import build_tower
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats


@MODELS.register_module()
class FrozenBackbone(BaseModule):
    """A frozen network in the place of a backbone; the rest of the model learns on its maps.

    The tower sees the pipeline's batch at the pipeline's resolution (`resize_mode='none'`, the default here), so the
    maps have the places and sizes that heads expect of their strides. A tower that resizes needs a pyramid, which lays
    its maps back on the image's grid.

    Args:
        tower: config of an image tower (`dict(type='frozenmm.CLIPTower', ...)`) or a built one.
        out_indices: which of the tower's maps to use, by position in order of falling resolution; all by default.
        pyramid: `dict(strides=[4, 8, 16, 32], channels=256)` adds a light trainable pyramid, for networks of a single
            stride (plain ViTs) or to change strides; None returns the frozen maps themselves.
        image_stats: how the batch was normalised. `'auto'` reads it off the model's data preprocessor when the model
            is built. `dict(mean=..., std=..., channel_order=...)` is needed where no data preprocessor
            normalises (a `Normalize` in the pipeline, use outside a model); where one does and differs, that is an
            error.
        gradient: see `FrozenModule`; set in the tower's config.
        precision: see `FrozenModule`; set in the tower's config.
        init_cfg: see mmengine's `BaseModule`.

    Attributes:
        out_channels: width of every output.
        strides: stride of every output in pixels.

    Raises:
        UserError: what the arguments above rule out.
    """

    @renamed_arguments(removed_in='0.3', model='tower')
    def __init__(self, tower: dict | ImageTower, *, out_indices: Sequence[int] | None = None,
                 pyramid: dict | None = None, image_stats: str | dict | ImageStats = AUTO, gradient: str | None = None,
                 precision: str | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.tower = build_tower(_with_policy(tower, gradient, precision), part='FrozenBackbone',
                                 resize_mode='none')
        names = list(self.tower.channels)
        self.maps = [names[i] for i in _checked_indices(out_indices, names, self.tower.name)]
        self.out_channels = [self.tower.channels[name] for name in self.maps]
        self.strides = [self.tower.strides[name] for name in self.maps]
        self.pyramid: SimpleFeaturePyramid | None = None
        if pyramid is not None:
            if set(pyramid) != {'strides', 'channels'}:
                raise UserError(f'pyramid needs exactly the keys strides and channels, got {list(pyramid)}')
            self.pyramid = SimpleFeaturePyramid(self.out_channels, self.strides, **pyramid)
            self.strides = list(pyramid['strides'])
            self.out_channels = [pyramid['channels']] * len(self.strides)
        elif self.tower.resize_mode != 'none':
            raise UserError(
                f'with resize_mode={self.tower.resize_mode!r} the maps of {self.tower.name} do not lie on the image\'s '
                'grid; use resize_mode=\'none\', or add pyramid=dict(strides=..., channels=...)')
        self.image_stats = parse_stats(image_stats)
        join_when_taken_in(self)

    def join(self, model: nn.Module) -> None:
        """Take the statistics of the model's data preprocessor; see `frozenmm.foundation.joining`."""
        self.image_stats = agreed_stats(self.image_stats, model, part='FrozenBackbone')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of a batch, finest first.

        Args:
            images: (B, 3, H, W), normalised and padded by the data preprocessor.

        Returns:
            One (B, out_channels[i], ceil(H / strides[i]), ceil(W / strides[i])) float map per output.

        Raises:
            UserError: the statistics are not known, or the tower refuses the images.
        """
        if self.image_stats is None:
            raise UserError('FrozenBackbone cannot know how its images were normalised: it is no part of a model with '
                            'a data preprocessor; give image_stats=dict(mean=..., std=..., channel_order=...)')
        features = self.tower(images, image_stats=self.image_stats)
        maps = [features.maps[name] for name in self.maps]
        image_size = (images.shape[-2], images.shape[-1])
        if self.pyramid is not None:
            return self.pyramid(maps, features.region, image_size, aligned=self.tower.resize_mode == 'none')
        sizes = [grid_size(image_size, stride) for stride in self.strides]
        # the tower pads to a multiple of its patch: cells that lie wholly in that padding are not the image's
        return tuple(x[..., :height, :width] for x, (height, width) in zip(maps, sizes))


def _with_policy(tower: dict | ImageTower, gradient: str | None, precision: str | None) -> dict | ImageTower:
    """The tower's config with gradient and precision set."""
    policy = dict(gradient=gradient, precision=precision)
    given = {key: value for key, value in policy.items() if value is not None}
    if not isinstance(tower, dict):
        if given:
            raise UserError(f'{list(given)} must be given to the tower itself when FrozenBackbone gets a built one')
        return tower
    for key, value in given.items():
        if tower.get(key, value) != value:
            raise UserError(f'FrozenBackbone says {key}={value!r}, but the config of its tower says {tower[key]!r}')
    return {**tower, **given}


def _checked_indices(out_indices: Sequence[int] | None, names: list[str], tower: str) -> list[int]:
    if out_indices is None:
        return list(range(len(names)))
    if not out_indices or not all(0 <= i < len(names) for i in out_indices):
        raise UserError(f'out_indices must choose among 0..{len(names) - 1}, the maps {names} of {tower}, '
                         f'got {list(out_indices)}')
    return list(out_indices)
