"""All masks of an image without any prompt: a grid of points, and what is left of the answers."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmcv.ops import nms
from torch import Tensor

from frozenmm.compat import require
from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.mask_prompters import INSIDE, MaskPrompter
from frozenmm.registry import MODELS
from frozenmm.segmentation.frozen_seg.sam_masks import LARGEST, SAMMasks, check_choice
from frozenmm.structures import ImageStats, TowerFeatures

RESOLUTIONS = ('mask', 'image')


@dataclasses.dataclass(frozen=True)
class AutomaticMaskOptions:
    """How masks are generated. The values are FrozenSeg's; those of SAM itself are 0.88, 0.95 and no smallest region.

    Attributes:
        points_per_side: of the square grid of points.
        points_per_batch: points that are asked together.
        iou_threshold: masks must exceed this predicted IoU.
        stability_threshold: least IoU of the masks that result from cutting the logits at plus and minus
            `stability_offset`.
        stability_offset: see there.
        nms_threshold: of two masks whose boxes overlap more, the one with the lower predicted IoU is dropped.
        min_area: islands and holes smaller than this many pixels of the image are removed.
        resolution: `'image'` filters masks at image size, as officially; `'mask'` at the decoder's own resolution,
            which saves most of the time beside the decoder and stores small.
        choice: `'largest'` (official) or `'best'` masks are kept, see `SAMMasks`.
        count: at most this many.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    iou_threshold: float = 0.8
    stability_threshold: float = 0.7
    stability_offset: float = 1.0
    nms_threshold: float = 0.7
    min_area: int = 100
    resolution: str = 'mask'
    choice: str = 'largest'
    count: int = LARGEST

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise UserError(f'resolution must be one of {list(RESOLUTIONS)}, got {self.resolution!r}')
        if min(self.points_per_side, self.points_per_batch, self.count) < 1 or self.min_area < 0:
            raise UserError('points_per_side, points_per_batch and count must be at least 1 and min_area at least 0, '
                            f'got {self}')
        check_choice(self.choice)


