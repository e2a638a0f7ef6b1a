"""Regions of pictures as a model's frozen tower sees them, for a memory of examples."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.apis.image_pipeline import batch_of
from frozenmm.compat.image_files import read_image_file
from frozenmm.compat.image_sources import NamedImage, read_images
from frozenmm.errors import UserError
from frozenmm.segmentation.fc_clip.segmentor import MaskSegmentor
from frozenmm.segmentation.word_cells.grouping import region_means
from frozenmm.segmentation.word_cells.segmentor import WordCellSegmentor

_STRIDE = 4  # of the masks that the model itself predicts
_TOUCHING = 0.1


class PictureRegions:
    """The encoder of a `ClassMemory`: what the model pools for its own masks, pooled for the user's.

    Args:
        model: has the data preprocessor; holds or is `core`.
        core: the model with the trunk.
        prepare: what is done with a picture before the model sees it.
    """

    def __init__(self, model: Any, core: MaskSegmentor, prepare: Callable[[NamedImage], dict[str, Any]]) -> None:
        self.model, self.core, self.prepare = model, core, prepare

    @property
    def signature(self) -> Mapping[str, str | int]:
        """See `RegionEncoder`."""
        return self.core.trunk.region_signature

    @torch.no_grad()
    def __call__(self, image: Any, *, mask: Any = None, box: Sequence[float] | None = None) -> Tensor:
        """The vector (C,) of a region of one picture; see `ClassMemory.add`.

        Raises:
            UserError: several pictures, or a region that does not fit the picture.
        """
        picture = one_picture(image)
        region = region_mask(picture.pixels.shape[:2], mask=mask, box=box)
        data = self.model.data_preprocessor(batch_of([self.prepare(picture)]), False)
        inputs, samples = data['inputs'], data['data_samples']
        trunk = self.core.trunk
        features = self.core.extract_feat(inputs, samples)
        canvas, (height, width) = trunk.canvas(inputs), samples[0].img_shape[:2]
        inside = torch.from_numpy(region).to(inputs.device, torch.float32)[None, None]
        inside = F.pad(F.interpolate(inside, (height, width), mode='area'),
                       (0, canvas[1] - width, 0, canvas[0] - height))
        share = F.interpolate(inside, (canvas[0] // _STRIDE, canvas[1] // _STRIDE), mode='area')
        vectors, valid = trunk.pooled(features, 2 * share - 1)
        if not bool(valid):  # smaller than a cell of the frozen map: the cells that hold most of it
            share = F.interpolate(inside, features.map(trunk.dense_name).shape[-2:], mode='area')
            vectors, _ = trunk.pooled(features, share - share.max() / 2)
        return vectors[0, 0].float().cpu()

    def surroundings(self, image: Any, *, mask: Any = None, box: Sequence[float] | None = None) -> Tensor:
        """None of them: these models tell background from objects themselves."""
        return torch.zeros(0, int(self.signature['channels']))


class CellRegions:
    """The same for a `WordCellSegmentor`, whose regions know no background: the rest of the picture shows it.

    Args:
        model: the model.
        prepare: what is done with a picture before the model sees it.
    """

    def __init__(self, model: WordCellSegmentor, prepare: Callable[[NamedImage], dict[str, Any]]) -> None:
        self.model, self.prepare = model, prepare

    @property
    def signature(self) -> Mapping[str, str | int]:
        """See `RegionEncoder`."""
        return self.model.region_signature

    @torch.no_grad()
    def __call__(self, image: Any, *, mask: Any = None, box: Sequence[float] | None = None) -> Tensor:
        """The vector (C,) of a region of one picture; see `ClassMemory.add`.

        Raises:
            UserError: several pictures, or a region that does not fit the picture.
        """
        shown, inside = self._read(image, mask, box)
        return self.model.region_vectors(self.model.views(shown), inside[None])[0].float().cpu()

    @torch.no_grad()
    def surroundings(self, image: Any, *, mask: Any = None, box: Sequence[float] | None = None) -> Tensor:
        """Vectors (M, C) of the picture's regions of which less than a tenth lies in the given one."""
        shown, inside = self._read(image, mask, box)
        regions = self.model.regions(shown)
        outside = region_means(inside[None].cpu(), regions)[0] < _TOUCHING
        masks = F.one_hot(regions).permute(2, 0, 1)[outside].float()
        return self.model.region_vectors(self.model.views(shown), masks).float().cpu()

    def _read(self, image: Any, mask: Any, box: Sequence[float] | None) -> tuple[Tensor, Tensor]:
        """The picture (1, 3, H, W) as the model sees it, and how much of each pixel of its grid is inside (h, w)."""
        picture = one_picture(image)
        region = region_mask(picture.pixels.shape[:2], mask=mask, box=box)
        data = self.model.data_preprocessor(batch_of([self.prepare(picture)]), False)
        height, width = data['data_samples'][0].img_shape[:2]
        shown = data['inputs'][..., :height, :width]
        inside = torch.from_numpy(region).to(shown.device, torch.float32)[None, None]
        return shown, F.interpolate(inside, self.model.grouping.grid(height, width), mode='area')[0, 0]


def one_picture(image: Any) -> NamedImage:
    """The one picture that is given.

    Raises:
        UserError: several.
    """
    pictures = [image] if isinstance(image, NamedImage) else list(read_images(image))
    if len(pictures) != 1:
        raise UserError(f'an example is a region of one picture, got {len(pictures)} pictures')
    return pictures[0]


def region_mask(size: tuple[int, ...], *, mask: Any = None, box: Sequence[float] | None = None) -> np.ndarray:
    """(H, W) bool of a region in a picture of this size.

    Args:
        size: (H, W).
        mask: (H, W) array, not 0 inside; or the path of such a picture.
        box: x1, y1, x2, y2 in pixels.

    Raises:
        UserError: not exactly one of both, a mask of another size, a box outside the picture, or nothing inside.
    """
    height, width = size
    if (mask is None) == (box is None):
        raise UserError('an example needs a mask or a box, one of both')
    region = np.zeros((height, width), bool)
    if box is not None:
        if len(box) != 4 or not np.isfinite(box).all():
            raise UserError(f'a box is x1, y1, x2, y2 in pixels, got {list(box)}')
        left, top, right, bottom = (round(float(value)) for value in box)
        region[max(0, top):max(0, bottom), max(0, left):max(0, right)] = True
        what = f'the box {list(box)}'
    else:
        what = 'the mask'
        if isinstance(mask, (str, Path)):
            what, mask = f'the mask {mask}', read_image_file(Path(mask)).max(-1)
        given = np.asarray(mask)
        if given.shape != (height, width):
            raise UserError(f'{what} has the shape {list(given.shape)}, but its picture has {height} rows and {width} '
                            'columns; a mask has one value for each pixel, not 0 inside')
        region = given != 0
    if not region.any():
        raise UserError(f'{what} holds no pixel of its picture, which is {width} x {height}')
    return region
