"""FC-CLIP as an mmdet model: one frozen convolutional tower, a light decoder, any words."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from frozenmm.foundation import ImageTower
from frozenmm.foundation.vocabulary import VocabularySource
from frozenmm.ops.mask_ensemble import MaskGeometry
from frozenmm.ops.mask_pool import mask_pool, resize_masks
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.postprocess import MaskPostprocessor, MaskResults
from frozenmm.segmentation.fc_clip.results import store
from frozenmm.segmentation.fc_clip.visual_head import mask_embeddings
from frozenmm.segmentation.mask2former.criterion import SetCriterion
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.segmentation.mask2former.generator import MaskGenerator
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.mask2former.targets import targets_of
from frozenmm.structures import ImageStats, TowerFeatures

PYRAMID = ('res2', 'res3', 'res4', 'res5')
DENSE = 'clip_vis_dense'
FROZEN_POOLS = ('hard', 'area')


@MODELS.register_module()
class FCCLIP(BaseDetector):
    """Open-vocabulary panoptic, instance and semantic segmentation.

    Three replaceable parts: `mask_generator` (trained), `classifier` (trained, holds the words), `postprocessor`.
    Source: Yu et al., Convolutions Die Hard (NeurIPS 2023).

    Args:
        image_tower: an `ImageTower` with maps res2..res5, or its config; it must keep the pipeline's resolution
            (`resize_mode='none'`, set in a config that does not say).
        classifier: a `MaskClassifier`, or its options.
        mask_generator: options of `MaskGenerator` but `in_channels`, or a module with its signature.
        criterion: options of `SetCriterion`.
        postprocess: options of `MaskPostprocessor`.
        frozen_head: config of what embeds pooled features of a tower without CLIP's head, e.g. `dict(type='ConSE')`
            with an `EfficientNetLiteTower`; it gets this model's image tower.
        frozen_pool: with `frozen_head` only: `'hard'` pools the cells of the frozen map that a mask contains, as
            officially; `'area'` weighs them by the share that it covers, so that small masks are classified too.
        mask_padding: leave padding out of attention and pooling, for new training; officially it takes part.
        data_preprocessor: see mmdet; its normalisation is undone and redone for the tower, so any will do.
        init_cfg: see mmengine.
    """

    def __init__(self, image_tower: ImageTower | Mapping[str, object],
                 classifier: MaskClassifier | Mapping[str, object], *,
                 mask_generator: nn.Module | Mapping[str, object] | None = None,
                 criterion: Mapping[str, object] | None = None, postprocess: Mapping[str, object] | None = None,
                 frozen_head: Mapping[str, object] | None = None, frozen_pool: str = 'hard',
                 mask_padding: bool = False, data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.image_tower = build_tower(image_tower)
        missing = [name for name in PYRAMID if name not in self.image_tower.channels]
        if missing:
            raise ValueError(f'the image tower {self.image_tower.name} gives the maps '
                             f'{list(self.image_tower.channels)}; mask generation needs {missing} too')
        self.mask_generator = self.build_generator(mask_generator)
        self.classifier = classifier if isinstance(classifier, nn.Module) else MaskClassifier(**classifier)
        self.criterion = SetCriterion(**(criterion or {}))
        self.postprocessor = MaskPostprocessor(**(postprocess or {}))
        self.frozen_head = None if frozen_head is None else MODELS.build(
            {**frozen_head, 'image_tower': self.image_tower})
        if frozen_pool not in FROZEN_POOLS or (frozen_pool != 'hard' and frozen_head is None):
            raise ValueError(f'frozen_pool must be one of {list(FROZEN_POOLS)}, \'hard\' without a frozen_head; got '
                             f'{frozen_pool!r}')
        self.frozen_pool = frozen_pool
        self.mask_padding = mask_padding

    def build_generator(self, generator: nn.Module | Mapping[str, object] | None) -> nn.Module:
        """The first part, from its options."""
        if isinstance(generator, nn.Module):
            return generator
        return MaskGenerator([self.image_tower.channels[name] for name in PYRAMID], **(generator or {}))

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Predict these classes from now on; see `MaskClassifier.set_vocabulary`."""
        self.classifier.set_vocabulary(vocabulary, seen=seen)

    # ------------------------------------------------------------------------------------------------ mmdet
    def extract_feat(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None
                     ) -> TowerFeatures:
        """The frozen tower's features of a padded batch (B, 3, H, W)."""
        return self.image_tower(batch_inputs, valid_sizes(batch_inputs, batch_data_samples),
                                ImageStats.from_preprocessor(self.data_preprocessor))

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Losses of all prediction layers against the annotations; see `SetCriterion` and `targets_of`."""
        proposals, _ = self.generate(batch_inputs, batch_data_samples, all_layers=True)
        # those of training in eval mode too: annotations know no other classes
        rows = self.classifier.rows_of(training=True)
        canvas = self.canvas(batch_inputs)
        targets = [targets_of(sample, rows.num_classes, rows.things, canvas, batch_inputs.device)
                   for sample in batch_data_samples]
        return self.criterion([self.classifier(layer.embeddings, rows) for layer in proposals],
                              [layer.mask_logits for layer in proposals], targets)

    def predict(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample],
                rescale: bool = True) -> list[DetDataSample]:
        """The data samples with the results of all tasks, at original size or, without `rescale`, at network size."""
        results = self.results(batch_inputs, batch_data_samples, rescale=rescale)
        for sample, result in zip(batch_data_samples, results):
            store(sample, result, self.classifier.rows.num_classes)
        return list(batch_data_samples)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None
                 ) -> tuple[Tensor, Tensor]:
        """Logits of the trained branch (B, Q, K+1) and mask logits (B, Q, H/4, W/4), of the last layer."""
        proposals, _ = self.generate(batch_inputs, batch_data_samples, all_layers=False)
        return self.classifier(proposals[-1].embeddings), proposals[-1].mask_logits

    # ------------------------------------------------------------------------------------------------ parts
    def generate(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None, *,
                 all_layers: bool) -> tuple[list[MaskProposals], TowerFeatures]:
        """Mask proposals, and the frozen features that the classifier looks at."""
        features = self.extract_feat(batch_inputs, batch_data_samples)
        maps = [features.map(name) for name in PYRAMID]
        padding = self.padding(batch_inputs, batch_data_samples)
        return self.mask_generator(maps, all_layers=all_layers, padding=padding), features

    def padding(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None) -> Padding | None:
        """The padding to leave out; None where it takes part."""
        if not self.mask_padding:
            return None
        return Padding(valid_sizes(batch_inputs, batch_data_samples), self.canvas(batch_inputs), batch_inputs.device)

    def classify(self, proposals: MaskProposals, features: TowerFeatures) -> Tensor:
        """Log probabilities (B, Q, K+1) of both branches together, void last."""
        logits = self.classifier(proposals.embeddings)
        if not self.classifier.ensemble:
            return self.classifier.log_probs(logits, None)
        frozen, valid = self.frozen_embeddings(features, proposals.mask_logits)
        return self.classifier.log_probs(logits, frozen, valid)

    def frozen_embeddings(self, features: TowerFeatures, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """What the frozen tower says about masks (B, Q, h, w).

        Returns:
            (B, Q, D) in text space; (B, Q) bool, masks that have a pixel (`'area'`) or a cell of the frozen map.
        """
        dense = features.map(self.dense_name)
        masks = mask_logits.float()
        if self.frozen_pool == 'hard':
            masks = resize_masks(masks, dense.shape[-2:])
        if self.mask_padding:
            stride = self.image_tower.strides[self.dense_name]
            canvas = (dense.shape[-2] * stride, dense.shape[-1] * stride)
            masks = Padding(features.valid, canvas, masks.device).cut(masks)
        valid = (masks > 0).flatten(2).any(-1)
        if self.frozen_head is not None:
            pooled = mask_pool(self.frozen_head.class_features(dense), masks, rule=self.frozen_pool)
            return self.frozen_head.visual_prediction(pooled), valid
        return self.image_tower.run(mask_embeddings, dense, masks), valid

    @property
    def dense_name(self) -> str:
        """Name of the map that the frozen branch pools."""
        channels = self.image_tower.channels
        return DENSE if DENSE in channels else next(reversed(channels))

    def results(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                rescale: bool = True) -> list[MaskResults]:
        """Results of all tasks, one per image."""
        proposals, features = self.generate(batch_inputs, batch_data_samples, all_layers=False)
        log_probs, mask_logits = self.classify(proposals[-1], features), proposals[-1].mask_logits.float()
        geometries = self.geometries(batch_inputs, batch_data_samples, rescale=rescale)
        return [self.finish(log_probs[index], mask_logits[index], geometry, sample, one_image(features, index))
                for index, (geometry, sample) in enumerate(zip(geometries, batch_data_samples))]

    def finish(self, log_probs: Tensor, mask_logits: Tensor, geometry: MaskGeometry, sample: DetDataSample,
               features: TowerFeatures) -> MaskResults:
        """Results of one image from its log probabilities (Q, K+1) and mask logits (Q, h, w).

        The metainfo `tasks` of the sample, where it is there, names what to compute.
        """
        return self.postprocessor(log_probs, mask_logits, geometry, self.classifier.rows.things,
                                  tasks=sample.metainfo.get('tasks'))

    def canvas(self, batch_inputs: Tensor) -> tuple[int, int]:
        """(height, width) that the tower's maps cover: the batch, padded to a multiple of the tower's patch."""
        patch = self.image_tower.input.patch
        height, width = batch_inputs.shape[-2:]
        return height + -height % patch, width + -width % patch

    def geometries(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                   rescale: bool = True) -> list[MaskGeometry]:
        """How the masks of each image map to its output."""
        canvas = self.canvas(batch_inputs)
        sizes = valid_sizes(batch_inputs, batch_data_samples)
        outputs = [tuple(sample.ori_shape[:2]) if rescale else size for sample, size in zip(batch_data_samples, sizes)]
        return [MaskGeometry(canvas, size, output) for size, output in zip(sizes, outputs)]


def one_image(features: TowerFeatures, index: int) -> TowerFeatures:
    """The maps of one image of a batch, as a batch of one."""
    part = slice(index, index + 1)
    return TowerFeatures(maps={name: value[part] for name, value in features.maps.items()}, valid=features.valid[part],
                         region=features.region[part])


def build_tower(tower: ImageTower | Mapping[str, object]) -> ImageTower:
    """The tower, kept at the pipeline's resolution.

    Raises:
        ValueError: a tower that crops or stretches its input, whose maps would not lie under the masks.
    """
    if isinstance(tower, Mapping):
        tower = MODELS.build({'resize_mode': 'none', **tower})
    if tower.resize_mode != 'none':
        raise ValueError(f'the image tower must keep the pipeline\'s resolution: resize_mode=\'none\', got '
                         f'{tower.resize_mode!r}')
    return tower


def valid_sizes(batch_inputs: Tensor, samples: Sequence[DetDataSample] | None) -> list[tuple[int, int]]:
    """Height and width of each image of a batch without padding."""
    if samples is None:
        return [tuple(batch_inputs.shape[-2:])] * len(batch_inputs)
    return [tuple(sample.img_shape[:2]) for sample in samples]
