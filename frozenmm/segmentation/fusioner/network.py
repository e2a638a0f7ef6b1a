"""Everything that Fusioner trains, as one module over tokens: fusion, decoder and similarity."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frozenmm.segmentation.fusioner.fusion import FusionTransformer

MODES = ('joint', 'per_class')
_SIMILARITY_OFFSET = 0.35
"""Where the learned offset starts: about what unrelated names have in the space of sentence encoders."""


class FusionerNetwork(nn.Module):
    """Frozen tokens of an image and of class names in, one mask per class out.

    Args:
        fusion: joins both token groups.
        decoder: makes a dense map of the patch tokens: `decoder((B, C, h, w), size) -> (B, C, *size)`.
        temperature: divides the cosine between pixel and class.
        class_chunk: classes per pass in `per_class` mode; bounds its memory.
        frozen_similarity: start of a learned factor of the cosine between the frozen vectors themselves, which is added
            to the logits; None leaves it out, as the paper does. Needs `shared_map`, see `forward`. What the
            transformer learns is then a correction, and names that it never met keep what the frozen pair says.

    Source: Fusioner (Ma et al., BMVC 2022); `frozen_similarity` is ours.
    """

    def __init__(self, fusion: FusionTransformer, decoder: nn.Module, *, temperature: float = 0.07,
                 class_chunk: int = 8, frozen_similarity: float | None = None) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        self.fusion = fusion
        self.decoder = decoder
        self.temperature = temperature
        self.class_chunk = class_chunk
        self.similarity_scale = self.similarity_offset = None
        if frozen_similarity is not None:
            self.similarity_scale = nn.Parameter(torch.tensor(float(frozen_similarity)))
            self.similarity_offset = nn.Parameter(torch.tensor(_SIMILARITY_OFFSET))

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
                `frozen_similarity`.

        Returns:
            (B, K, *size) logits; the background has the constant logit 0.

        Raises:
            ValueError: unknown mode, or `shared_map` is missing.
        """
        if mode not in MODES:
            raise ValueError(f'mode must be one of {list(MODES)}, got {mode!r}')
        grid = visual_map.shape[-2:]
        visual = self.fusion.project_visual(F.normalize(visual_map.flatten(2).transpose(1, 2), dim=-1))
        text = text.expand(len(visual_map), -1, -1) if text.dim() == 2 else text
        names = F.normalize(text, dim=-1)
        text = self.fusion.project_text(names)
        if mode == 'joint':
            masks = self._masks(visual, text, grid, size, class_counts)
        else:
            masks = self._per_class(visual, text, grid, size)
        return masks if self.similarity_scale is None else masks + self._frozen_similarity(shared_map, names, size)

    def _frozen_similarity(self, shared_map: Tensor | None, names: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, K, *size): how much the frozen pair itself sees of every name, above the learned offset."""
        if shared_map is None:
            raise ValueError('frozen_similarity compares frozen vectors of image and names, but no shared_map came')
        cosine = torch.einsum('bchw,bkc->bkhw', F.normalize(shared_map, dim=1), names)
        cosine = F.interpolate(cosine, size=size, mode='bilinear', align_corners=False)
        return self.similarity_scale * (cosine - self.similarity_offset)

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
