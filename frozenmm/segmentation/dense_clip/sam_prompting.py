"""Asks a real SAM about the regions of a picture: image once, then points, boxes and mask prompts."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.mask_prompters import SAMPrompter
from frozenmm.segmentation.dense_clip.sam_reading import SamReader
from frozenmm.segmentation.dense_clip.sam_refinement import Decode, PictureFrame, RegionPrompts, embed_mask

INSIDE, TOP_LEFT, BOTTOM_RIGHT = 1, 2, 3
"""SAM's kinds of points."""


class SamAsker:
    """SAM with its prompt encoder and mask decoder.

    Args:
        prompter: SAM.
        compat: see `embed_mask`.

    Raises:
        UserError: another model than a `SAMPrompter`.
    """

    def __init__(self, prompter: object, *, compat: bool = False) -> None:
        if not isinstance(prompter, SAMPrompter):
            raise UserError("refinement by SAM gives mask prompts: it needs sam=dict(type='frozenmm.SAMPrompter', "
                            f'...), got {type(prompter).__name__}')
        self.prompter, self.compat = prompter, compat
        self.reader = SamReader(prompter.tower)

    def show(self, picture: Tensor) -> tuple[Decode, PictureFrame]:
        """What answers prompts about a picture (3, H, W) RGB in 0..255, and how it lies in SAM's input."""
        pixels, shown = self.reader.place(picture)
        tower = self.prompter.tower
        embedding = tower.run(lambda network, x: network(x)['neck'], pixels)
        frame = PictureFrame((int(picture.shape[-2]), int(picture.shape[-1])), shown, tower.size)

        def decode(prompts: RegionPrompts) -> tuple[Tensor, Tensor]:
            return self.prompter.decoder.run(self._decode, embedding, prompts.points, prompts.boxes, prompts.mask)

        return decode, frame

    def _decode(self, network: Any, embedding: Tensor, points: Tensor, boxes: Tensor,
                mask: Tensor) -> tuple[Tensor, Tensor]:
        """The first mask (N, 1, s, s) and its predicted IoU (N,) of N regions."""
        count = len(points)
        places = torch.cat([points[:, None], boxes.unflatten(1, (2, 2))], 1)
        kinds = torch.tensor([INSIDE, TOP_LEFT, BOTTOM_RIGHT], device=points.device).expand(count, -1)
        encoder = network.prompt_encoder
        dense = embed_mask(encoder.mask_downscaling, mask, compat=self.compat)
        logits, quality = network.mask_decoder.predict_masks(
            image_embeddings=embedding, image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=network.prompt_tokens(places, kinds),
            dense_prompt_embeddings=dense.expand(count, -1, -1, -1))
        return logits[:, :1], quality[:, 0]
