"""The contract of frozen models that answer points and boxes with masks, and SAM and MobileSAM under it."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenmm.compat import require
from frozenmm.errors import UserError
from frozenmm.foundation.frozen_module import FrozenModule, shared_network
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.image_towers.sam import MOBILE_SAM_WEIGHTS, SAM_MODELS, MobileSAMTower, SAMTower
from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.weights import build_network, weights_key, weights_note
from frozenmm.ops.mask_geometry import axis_taps
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures

PADDING, OUTSIDE, INSIDE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""What a prompt point means; SAM's own numbers."""
SAM_DECODER = dict(channels=256, depth=2, heads=8, mlp_channels=2048, iou_channels=256)
_DECODER_PARTS = ('prompt_encoder.', 'mask_decoder.')


class MaskPrompter(nn.Module):
    """A frozen model that is shown an image once and then asked for masks.

    Families derive from it and implement `decode`.

    Args:
        tower: the image encoder; it must resize and pad (`resize_mode='pad'`).
    """

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        if tower.resize_mode != 'pad':
            raise UserError('prompts are placed on an image that is resized and padded: resize_mode=\'pad\', got '
                             f'{tower.resize_mode!r}')
        self.tower = tower

    @property
    def name(self) -> str:
        """What errors and files call the model."""
        return self.tower.name

    @property
    def fingerprint(self) -> str:
        """What identifies the weights of all parts."""
        return self.tower.fingerprint

    def embed(self, images: Tensor, valid_sizes: Sequence[tuple[int, int]] | None = None,
              image_stats: ImageStats | None = None) -> TowerFeatures:
        """Features of a padded batch (B, 3, H, W); arguments as in `ImageTower.forward`."""
        return self.tower(images, valid_sizes, image_stats)

    def ask(self, features: TowerFeatures, points: Tensor, labels: Tensor, *, single: bool = False
            ) -> tuple[Tensor, Tensor]:
        """Masks for prompts.

        Args:
            features: what `embed` gave, of one image.
            points: (N, K, 2) x and y in pixels of the image that was given to `embed`.
            labels: (N, K) integers: 1 inside, 0 outside, 2 and 3 top left and bottom right corner of a box, -1 padding.
            single: one mask per prompt, for prompts that leave no doubt; else three.

        Returns:
            (N, 3 or 1, h, w) logits over the tower's whole input, padding included, see `over_image`; (N, 3 or 1)
            predicted IoU.

        Raises:
            UserError: features of several images; shapes that do not fit.
        """
        if len(features.valid) != 1:
            raise ValueError(f'prompts are for one image, got features of {len(features.valid)}; take one of them')
        if points.dim() != 3 or points.shape[2] != 2 or labels.shape != points.shape[:2]:
            raise ValueError('points must be (N, K, 2) and labels (N, K), got '
                             f'{tuple(points.shape)} and {tuple(labels.shape)}')
        region = features.region[0].to(points.device)
        scale = self.tower.size / (region[2:] - region[:2])
        logits, predicted = self.decode(features, (points - region[:2]) * scale, labels)
        chosen = slice(0, 1) if single else slice(1, None)
        return logits[:, chosen], predicted[:, chosen]

    def decode(self, features: TowerFeatures, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """All masks of prompts; families implement this.

        Args:
            features: of one image.
            points: (N, K, 2) in pixels of the tower's input.
            labels: (N, K), see `ask`.

        Returns:
            (N, 4, h, w) logits and (N, 4) predicted IoU; the first mask is the one for prompts without doubt.
        """
        raise NotImplementedError(f'{type(self).__name__} must implement `decode`')

    def over_image(self, logits: Tensor, features: TowerFeatures, size: tuple[int, int] | None = None) -> Tensor:
        """Logits over the image without padding.

        As officially, they are resized to the tower's input, cut, and resized again, bilinearly; both steps are one
        product here.

        Args:
            logits: (..., h, w) of `ask`.
            features: what `embed` gave.
            size: (height, width) of the result; by default the resolution of `logits` is kept.
        """
        side, shown = self.tower.size, [int(value) for value in features.valid[0]]
        cells = logits.shape[-2:]
        size = size or (max(1, round(cells[0] * shown[0] / side)), max(1, round(cells[1] * shown[1] / side)))
        rows, columns = (resize_matrix(cells[axis], side, shown[axis], size[axis]).to(logits)
                         for axis in range(2))
        return rows @ logits @ columns.T


@lru_cache(maxsize=32)
def resize_matrix(cells: int, padded: int, shown: int, output: int) -> Tensor:
    """(output, cells): resize to `padded`, keep the first `shown`, resize to `output`, bilinearly, along one axis."""
    taps = axis_taps(cells, padded, shown, output)
    return torch.zeros(output, cells).scatter_add_(1, taps.index, taps.weight)


class SAMDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder, from the package segment-anything, under the official key names.

    Args:
        side: of the image embedding in cells.
        size: of the encoder's input in pixels.
        channels: width of the embedding.
        depth, heads, mlp_channels: of the two-way transformer.
        iou_channels: hidden width of the IoU prediction.
    """

    def __init__(self, side: int, size: int, *, channels: int, depth: int, heads: int, mlp_channels: int,
                 iou_channels: int) -> None:
        super().__init__()
        parts = require('segment_anything.modeling', 'SAM\'s mask decoder')
        transformer = require('segment_anything.modeling.transformer', 'SAM\'s mask decoder').TwoWayTransformer
        self.prompt_encoder = parts.PromptEncoder(embed_dim=channels, image_embedding_size=(side, side),
                                                  input_image_size=(size, size), mask_in_chans=16)
        self.mask_decoder = parts.MaskDecoder(
            transformer_dim=channels, num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=iou_channels,
            transformer=transformer(depth=depth, embedding_dim=channels, num_heads=heads, mlp_dim=mlp_channels))

    def forward(self, embedding: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """All four masks of prompts.

        Args:
            embedding: (1, channels, side, side).
            points: (N, K, 2) in pixels of the encoder's input.
            labels: (N, K), see `MaskPrompter.ask`.

        Returns:
            (N, 4, 4 * side, 4 * side) logits; (N, 4) predicted IoU.
        """
        count = len(points)
        empty = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return self.mask_decoder.predict_masks(
            image_embeddings=embedding, image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=self.prompt_tokens(points, labels),
            dense_prompt_embeddings=empty.expand(count, -1, *embedding.shape[-2:]))

    def prompt_tokens(self, points: Tensor, labels: Tensor) -> Tensor:
        """(N, K or K + 1, channels): as officially, prompts without box get a padding point at the end."""
        if not (labels >= TOP_LEFT).any():
            points = torch.cat([points, points.new_zeros(len(points), 1, 2)], 1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), PADDING)], 1)
        encoder = self.prompt_encoder
        placed = encoder.pe_layer.forward_with_coords(points + 0.5, encoder.input_image_size)
        kinds = torch.cat([encoder.not_a_point_embed.weight, *(kind.weight for kind in encoder.point_embeddings)])
        return torch.where((labels == PADDING)[..., None], 0, placed) + kinds[labels.long() + 1]


@MODELS.register_module()
class SAMPrompter(MaskPrompter):
    """SAM or MobileSAM with its mask decoder.

    Args:
        model: `'vit_b'`, `'vit_l'`, `'vit_h'`, `'vit_t'` (MobileSAM), or a dict of `SAMSizes`.
        weights: path of an official file; None for the published one; `'random'`.
        decoder: changes of `SAM_DECODER`, for other sizes.
        precision: see `FrozenModule`.
    """

    def __init__(self, model: str | Mapping[str, Any] = 'vit_h', weights: str | Path | None = None, *,
                 decoder: Mapping[str, int] | None = None, precision: str = 'fp32') -> None:
        name = 'custom'
        if isinstance(model, str):
            name = lookup(model.lower().removeprefix('sam_'), [*SAM_MODELS, 'vit_t'], 'SAM model')
        file = None
        if name == 'vit_t':
            tower: ImageTower = MobileSAMTower(weights, precision=precision)
            file = MOBILE_SAM_WEIGHTS
        else:
            tower = SAMTower(name if isinstance(model, str) else model, weights, precision=precision)
            file = SAM_MODELS[name][1] if name in SAM_MODELS else None
        super().__init__(tower)
        sizes = {**SAM_DECODER, **(decoder or {})}
        side, note = tower.size // tower.strides['neck'], f'SAM {name} mask decoder{weights_note(weights)}'
        network = shared_network(
            ('SAMDecoder', name, weights_key(weights), side, tower.size, tuple(sorted(sizes.items()))),
            lambda: build_network(lambda: SAMDecoder(side, tower.size, **sizes), weights, file, name=note,
                                  select=decoder_part, on_meta=False), name=note, precision=precision)
        self.decoder = FrozenModule(network)

    @property
    def fingerprint(self) -> str:
        """See `MaskPrompter.fingerprint`."""
        return f'{self.tower.fingerprint}+{self.decoder.fingerprint}'

    def decode(self, features: TowerFeatures, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See `MaskPrompter.decode`."""
        return self.decoder.run(lambda network, embedding, places: network(embedding, places, labels),
                                features.map('neck'), points)


def decoder_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Prompt encoder and mask decoder of a whole SAM file."""
    return {key: value for key, value in state.items() if key.startswith(_DECODER_PARTS)}
