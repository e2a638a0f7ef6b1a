"""mmdet's four steps of a DETR with an `Enhancement` put between them.

    extract_feat -> pre_transformer -> forward_encoder -> pre_decoder -> forward_decoder
                    + frozen maps      - frozen maps                     image queries in the self-attention

Everything else is mmdet's own code, so a detector without enhancers computes what mmdet's does.
"""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor, nn

from frozenmm.detection.frozen_detr.enhancement import Enhancement, FeatureSource, build_enhancers
from frozenmm.detection.frozen_detr.enhancer import FrozenEnhancer
from frozenmm.detection.frozen_detr.image_queries import LayerImageQueries
from frozenmm.detection.frozen_detr.levels import Levels, set_levels
from frozenmm.detection.frozen_detr.self_attention import image_queries_in
from frozenmm.detection.frozen_detr.small_images import with_queries
from frozenmm.detection.frozen_detr.upstream import grow_encoder
from frozenmm.errors import UserError
from frozenmm.ops.accelerate import accelerate_own
from frozenmm.structures import ImageStats, TowerFeatures

if TYPE_CHECKING:
    from mmdet.models.detectors.base_detr import DetectionTransformer as _Detector
else:
    _Detector = object


class ImageMaps(tuple):
    """Feature maps with the images that they come from, since mmdet hands only the maps to the later steps."""

    images: Tensor


