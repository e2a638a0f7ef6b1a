"""Coarse labels to prompts for SAM, and its masks back to labels. Source: Trident, section 3.4 (RADSeg+ likewise)."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frozenmm.compat import require
from frozenmm.errors import UserError

Size = tuple[int, int]


@dataclass
class RegionPrompts:
    """What SAM is asked about one class.

    Attributes:
        points: (N, 2) x y of the most probable pixel of each region, in pixels of SAM's input.
        boxes: (N, 4) xyxy likewise, ending at the last pixel.
        mask: (1, 1, s, s) with `PictureFrame.mask_side`, the class's probabilities, scaled; the same for all regions.
    """

    points: Tensor
    boxes: Tensor
    mask: Tensor


Decode = Callable[[RegionPrompts], tuple[Tensor, Tensor]]
"""Prompts of N regions to mask logits (N, 1, s, s) over SAM's whole input, and predicted IoU (N,)."""


@dataclass(frozen=True)
class PictureFrame:
    """How a picture lies in SAM's input.

    Attributes:
        picture: height and width of the picture that SAM was shown.
        shown: height and width of the part of SAM's input that shows it.
        side: of SAM's input.
    """

    picture: Size
    shown: Size
    side: int = 1024

    @property
    def mask_side(self) -> int:
        """Side of mask prompts and of the masks that SAM answers with."""
        return self.side // 4


@dataclass
class _Answers:
    """What SAM was sure of, and where it was not.

    Attributes:
        refined: (K, H, W) probabilities under masks that SAM is sure of.
        failed: (h, w) bool at half size, the regions that it is not sure of.
        kept: number of regions that it is sure of.
    """

    refined: Tensor
    failed: Tensor
    kept: int = 0


