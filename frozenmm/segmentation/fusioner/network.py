"""Everything that Fusioner trains, as one module over tokens: fusion, decoder and similarity."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.segmentation.fusioner.fusion import FusionTransformer

CLASS_MODES = ('joint', 'per_class')


class SharedSimilarity(nn.Module):
    """The cosine of image cells and names, as logits: a factor times what exceeds an offset, both learned.

    An optimizer moves every weight by about its rate per step, but the factor has to grow from 0 to about 10; so both
    weights are multiplied by a constant.
    """

    factor_gain, offset_gain, first_offset = 200.0, 10.0, 0.35

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, shared_map: Tensor, names: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (B, K, *size) of vectors (B, D, h, w) and names (B, K, D) of length 1."""
        cosine = torch.einsum('bchw,bkc->bkhw', F.normalize(shared_map, dim=1), names)
        cosine = F.interpolate(cosine, size=size, mode='bilinear', align_corners=False)
        return self.factor_gain * self.factor * (cosine - self.first_offset - self.offset_gain * self.offset)


class FusionerNetwork(nn.Module):
    """Frozen tokens of an image and of class names in, one mask per class out.

    Args:
        fusion: joins both token groups.
        decoder: makes a dense map of the patch tokens: `decoder((B, C, h, w), size) -> (B, C, *size)`.
        temperature: divides the cosine between pixel and class.
        class_chunk: classes per pass in `per_class` mode; bounds its memory.
        shared_space: add the cosine of the frozen vectors of image and names to the logits, with a learned factor,
            which starts at 0, and a learned offset. Needs `shared_map`, see `forward`. What the pair itself says about
            names that training never met is kept so.
        fusion_drop: with `shared_space`, how often (per image, in training) that cosine has to do without the fusion,
            so that it is not left to the fusion to know the names of training by heart.

    Source: Fusioner (Ma et al., BMVC 2022); `shared_space` and `fusion_drop` are ours.
    """

    def __init__(self, fusion: FusionTransformer, decoder: nn.Module, *, temperature: float = 0.07,
                 class_chunk: int = 8, shared_space: bool = False, fusion_drop: float = 0.0) -> None:
        super().__init__()
        if not 0 <= fusion_drop < 1:
            raise UserError(f'fusion_drop must be in 0..1, below 1, got {fusion_drop}')
        if temperature <= 0:
            raise UserError(f'temperature must be positive, got {temperature}')
        self.fusion = fusion
        self.decoder = decoder
        self.temperature = temperature
        self.class_chunk = class_chunk
        self.fusion_drop = fusion_drop if shared_space else 0.0
        self.similarity = SharedSimilarity() if shared_space else None

    def forward(self, visual_map: Tensor, text: Tensor, size: tuple[int, int], *, mode: str = 'joint',
                class_counts: Sequence[int] | None = None, shared_map: Tensor | None = None) -> Tensor:
        """Mask logits.

        Args:
            visual_map: (B, visual_channels, h, w) tokens of the frozen image tower on their grid, scaled to unit norm
                here.
            text: (K, text_channels) or (B, K, text_channels) class embeddings; scaled to unit norm here.
            size: (height, width) of the masks.
            mode: `'joint'` runs all classes in one sequence, where they see each other; `'per_class'` runs every class
                alone (the released code), so a mask does not depend on the other names.
            class_counts: classes of each image when they differ; further rows of `text` are padding.
            shared_map: (B, text_channels, h', w') frozen vectors of the image in the space of the class embeddings, for
                `shared_space`.

        Returns:
            (B, K, *size) logits; the background has the constant logit 0.

        Raises:
            ValueError: unknown mode, or `shared_map` is missing.
        """
        if mode not in CLASS_MODES:
            raise UserError(f'mode must be one of {list(CLASS_MODES)}, got {mode!r}')
        if self.similarity is not None and shared_map is None:
            raise ValueError('shared_space compares frozen vectors of image and names, but no shared_map came')
        grid = (visual_map.shape[-2], visual_map.shape[-1])
        visual = self.fusion.project_visual(F.normalize(visual_map.flatten(2).transpose(1, 2), dim=-1))
        text = text.expand(len(visual_map), -1, -1) if text.dim() == 2 else text
        names = F.normalize(text, dim=-1)
        text = self.fusion.project_text(names)
        if mode == 'joint':
            masks = self._masks(visual, text, grid, size, class_counts)
        else:
            masks = self._per_class(visual, text, grid, size)
        if self.similarity is None:
            return masks
        if self.training and self.fusion_drop > 0:
            masks = masks * (torch.rand(len(masks), 1, 1, 1, device=masks.device) >= self.fusion_drop)
        return masks + self.similarity(shared_map, names, size)

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
