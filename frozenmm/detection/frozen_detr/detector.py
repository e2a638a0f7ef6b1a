"""EnhancedDINO: a DINO detector that reads frozen foundation models.

Source: Fu et al., Frozen-DETR (NeurIPS 2024, arXiv 2410.19635). Image tokens become image queries in every decoder
layer, patch maps become extra levels of the encoder; proposals and decoder see the detector's own levels only.
"""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import DINOHead
from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor, nn

from frozenmm.detection.frozen_detr import compat_record
from frozenmm.detection.frozen_detr.decoder import ImageQueryDecoder
from frozenmm.detection.frozen_detr.denoising import DenoisingQueries, NoDenoising
from frozenmm.detection.frozen_detr.encoder import FusionEncoder
from frozenmm.detection.frozen_detr.enhancement import Enhancement, FeatureSource, build_enhancers, image_sizes
from frozenmm.detection.frozen_detr.enhancer import FrozenEnhancer
from frozenmm.detection.frozen_detr.image_queries import LayerImageQueries
from frozenmm.detection.frozen_detr.levels import Levels, join_levels, padding_masks, set_levels
from frozenmm.detection.frozen_detr.small_images import with_queries
from frozenmm.detection.frozen_detr.upstream import grow_encoder
from frozenmm.errors import UserError
from frozenmm.foundation.state_records import as_record, read_record
from frozenmm.ops.accelerate import accelerate_own
from frozenmm.registry import MODELS
from frozenmm.structures import ImageStats, TowerFeatures


