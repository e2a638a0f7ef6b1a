"""Training of the demonstration model that stands in for SAM: prompts for the regions of generated scenes."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from frozenmm.demo.sam.network import DemoSAMHead
from frozenmm.demo.sam.prompts import BOX, POINT, Prompts, draw_prompts, mask_iou, region_masks
from frozenmm.deprecation import renamed_arguments
from frozenmm.foundation import ImageTower
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats


@MODELS.register_module()
class DemoSAM(BaseModel):
    """A demonstration model: regions from points and boxes, on the features of a frozen EfficientNet-Lite0.

    A point gets three masks of which the best one is trained, a box or two points get one. Source: Kirillov et al.,
    Segment Anything (arXiv 2304.02643), section 3 and appendix A; losses as in Mask2Former, without focal loss.

    Args:
        tower: an `EfficientNetLiteTower` with the maps res2..res5 at the pipeline's resolution, or its config.
        head: options of `DemoSAMHead`.
        prompts: prompts per training image.
        mask_weight, dice_weight, iou_weight: weights of cross-entropy, dice and squared error of the predicted IoU.
        data_preprocessor, init_cfg: see mmengine.
    """

    @renamed_arguments(removed_in='0.3', image_tower='tower')
    def __init__(self, tower: ImageTower | Mapping[str, object], *, head: Mapping[str, Any] | None = None,
                 prompts: int = 24, mask_weight: float = 5.0, dice_weight: float = 5.0, iou_weight: float = 1.0,
                 data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        # the name in the state dicts of the shipped weights
        self.image_tower = MODELS.build(tower) if isinstance(tower, Mapping) else tower
        self.head = DemoSAMHead(**(head or {}))
        self.prompts = prompts
        self.mask_weight, self.dice_weight, self.iou_weight = mask_weight, dice_weight, iou_weight

    def forward(self, inputs: Tensor, regions: Tensor, index: Tensor, mode: str = 'tensor') -> object:
        """See mmengine's `BaseModel.forward`.

        Args:
            inputs: (B, 3, H, W) uint8 RGB.
            regions: (B, H, W) integers, the region of each pixel.
            index: (B,) numbers of the images; prompts for tests are drawn from them.
            mode: `'loss'`, `'predict'` or `'tensor'`.
        """
        maps = self.head.encode(self.image_tower(inputs.float(), image_stats=ImageStats()).maps)
        if mode == 'loss':
            return self.loss(maps, regions)
        if mode == 'predict':
            return self.predict(maps, regions, index)
        return maps

    def loss(self, maps: Mapping[str, Tensor], regions: Tensor) -> dict[str, Tensor]:
        """Losses of random prompts."""
        prompts = [draw_prompts(image, self.prompts) for image in regions]
        logits, predicted = self.ask(maps, prompts)
        size: tuple[int, int] = (logits.shape[-2], logits.shape[-1])
        targets = torch.stack([region_masks(image, drawn, size) for image, drawn in zip(regions, prompts)])[:, :, None]
        bce = F.binary_cross_entropy_with_logits(logits, targets.expand_as(logits).to(logits.dtype),
                                                 reduction='none').mean((-2, -1))
        cost = self.mask_weight * bce + self.dice_weight * dice_loss(logits, targets)
        single = torch.stack([drawn.kinds for drawn in prompts]).to(logits.device) != POINT
        best = 1 + cost[..., 1:].argmin(-1)
        trained = torch.where(single, 0, best)[..., None]
        overlaps = mask_iou(logits > 0, targets)
        allowed = torch.cat([single[..., None], ~single[..., None].expand(-1, -1, 3)], -1)
        error = ((predicted - overlaps).square() * allowed).sum() / allowed.sum()
        reached = overlaps.gather(-1, trained)[..., 0]
        return {'loss_mask': cost.gather(-1, trained).mean(), 'loss_iou': self.iou_weight * error,
                'iou_point': reached[~single].mean(), 'iou_box': reached[single].mean()}

    @torch.no_grad()
    def predict(self, maps: Mapping[str, Tensor], regions: Tensor, index: Tensor) -> list[dict[str, Tensor]]:
        """Overlaps at image size of masks with the regions that random prompts ask for, the same ones in every run.

        Returns:
            Per image: `point_best` (best of three masks), `point_chosen` (the one with the highest predicted IoU),
            `box`, each (number of such prompts,); `predicted` and `true` IoU of all masks of points.
        """
        prompts = [draw_prompts(image, self.prompts, shares=(0.5, 0.5, 0.0),
                                generator=torch.Generator().manual_seed(int(number)))
                   for image, number in zip(regions, index)]
        logits, predicted = self.ask(maps, prompts)
        results = []
        for image, drawn, masks, guess in zip(regions, prompts, logits, predicted):
            size: tuple[int, int] = (image.shape[0], image.shape[1])
            full = F.interpolate(masks, size=size, mode='bilinear', align_corners=False) > 0
            overlaps = mask_iou(full, region_masks(image, drawn, size)[:, None])
            point, box = drawn.kinds == POINT, drawn.kinds == BOX
            three, guess = overlaps[point, 1:], guess[point, 1:]
            chosen = three.gather(1, guess.argmax(1, keepdim=True))[:, 0]
            results.append(dict(point_best=three.amax(1), point_chosen=chosen, box=overlaps[box, 0],
                                predicted=guess.flatten(), true=three.flatten()))
        return results

    def ask(self, maps: Mapping[str, Tensor], prompts: list[Prompts]) -> tuple[Tensor, Tensor]:
        """Logits (B, P, 4, h, w) and predicted IoU (B, P, 4) of the prompts of each image."""
        device = maps['mask'].device
        return self.head.decode(maps, torch.stack([drawn.points for drawn in prompts]).to(device),
                                torch.stack([drawn.labels for drawn in prompts]).to(device))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """(...) one minus the dice overlap of mask logits (..., h, w) with bool targets, smoothed by one pixel."""
    inside = logits.sigmoid()
    both = (inside * targets).sum((-2, -1))
    return 1 - (2 * both + 1) / (inside.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