class EnhancedSteps(_Detector):
    """The steps that all detectors share; stands before mmdet's class among the bases.

    Args:
        enhancers: one dict per frozen tower, e.g. `dict(tower=dict(type='frozenmm.CLIPTower', ...), image_queries=5,
            patch_maps=['patch'])`. Image queries come from one tower at most, maps from any number.
        patch_norm: `'GN'` or `'LN'`, see `PatchLevel`.
        patch_groups: groups of the GroupNorm.
        kwargs: arguments of mmdet's detector.

    Attributes:
        feature_source: a function that gives the features of a batch (one `TowerFeatures` per enhancer, on the model's
            device) for its data samples, so that towers need not run; it may return None to let them run.
    """

    feature_source: FeatureSource | None = None
    learned_levels = False
    embed_dims: int

    def __init__(self, *args: Any, enhancers: Sequence[dict | FrozenEnhancer] = (), patch_norm: str = 'GN',
                 patch_groups: int = 32, **kwargs: Any) -> None:
        built = build_enhancers(enhancers)
        # copies, because mmdet writes into the configs that it is given
        given = [copy.deepcopy(value) if isinstance(value, dict) else value for value in args]
        config = {key: copy.deepcopy(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
        self._add_levels(config, sum(len(item.patch_maps) for item in built))
        super().__init__(*given, **config)
        if built:  # else this is mmdet's detector, to the last bit
            accelerate_own(self.encoder)
            accelerate_own(self.decoder)
        self.image_stats = ImageStats.from_preprocessor(self.data_preprocessor)
        self.enhancement = Enhancement(built, self.embed_dims, self.decoder.num_layers, norm=patch_norm,
                                       groups=patch_groups, learned_positions=self._learns_positions(),
                                       learned_levels=self.learned_levels)

    def _add_levels(self, config: dict, count: int) -> None:
        """Make room for the frozen maps in mmdet's config."""

    def _learns_positions(self) -> bool:
        """Whether nothing in the detector turns the box of an image query into a position embedding."""
        return False

    def _image_positions(self, boxes: Tensor, inputs: dict) -> Tensor:
        """Position embedding (B, T, C) of boxes (B, T, 4), cxcywh in units of the images; `inputs` of the decoder."""
        raise NotImplementedError(f'{type(self).__name__} must define `_image_positions`, or learn positions')

    def _level_embed(self) -> Tensor:
        """(P, C), one row per frozen map."""
        raise NotImplementedError(f'{type(self).__name__} must define `_level_embed`')

    def foundation_features(self, images: Tensor, batch_data_samples: SampleList) -> list[TowerFeatures]:
        """Features of every enhancer for a batch, see `Enhancement.features`."""
        return self.enhancement.features(images, batch_data_samples, stats=self.image_stats,
                                         source=self.feature_source)

    def extract_feat(self, batch_inputs: Tensor) -> ImageMaps:
        """See mmdet; the maps also carry the images."""
        maps = ImageMaps(super().extract_feat(batch_inputs))
        maps.images = batch_inputs
        return maps

    def pre_transformer(self, img_feats: ImageMaps, batch_data_samples: OptSampleList = None) -> tuple[dict, dict]:
        """See mmdet; frozen maps follow the detector's own cells, image queries wait for the decoder."""
        encoder_inputs, decoder_inputs = super().pre_transformer(img_feats, batch_data_samples)
        if not len(self.enhancement.enhancers):
            return encoder_inputs, decoder_inputs
        features = self.foundation_features(img_feats.images, batch_data_samples)
        if len(self.enhancement.patch_levels):
            levels = self.enhancement.levels(features, self.positional_encoding, self._level_embed())
            encoder_inputs = append_levels(encoder_inputs, levels)
        return encoder_inputs, dict(decoder_inputs, image_queries=self.enhancement.queries(features,
                                                                                           batch_data_samples))

    def forward_encoder(self, *, own_cells: int | None = None, **inputs: Any) -> dict:
        """See mmdet; what follows sees only the detector's own cells, all of them by default."""
        outputs = super().forward_encoder(**inputs)
        if own_cells is None:
            return outputs
        for name in ('memory', 'memory_mask'):
            if outputs.get(name) is not None:
                outputs[name] = outputs[name][:, :own_cells]
        if 'spatial_shapes' in outputs:
            outputs['spatial_shapes'] = outputs['spatial_shapes'][:-len(self.enhancement.patch_levels)]
        return outputs

    def forward_decoder(self, *, image_queries: LayerImageQueries | None = None, **inputs: Any) -> dict:
        """See mmdet; the self-attention of every layer also reads the image queries."""
        if image_queries is None:
            return super().forward_decoder(**inputs)
        learned = self.enhancement.positions
        positions = self._image_positions(image_queries.references, inputs) if learned is None \
            else learned.weight.expand(len(image_queries.references), -1, -1)
        with image_queries_in(self.decoder.layers, image_queries.queries, positions):
            return super().forward_decoder(**inputs)


class MultiScaleSteps(EnhancedSteps):
    """Detectors with a deformable encoder: frozen maps are more levels of it, as in the paper's DINO.

    Checkpoints of the plain detector load: attention to the frozen maps starts from its initialisation. For the
    arguments see `EnhancedSteps`; `num_feature_levels` counts the detector's own levels only.
    """

    num_feature_levels: int
    level_embed: nn.Parameter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_feature_levels -= len(self.enhancement.patch_levels)

    def _add_levels(self, config: dict, count: int) -> None:
        own = config.get('num_feature_levels', 4)
        set_levels(config['encoder'], config['decoder'], own, count)
        config['num_feature_levels'] = own + count

    def _level_embed(self) -> Tensor:
        return self.level_embed[self.num_feature_levels:]

    def pre_transformer(self, img_feats: ImageMaps, batch_data_samples: OptSampleList = None) -> tuple[dict, dict]:
        """See `EnhancedSteps`."""
        if len(img_feats) != self.num_feature_levels:
            raise UserError(f'the neck gives {len(img_feats)} levels, but num_feature_levels is '
                            f'{self.num_feature_levels}; make the two equal (frozen maps are not counted)')
        return super().pre_transformer(img_feats, batch_data_samples)

    def pre_decoder(self, memory: Tensor, *args: Any, **kwargs: Any) -> tuple[dict, dict]:
        """See mmdet; a picture of fewer cells than proposals gets a proposal for every cell."""
        fits = not self.as_two_stage or memory.shape[1] >= self.num_queries
        detector: MultiScaleSteps = self if fits else with_queries(self, memory.shape[1])
        return super(MultiScaleSteps, detector).pre_decoder(memory, *args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        grow_encoder(self, state_dict, prefix, levels=self.num_feature_levels)
        super()._load_from_state_dict(state_dict, prefix, *args)


class SingleScaleSteps(EnhancedSteps):
    """Detectors with plain attention over one map: the cells of frozen maps join its sequence, with sine positions.

    The paper's footnote puts deformable attention into the encoder of these detectors to fuse several scales, without
    saying how. Ours keeps their own attention, which takes sequences of any length, so that every weight of the plain
    detector keeps its meaning; a learned embedding tells the frozen maps apart. For the arguments see `EnhancedSteps`.
    """

    learned_levels = True

    def _level_embed(self) -> Tensor:
        return cast(Tensor, self.enhancement.level_embed)


def append_levels(inputs: dict, levels: Levels) -> dict:
    """Inputs of mmdet's encoder with levels behind its own, and the number of its own cells.

    Args:
        inputs: `feat` and `feat_pos` (B, N, C), `feat_mask` (B, N) or None, and for deformable encoders
            `spatial_shapes`, `level_start_index` and `valid_ratios`.
        levels: the levels to append.
    """
    feat, mask = inputs['feat'], inputs['feat_mask']
    count, cells = feat.shape[:2]
    grown = dict(inputs, own_cells=cells, feat=torch.cat([feat, levels.features], 1),
                 feat_pos=torch.cat([inputs['feat_pos'], levels.positions.expand(count, -1, -1)], 1))
    if mask is not None or levels.mask is not None:
        masks = [part if part is not None else feat.new_zeros(count, size, dtype=torch.bool)
                 for part, size in ((mask, cells), (levels.mask, levels.features.shape[1]))]
        grown['feat_mask'] = torch.cat(masks, 1)
    if 'spatial_shapes' in inputs and torch.compiler.is_exporting():
        grown['spatial_shapes'] = [*inputs['spatial_shapes'], *levels.shapes]
        grown['valid_ratios'] = torch.cat([inputs['valid_ratios'], levels.valid_ratios], 1)
    elif 'spatial_shapes' in inputs:
        grown['spatial_shapes'] = torch.cat([inputs['spatial_shapes'], levels.spatial_shapes])
        grown['level_start_index'] = torch.cat([inputs['level_start_index'], levels.start_index + cells])
        grown['valid_ratios'] = torch.cat([inputs['valid_ratios'], levels.valid_ratios], 1)
    return grown
