"""Everything that Fusioner trains, as one module over tokens: fusion, decoder and similarity."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.segmentation.fusioner.fusion import FusionTransformer

MODES = ('joint', 'per_class')


class FusionerNetwork(nn.Module):
    """Frozen tokens of an image and of class names in, one mask per class out.

    Args:
        fusion: joins both token groups.
        decoder: makes a dense map of the patch tokens: `decoder((B, C, h, w), size) -> (B, C, *size)`.
        temperature: divides the cosine between pixel and class.
        class_chunk: classes per pass in `per_class` mode; bounds its memory.

    Source: Fusioner (Ma et al., BMVC 2022).
    """

    def __init__(self, fusion: FusionTransformer, decoder: nn.Module, *, temperature: float = 0.07,
                 class_chunk: int = 8) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        self.fusion = fusion
        self.decoder = decoder
        self.temperature = temperature
        self.class_chunk = class_chunk

    def forward(self, visual_map: Tensor, text: Tensor, size: tuple[int, int], *, mode: str = 'joint',
                class_counts: Sequence[int] | None = None) -> Tensor:
        """Mask logits.

        Args:
            visual_map: (B, visual_channels, h, w) tokens of the frozen image tower on their grid, scaled to unit norm
                here.
            text: (K, text_channels) or (B, K, text_channels) class embeddings; scaled to unit norm here.
            size: (height, width) of the masks.
            mode: `'joint'` runs all classes in one sequence, where they see each other; `'per_class'` runs every class
                alone (the released code), so a mask does not depend on the other names.
            class_counts: classes of each image when they differ; further rows of `text` are padding.

        Returns:
            (B, K, *size) logits; the background has the constant logit 0.
        """
        if mode not in MODES:
            raise ValueError(f'mode must be one of {list(MODES)}, got {mode!r}')
        grid = visual_map.shape[-2:]
        visual = self.fusion.project_visual(F.normalize(visual_map.flatten(2).transpose(1, 2), dim=-1))
        text = text.expand(len(visual_map), -1, -1) if text.dim() == 2 else text
        text = self.fusion.project_text(F.normalize(text, dim=-1))
        if mode == 'joint':
            return self._masks(visual, text, grid, size, class_counts)
        return self._per_class(visual, text, grid, size)

    def _masks(self, visual: Tensor, text: Tensor, grid: tuple[int, int], size: tuple[int, int],
               class_counts: Sequence[int] | None = None) -> Tensor:
        patches, classes = self.fusion.fuse(visual, text, class_counts)
        features = self.decoder(patches.transpose(1, 2).unflatten(2, grid), size)
        similarity = F.normalize(classes, dim=-1) @ F.normalize(features.flatten(2), dim=1)
        return similarity.unflatten(2, size) / self.temperature

    def _per_class(self, visual: Tensor, text: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        batch, count = text.shape[:2]
        parts = []
        for start in range(0, count, self.class_chunk):
            chunk = text[:, start:start + self.class_chunk]
            classes = chunk.shape[1]
            masks = self._masks(visual.repeat_interleave(classes, 0), chunk.reshape(batch * classes, 1, -1), grid, size)
            parts.append(masks.view(batch, classes, *size))
        return torch.cat(parts, 1)