@dataclass(frozen=True)
class SamRefinement:
    """Asks SAM about every region of every class and lets it redraw those that it is sure of.

    Attributes:
        coarse: pixels and classes with less probability are not asked about.
        area: least pixels of a region, at half size.
        mask_factor: times the probabilities are the mask prompt.
        iou: regions for which SAM predicts no more are left as they are.
        compat: as the official code: prompts are placed as if the half-size map filled SAM's input by its longer side,
            and where SAM is not sure the best refined class wins even where the coarse one is more probable.
    """

    coarse: float = 0.2
    area: int = 225
    mask_factor: float = 0.005
    iou: float = 0.8
    compat: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.coarse <= 1 or not 0 <= self.iou <= 1 or self.area < 1:
            raise UserError('refine needs coarse and iou in 0..1 and area of 1 or more, got '
                            f'coarse={self.coarse}, iou={self.iou}, area={self.area}')

    def __call__(self, probabilities: Tensor, labels: Tensor, frame: PictureFrame,
                 decode: Decode) -> tuple[Tensor, Tensor]:
        """Refined labels and probabilities.

        Args:
            probabilities: (K, H, W).
            labels: (1, H, W) int64.
            frame: where the picture lies in SAM's input.
            decode: asks SAM about the regions of a class.

        Returns:
            (1, H, W) labels and (K, H, W) probabilities; the input itself if SAM is sure of no region.
        """
        half = (probabilities.shape[1] // 2, probabilities.shape[2] // 2)
        small = F.interpolate(probabilities[None], half, mode='bilinear', align_corners=False)[0]
        coarse = F.interpolate(labels[None].float(), half, mode='nearest')[0, 0].long()
        unsure = small.amax(0) < self.coarse
        answers = _Answers(torch.zeros_like(probabilities), torch.zeros_like(unsure))
        for index, own in enumerate(small):
            regions = connected_regions((coarse == index) & ~unsure, self.area) if own.max() >= self.coarse else []
            if regions:
                masks, sure = decode(self.prompts(own, regions, frame))
                masks = over_picture(masks, frame, labels.shape[1:])
                self._answer(answers, index, probabilities[index], regions, masks, sure)
        return self._combined(answers, labels, probabilities) if answers.kept else (labels, probabilities)

    def _answer(self, answers: _Answers, index: int, own: Tensor, regions: list[Tensor], masks: Tensor,
                sure: Tensor) -> None:
        """Write down what SAM says about the regions of a class with probabilities (H, W)."""
        for region, logits, quality in zip(regions, masks[:, 0], sure.flatten().tolist()):
            if quality > self.iou:
                answers.kept += 1
                found = torch.where(logits > 0, logits.sigmoid() * own, 0)
                answers.refined[index] = torch.maximum(answers.refined[index], found)
            else:
                answers.failed |= region

    def _combined(self, answers: _Answers, labels: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        refined = answers.refined
        failed = F.interpolate(answers.failed[None, None].float(), tuple(labels.shape[1:]), mode='nearest')[0] > 0
        both = torch.where(failed, torch.maximum(probabilities, refined), refined)
        best, chosen = refined.max(0, keepdim=True)
        old = best == 0
        if not self.compat:
            old |= failed & (probabilities.amax(0, keepdim=True) >= best)
        return torch.where(old, labels, chosen), both

    def prompts(self, own: Tensor, regions: list[Tensor], frame: PictureFrame) -> RegionPrompts:
        """Points, boxes and mask prompt of the regions of a class with probabilities (h, w) at half size."""
        size = (own.shape[0], own.shape[1])
        scale = own.new_tensor(self._scale(size, frame))
        points, boxes = [], []
        for region in regions:
            rows, columns = region.nonzero(as_tuple=True)
            best = int(torch.where(region, own, -1).argmax())
            points.append([best % size[1], best // size[1]])
            boxes.append([int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())])
        return RegionPrompts(own.new_tensor(points) * scale, own.new_tensor(boxes) * scale.repeat(2),
                             self._mask(own, frame))

    def _scale(self, size: Size, frame: PictureFrame) -> tuple[float, float]:
        """From pixels at half size to those of SAM's input, x and y."""
        shown = frame.shown
        if self.compat:
            scale = frame.side / max(size)
            shown = (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))
        return shown[1] / size[1], shown[0] / size[0]

    def _mask(self, own: Tensor, frame: PictureFrame) -> Tensor:
        scale = frame.mask_side / max(own.shape)
        target = [int(side * scale + 0.5) for side in own.shape]
        if not self.compat:
            target = [round(side * frame.mask_side / frame.side) for side in frame.shown]
        prompt = F.interpolate(own[None, None], (target[0], target[1]), mode='bilinear', align_corners=False)
        prompt = torch.where(prompt > self.coarse, prompt, 0) * self.mask_factor
        return F.pad(prompt, (0, frame.mask_side - target[1], 0, frame.mask_side - target[0]))


def connected_regions(mask: Tensor, area: int) -> list[Tensor]:
    """The 8-connected regions of a mask (H, W) bool with at least so many pixels, in raster order."""
    count, numbered = require('cv2', 'finding regions').connectedComponents(mask.cpu().numpy().astype(np.uint8),
                                                                           connectivity=8)
    numbered = torch.from_numpy(numbered).to(mask.device)
    first = {number: int((numbered.flatten() == number).to(torch.uint8).argmax()) for number in range(1, count)}
    regions = [numbered == number for number in sorted(first, key=lambda number: first[number])]
    return [region for region in regions if int(region.sum()) >= area]


def over_picture(logits: Tensor, frame: PictureFrame, size: Sequence[int]) -> Tensor:
    """Mask logits (N, 1, s, s) over SAM's input at a size of the picture, (N, 1, *size)."""
    logits = F.interpolate(logits, (frame.side, frame.side), mode='bilinear', align_corners=False)
    logits = logits[..., :frame.shown[0], :frame.shown[1]]
    logits = F.interpolate(logits, frame.picture, mode='bilinear', align_corners=False)
    return F.interpolate(logits, tuple(size), mode='bilinear', align_corners=False)


def embed_mask(layers: torch.nn.Module, mask: Tensor, *, compat: bool = False) -> Tensor:
    """SAM's embedding of a mask prompt.

    Args:
        layers: `prompt_encoder.mask_downscaling`.
        mask: (1, 1, h, w).
        compat: as Trident and RADSeg, whose prompt has no batch axis, so that SAM's layer norm normalises over rows
            instead of channels.

    Returns:
        (1, C, h / 4, w / 4).
    """
    return layers(mask[0])[None] if compat else layers(mask)
