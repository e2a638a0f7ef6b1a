"""From a first mask to a sharp one: SAM asked with the mask, its box and the phrase's words."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.errors import WrongKind
from frozenmm.foundation.mask_prompters import BOTTOM_RIGHT, TOP_LEFT, SAMDecoder, SAMPrompter
from frozenmm.registry import MODELS
from frozenmm.structures import TowerFeatures


def box_around(mask: Tensor) -> Tensor:
    """x0, y0, x1 + 1, y1 + 1 of the pixels of a mask (H, W) bool; the whole picture where it is empty."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(rows):
        return torch.tensor([0, 0, mask.shape[1], mask.shape[0]], dtype=torch.float32, device=mask.device)
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


@MODELS.register_module()
class SAMMaskRefiner(nn.Module):
    """SAM with its image encoder frozen; a copy of its prompt encoder and mask decoder is trained.

    Args:
        sam: config of a `SAMPrompter`, or a built one.

    Attributes:
        channels: width of SAM's prompts.

    Source: F-LMM's SAM refiner (ViT-L there); phrases are asked one after the other, and mask token 0 answers.
    """

    prompter: SAMPrompter

    def __init__(self, sam: Mapping[str, Any] | SAMPrompter) -> None:
        super().__init__()
        prompter = MODELS.build(dict(sam)) if isinstance(sam, Mapping) else sam
        if not isinstance(prompter, SAMPrompter):
            raise WrongKind(f'sam must be a frozenmm.SAMPrompter, got {type(prompter).__name__}')
        self.tower = prompter.tower
        # outside the module tree: its frozen decoder is not used, a trained copy is
        self.__dict__['prompter'] = prompter
        self.decoder = cast(SAMDecoder, copy.deepcopy(prompter.decoder.network).requires_grad_(True))

    @property
    def channels(self) -> int:
        """See above."""
        return cast(nn.Embedding, self.decoder.prompt_encoder.no_mask_embed).embedding_dim

    def embed(self, picture: Tensor) -> TowerFeatures:
        """SAM's features of a picture (3, H, W) RGB in 0..255."""
        return self.tower(picture[None].float())

    def forward(self, features: TowerFeatures, logits: Tensor, words: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Refined logits (N, H, W).

        Args:
            features: what `embed` gave.
            logits: (N, h, w) over the picture without padding.
            words: for each phrase (T_n, channels).
            size: (H, W) of the picture.
        """
        prompts = self.mask_prompts(features, logits)
        wide = F.interpolate(logits[:, None].detach(), size, mode='bilinear', align_corners=False)[:, 0].sigmoid() > 0.5
        refined = [self._ask(features, prompts[index:index + 1], box_around(wide[index]), words[index])
                   for index in range(len(logits))]
        return self.prompter.over_image(torch.cat(refined), features, size)[:, 0]

    def mask_prompts(self, features: TowerFeatures, logits: Tensor) -> Tensor:
        """Prompts (N, 1, 4s, 4s) of logits (N, h, w): resized to SAM's picture, padded to its square, made smaller.

        The padding is -1, or the lowest logit of all if that is lower.
        """
        side, shown = self.tower.size, [int(value) for value in features.valid[0]]
        x = F.interpolate(logits[:, None].float(), shown, mode='bilinear', align_corners=False)
        outside = min(-1.0, float(x.detach().min()))
        x = F.pad(x, (0, side - shown[1], 0, side - shown[0]), value=outside)
        cells = 4 * features.map('neck').shape[-1]
        return F.interpolate(x, (cells, cells), mode='bilinear', align_corners=False)

    def _ask(self, features: TowerFeatures, prompt: Tensor, box: Tensor, words: Tensor) -> Tensor:
        region = features.region[0]
        scale = (self.tower.size / (region[2:] - region[:2])).to(box)
        points = box.view(1, 2, 2) * scale
        labels = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]], device=box.device)
        encoder: Any = self.decoder.prompt_encoder
        sparse = torch.cat([self.decoder.prompt_tokens(points, labels), words[None]], 1)
        masks, _ = self.decoder.mask_decoder.predict_masks(  # type: ignore[operator, union-attr]
            image_embeddings=features.map('neck'), image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=encoder.mask_downscaling(prompt))
        return masks[:, :1]