@MODELS.register_module()
class EnhancedDINO(DINO):
    """mmdet's DINO with frozen foundation models as feature enhancers; without enhancers the same detector.

    A plain DINO config becomes an enhanced one with `type='frozenmm.EnhancedDINO'` and `enhancers`; everything else
    stays. The numbers of encoder levels follow by themselves, and a `DINOHead` becomes an `EnhancedDINOHead`. A
    converted official checkpoint carries a record of it and switches `compat` on when it is loaded.

    Args:
        enhancers: one dict per frozen tower, e.g. `dict(tower=dict(type='frozenmm.CLIPTower', ...), image_queries=5,
            patch_maps=['patch'])`. Image queries come from one tower at most, maps from any number.
        patch_norm: `'GN'` (DINO-coco) or `'LN'` (the mmdet-2.x fork), see `PatchLevel`.
        patch_groups: groups of the GroupNorm.
        dn_cfg: denoising as in mmdet; None trains without.
        num_feature_levels: levels of the detector itself, frozen maps not counted.
        encoder: mmdet's config of the encoder.
        decoder: mmdet's config of the decoder.
        bbox_head: mmdet's config of the head.
        kwargs: other arguments of `mmdet.DINO`.

    Attributes:
        feature_source: a function that gives the features of a batch (one `TowerFeatures` per enhancer, on the model's
            device) for its data samples, so that towers need not run; it may return None to let them run.
    """

    feature_source: FeatureSource | None = None
    # mmdet keeps a config under the name that the module gets
    positional_encoding: Any
    encoder: Any
    decoder: Any
    enhancement: Enhancement

    def __init__(self, *args: object, enhancers: Sequence[dict | FrozenEnhancer] = (), patch_norm: str = 'GN',
                 patch_groups: int = 32, dn_cfg: dict | None = None, num_feature_levels: int = 4, encoder: dict,
                 decoder: dict, bbox_head: dict, **kwargs: object) -> None:
        built = build_enhancers(enhancers)
        self._patch_levels = sum(len(item.patch_maps) for item in built)
        # copies, because mmdet writes into the configs that it is given
        encoder, decoder, bbox_head = (copy.deepcopy(config) for config in (encoder, decoder, bbox_head))
        set_levels(encoder, decoder, num_feature_levels, self._patch_levels)
        if bbox_head.get('type') in ('DINOHead', 'mmdet.DINOHead'):
            bbox_head['type'] = 'frozenmm.EnhancedDINOHead'
        for name in 'as_two_stage', 'with_box_refine':
            if kwargs.setdefault(name, True) is not True:
                raise UserError(f'DINO needs {name}=True, got {kwargs[name]!r}')
        # not DINO.__init__, which cannot build a detector without denoising
        DeformableDETR.__init__(self, *args, encoder=encoder, decoder=decoder, bbox_head=bbox_head,
                                num_feature_levels=num_feature_levels, **kwargs)
        if not isinstance(self.bbox_head, DINOHead):
            raise UserError(f'EnhancedDINO needs a DINOHead, got {type(self.bbox_head).__name__}; two-stage Deformable '
                            "DETR is type='frozenmm.EnhancedDeformableDETR'")
        self.image_stats = ImageStats.from_preprocessor(self.data_preprocessor)
        self._add_enhancers(built, patch_norm, patch_groups)
        self.dn_query_generator = self._denoising(dn_cfg)

    def _init_layers(self) -> None:
        """The transformer: mmdet's names and shapes, with one more level per frozen map in the encoder."""
        # mmdet keeps the configs under the names that the modules get
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = FusionEncoder(**self.encoder)
        self.decoder = ImageQueryDecoder(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        if self.positional_encoding.num_feats * 2 != self.embed_dims:
            raise UserError(f'positional_encoding.num_feats must be half of the encoder\'s {self.embed_dims} '
                            f'channels, got {self.positional_encoding.num_feats}')
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)
        self.level_embed = nn.Parameter(torch.randn(self.num_feature_levels + self._patch_levels, self.embed_dims))
        self.memory_trans_fc = nn.Linear(self.embed_dims, self.embed_dims)
        self.memory_trans_norm = nn.LayerNorm(self.embed_dims)

    def _add_enhancers(self, enhancers: list[FrozenEnhancer], norm: str, groups: int) -> None:
        if enhancers:  # else this is mmdet's detector, to the last bit
            accelerate_own(self.encoder)
            accelerate_own(self.decoder)
        enhancement = Enhancement(enhancers, self.embed_dims, self.decoder.num_layers, norm=norm, groups=groups)
        # its modules stand under the names that checkpoints have had since frozenmm 0.1
        self.enhancers, self.patch_levels = enhancement.enhancers, enhancement.patch_levels
        self.image_queries = enhancement.image_queries
        object.__setattr__(self, 'enhancement', enhancement)

    def _denoising(self, config: dict | None) -> nn.Module:
        if config is None:
            return NoDenoising(self.embed_dims)
        return DenoisingQueries(self.bbox_head.num_classes, self.embed_dims, self.num_queries,
                                num_image_queries=self.image_queries.count if self.image_queries else 0, **config)

    def foundation_features(self, images: Tensor, batch_data_samples: SampleList) -> list[TowerFeatures]:
        """Features of every enhancer for a batch; the one place where they are obtained.

        Args:
            images: (B, 3, H, W), the batch behind the data preprocessor.
            batch_data_samples: their samples; `img_shape` tells the size without padding.

        Returns:
            One `TowerFeatures` per enhancer, from `feature_source` if it gives them, else from the towers.
        """
        return self.enhancement.features(images, batch_data_samples, stats=self.image_stats,
                                         source=self.feature_source)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of a batch of images (B, 3, H, W)."""
        inputs = self._head_inputs(batch_inputs, batch_data_samples)
        return self.bbox_head.loss(**inputs, batch_data_samples=batch_data_samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Detections of a batch of images (B, 3, H, W), written into the samples as `pred_instances`."""
        inputs = self._head_inputs(batch_inputs, batch_data_samples)
        results = self.bbox_head.predict(**inputs, rescale=rescale, batch_data_samples=batch_data_samples)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> tuple[Tensor, Tensor]:
        """Logits (layers, B, Q, K) and boxes (layers, B, Q, 4) without post-processing."""
        inputs = self._head_inputs(batch_inputs, batch_data_samples)
        return self.bbox_head(inputs['hidden_states'], inputs['references'])

    def _head_inputs(self, images: Tensor, batch_data_samples: OptSampleList) -> dict:
        if not batch_data_samples:
            raise UserError('EnhancedDINO needs data samples with img_shape and batch_input_shape, got none')
        features = self.foundation_features(images, batch_data_samples)
        return self.forward_transformer(self.extract_feat(images), batch_data_samples, features)

    def forward_transformer(self, img_feats: tuple[Tensor, ...], batch_data_samples: OptSampleList = None,
                            features: Sequence[TowerFeatures] = ()) -> dict:
        """Everything between neck and head.

        Args:
            img_feats: (B, C, h, w) per detector level, from the neck.
            batch_data_samples: the samples of the batch.
            features: features of every enhancer.

        Returns:
            Inputs of the head: hidden states, references and, in training, encoder proposals and denoising numbers.
        """
        memory, levels = self.encode(img_feats, batch_data_samples, features)
        return self.decode(memory, levels, batch_data_samples, self.enhancement.queries(features, batch_data_samples))

    def encode(self, img_feats: tuple[Tensor, ...], batch_data_samples: SampleList,
               features: Sequence[TowerFeatures] = ()) -> tuple[Tensor, Levels]:
        """The encoder's output (B, N, C) for the detector's own levels, and these levels."""
        masks = padding_masks(img_feats, image_sizes(batch_data_samples), batch_data_samples[0].batch_input_shape)
        levels = self.join_levels(img_feats, masks, features)
        own = self.num_feature_levels
        return self.encoder(levels, keep=levels.cells(own)), levels.first(own)

    def decode(self, memory: Tensor, levels: Levels, batch_data_samples: SampleList,
               image_queries: LayerImageQueries | None = None) -> dict:
        """Inputs of the head, see `forward_transformer`, from the encoder's output."""
        # shapes from the host, float32: nothing waits for the device, and grids stay exact under autocast
        inputs, head_inputs = self.pre_decoder(memory.float(), levels.mask, levels.shapes, batch_data_samples)
        hidden_states, references = self.decoder(
            inputs['query'], memory, levels, self_attn_mask=inputs['dn_mask'],
            reference_points=inputs['reference_points'], reg_branches=self.bbox_head.reg_branches,
            image_queries=image_queries)
        head_inputs = {key: value.float() if isinstance(value, Tensor) else value for key, value in head_inputs.items()}
        return dict(head_inputs, hidden_states=hidden_states, references=list(references))

    def pre_decoder(self, memory: Tensor, memory_mask: Tensor | None, spatial_shapes: Any,
                    batch_data_samples: OptSampleList = None) -> tuple[dict, dict]:
        """See mmdet; a picture of fewer cells than queries, such as a narrow strip, gets a query for every cell."""
        cells = memory.shape[1]
        if cells >= self.num_queries:
            return super().pre_decoder(memory, memory_mask, spatial_shapes, batch_data_samples)
        return DINO.pre_decoder(with_queries(self, cells), memory, memory_mask, spatial_shapes, batch_data_samples)

    def join_levels(self, feature_maps: Sequence[Tensor], masks: Sequence[Tensor | None],
                    features: Sequence[TowerFeatures]) -> Levels:
        """Detector levels with the projected frozen maps behind them.

        Args:
            feature_maps: (B, C, h, w) per detector level.
            masks: (B, h, w) bool per detector level, True at padding, or None.
            features: features of every enhancer.
        """
        if len(feature_maps) != self.num_feature_levels:
            raise UserError(f'the neck gives {len(feature_maps)} levels, but num_feature_levels is '
                            f'{self.num_feature_levels}; make the two equal (frozen maps are not counted)')
        frozen = self.enhancement.maps(features)
        return join_levels([*feature_maps, *(level for level, _ in frozen)], [*masks, *(mask for _, mask in frozen)],
                           self.positional_encoding, self.level_embed)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        own = compat_record.read(self.bbox_head, self.enhancement.towers)
        if own != compat_record.MMDET:
            destination[prefix + compat_record.RECORD] = as_record(own)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Compute as the checkpoint's record says, and let weights without frozen maps grow."""
        record = state_dict.pop(prefix + compat_record.RECORD, None)
        if record is not None:
            self._require_neck(state_dict, f'{prefix}neck.')
            compat_record.apply(read_record(record, prefix + compat_record.RECORD), self.bbox_head,
                                self.enhancement.towers)
        for key, system in (('transformer.level_embed', 'frozen_detr'),
                            ('query_head.transformer.level_embeds', 'co_dino')):
            if prefix + key in state_dict:
                raise UserError('this is an official DINO checkpoint; convert it first: '
                                f'`python tools/convert.py {system} IN OUT.safetensors`')
        grow_encoder(self, state_dict, prefix, levels=self.num_feature_levels)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _require_neck(self, state_dict: dict, prefix: str) -> None:
        """Official detectors have a bias before the norms of the neck; without it the numbers are far off."""
        own = self.neck.state_dict() if self.with_neck else {}
        lost = [key for key in state_dict if key.startswith(prefix) and key[len(prefix):] not in own]
        if lost:
            raise UserError(f'the checkpoint holds {lost[0]}, which this model\'s neck has not; converted official '
                            'checkpoints need neck=dict(bias=True)')