class AutomaticMasks:
    """A mask generator on a frozen promptable model.

    Source: Kirillov et al., Segment Anything, appendix B ("automatically generating masks"), without crops, and the
    official `SamAutomaticMaskGenerator`, to which `resolution='image'` is equal.

    Args:
        prompter: a `MaskPrompter`, or its config.
        **options: of `AutomaticMaskOptions`.
    """

    def __init__(self, prompter: MaskPrompter | Mapping[str, Any], **options: Any) -> None:
        self.prompter = MODELS.build(prompter) if isinstance(prompter, Mapping) else prompter
        if not isinstance(self.prompter, MaskPrompter):
            raise WrongKind(f'automatic masks need a MaskPrompter, got {type(self.prompter).__name__}')
        self.options = AutomaticMaskOptions(**options)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> SAMMasks:
        """The masks of a picture (H, W, 3) uint8 RGB."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f'expected a picture (H, W, 3) uint8 RGB, got {image.dtype} {image.shape}')
        device = self.prompter.tower.run(lambda network: next(network.parameters())).device
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).movedim(-1, 0)[None].float()
        size: tuple[int, int] = (image.shape[0], image.shape[1])
        return self.generate(self.prompter.embed(pixels, [size], ImageStats()), size, size)

    @torch.no_grad()
    def generate(self, features: TowerFeatures, shown: tuple[int, int], size: tuple[int, int]) -> SAMMasks:
        """The masks of an embedded image.

        Args:
            features: what the prompter's `embed` gave, of one image.
            shown: (height, width) of that image in the batch that was embedded.
            size: (height, width) of the original picture.

        Returns:
            At most `count` masks, their logits at the resolution that the options say; maybe none.
        """
        options = self.options
        full = size if options.resolution == 'image' else None
        logits, scores, boxes = self._asked(features, shown, full)
        kept = nms(boxes, scores, options.nms_threshold)[1] if len(scores) else scores.new_zeros(0, dtype=torch.long)
        logits, scores = self.prompter.over_image(logits[kept], features, full), scores[kept]
        if options.min_area and len(scores):
            logits, scores = self._clean(logits, scores, size)
        masks = SAMMasks(logits, size, scores)
        return masks.select(options.choice, options.count)

    def _asked(self, features: TowerFeatures, shown: tuple[int, int],
               full: tuple[int, int] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the decoder's resolution, predicted IoU and boxes of the masks that pass both thresholds."""
        options = self.options
        grid = point_grid(options.points_per_side).to(features.valid.device)
        points = grid * torch.tensor([shown[1], shown[0]], device=grid.device)
        found = []
        for batch in points.split(options.points_per_batch):
            labels = torch.full((len(batch), 1), INSIDE, device=batch.device)
            logits, scores = (value.flatten(0, 1) for value in self.prompter.ask(features, batch[:, None], labels))
            likely = scores > options.iou_threshold
            logits, scores = logits[likely], scores[likely]
            looked_at = self.prompter.over_image(logits, features, full)
            stable = stability(looked_at, options.stability_offset) >= options.stability_threshold
            found.append((logits[stable], scores[stable], mask_boxes(looked_at[stable] > 0)))
        joined = [torch.cat(values) for values in zip(*found)]
        return joined[0], joined[1], joined[2]

    def _clean(self, logits: Tensor, scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Logits without small islands and holes, and duplicates that this made dropped; changed masks go first."""
        area = self.options.min_area * logits.shape[-2] * logits.shape[-1] / (size[0] * size[1])
        masks = [without_small_regions(mask, area) for mask in (logits > 0).cpu().numpy()]
        cleaned = torch.from_numpy(np.stack([mask for mask, _ in masks])).to(logits.device)
        unchanged = torch.tensor([float(not changed) for _, changed in masks], device=logits.device)
        kept = nms(mask_boxes(cleaned), unchanged, self.options.nms_threshold)[1]
        # a removed island turns its logits negative, a filled hole positive, with the confidence that they had
        return torch.where(cleaned, logits.abs(), -logits.abs())[kept], scores[kept]


def point_grid(side: int) -> Tensor:
    """(side * side, 2) centres of the cells of a square grid, x and y in 0..1, row by row."""
    steps = (torch.arange(side) + 0.5) / side
    return torch.stack([steps.repeat(side), steps.repeat_interleave(side)], 1)


def stability(logits: Tensor, offset: float) -> Tensor:
    """(N,) IoU of the masks (N, h, w) cut at +offset and at -offset; NaN where both are empty."""
    return (logits > offset).sum((-2, -1)) / (logits > -offset).sum((-2, -1))


def mask_boxes(masks: Tensor) -> Tensor:
    """(N, 4) float xyxy of the first and last pixel of bool masks (N, h, w), as SAM counts; zeros for an empty one."""
    boxes = []
    for hit in masks.any(1), masks.any(2):
        index = torch.arange(hit.shape[1], device=hit.device)
        low = torch.where(hit, index, hit.shape[1]).amin(1)
        boxes.append((torch.where(hit.any(1), low, 0), torch.where(hit, index, 0).amax(1)))
    (left, right), (top, bottom) = boxes
    return torch.stack([left, top, right, bottom], 1).float()


def without_small_regions(mask: np.ndarray, area: float) -> tuple[np.ndarray, bool]:
    """A mask (H, W) bool with holes below an area filled and islands below it removed; whether it changed.

    Of a mask that has only small islands the largest one stays.
    """
    components = require('cv2', 'cleaning SAM\'s masks').connectedComponentsWithStats
    changed = False
    _, regions, stats, _ = components((~mask).astype(np.uint8), 8)
    small = 1 + np.flatnonzero(stats[1:, -1] < area)
    if len(small):
        mask, changed = mask | np.isin(regions, small), True
    _, regions, stats, _ = components(mask.astype(np.uint8), 8)
    areas = stats[1:, -1]
    small = 1 + np.flatnonzero(areas < area)
    if len(small):
        if len(small) == len(areas):
            small = small[small != 1 + areas.argmax()]
        mask, changed = mask & ~np.isin(regions, small), True
    return mask, changed
