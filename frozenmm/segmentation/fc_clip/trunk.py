"""What FC-CLIP and FrozenSeg share: the parts of mask classification and how they work together."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from mmdet.structures import DetDataSample
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation import ImageTower
from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.tower_building import build_tower
from frozenmm.ops.mask_ensemble import MaskGeometry
from frozenmm.ops.mask_pool import mask_pool, resize_masks
from frozenmm.registry import MODELS
from frozenmm.segmentation.class_memory import RegionMemory
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.postprocess import MaskPostprocessor, MaskResults
from frozenmm.segmentation.fc_clip.visual_head import mask_embeddings, pools_by_attention
from frozenmm.segmentation.mask2former.criterion import SetCriterion
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.segmentation.mask2former.mask_factors import MaskFactors
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.mask2former.targets import targets_of
from frozenmm.segmentation.options import built
from frozenmm.structures import TowerFeatures

PYRAMID = ('res2', 'res3', 'res4', 'res5')
DENSE = 'clip_vis_dense'
FROZEN_POOLS = ('hard', 'area')
Finish = Callable[[Tensor, Tensor, MaskGeometry, DetDataSample, TowerFeatures], MaskResults]
Options = Mapping[str, object]


class LayerPrediction(Protocol):
    """What a decoder layer says, for the losses; `MaskProposals` is one."""

    @property
    def embeddings(self) -> Tensor:
        """(B, Q, C)."""

    @property
    def mask_logits(self) -> Tensor | MaskFactors:
        """(B, Q, h, w)."""


@dataclass
class MaskTrunk:
    """The parts of a mask-classification model. The model owns them as submodules; the trunk lets them work together.

    Attributes:
        tower: the frozen image encoder, with maps res2..res5 at the pipeline's resolution.
        mask_generator: called with the maps, what else it needs, `all_layers` and `padding`.
        classifier: holds the words.
        criterion: losses of training.
        postprocessor: makes the results.
        frozen_head: what embeds pooled features of a tower without CLIP's head; None: the tower does.
        frozen_pool: `'hard'` or `'area'`, see `FCCLIP`.
        mask_padding: leave padding out of attention and pooling.
        memory: examples of classes beside their words, see `remember`.
    """

    tower: ImageTower
    mask_generator: nn.Module
    classifier: MaskClassifier
    criterion: SetCriterion
    postprocessor: MaskPostprocessor
    frozen_head: nn.Module | None = None
    frozen_pool: str = 'hard'
    mask_padding: bool = False
    memory: RegionMemory | None = None

    @property
    def dense_name(self) -> str:
        """Name of the map that the frozen branch pools."""
        channels = self.tower.channels
        return DENSE if DENSE in channels else next(reversed(channels))

    @property
    def region_signature(self) -> dict[str, str | int]:
        """What decides the vectors that `pooled` gives, for a `ClassMemory`."""
        head: Any = self.frozen_head
        return dict(tower=self.tower.name, fingerprint=self.tower.fingerprint, map=self.dense_name,
                    head='its own' if head is None else type(head).__name__, pool=self.frozen_pool,
                    channels=self.classifier.embed_channels if head is None else head.feature_channels)

    # ------------------------------------------------------------------------------------------------ geometry
    def canvas(self, batch_inputs: Tensor) -> tuple[int, int]:
        """(height, width) that the tower's maps cover: the batch (B, 3, H, W), padded to a multiple of its patch."""
        patch = self.tower.input.patch
        height, width = batch_inputs.shape[-2:]
        return height + -height % patch, width + -width % patch

    def padding(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None) -> Padding | None:
        """The padding of a batch (B, 3, H, W) to leave out; None where it takes part."""
        if not self.mask_padding:
            return None
        return Padding(valid_sizes(batch_inputs, batch_data_samples), self.canvas(batch_inputs), batch_inputs.device)

    def geometries(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                   rescale: bool = True) -> list[MaskGeometry]:
        """How the masks of each image of a batch (B, 3, H, W) map to its output, original or network size."""
        canvas = self.canvas(batch_inputs)
        sizes = valid_sizes(batch_inputs, batch_data_samples)
        outputs = [(int(sample.ori_shape[0]), int(sample.ori_shape[1])) if rescale else size
                   for sample, size in zip(batch_data_samples, sizes)]
        return [MaskGeometry(canvas, size, output) for size, output in zip(sizes, outputs)]

    # ------------------------------------------------------------------------------------------------ work
    def propose(self, features: TowerFeatures, *more: Tensor, all_layers: bool,
                padding: Padding | None) -> list[MaskProposals]:
        """Mask proposals from the tower's maps res2..res5 and what else the generator takes."""
        return self.mask_generator([features.map(name) for name in PYRAMID], *more, all_layers=all_layers,
                                   padding=padding)

    def losses(self, proposals: Sequence[LayerPrediction], batch_inputs: Tensor,
               batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Losses of all prediction layers on a batch (B, 3, H, W); see `SetCriterion` and `targets_of`."""
        # the classes of training in eval mode too: annotations know no other classes
        rows = self.classifier.rows_of(training=True)
        canvas = self.canvas(batch_inputs)
        targets = [targets_of(sample, rows.num_classes, rows.things, canvas, batch_inputs.device)
                   for sample in batch_data_samples]
        return self.criterion([self.classifier(layer.embeddings, rows) for layer in proposals],
                              [layer.mask_logits for layer in proposals], targets)

    def classify(self, proposals: MaskProposals, features: TowerFeatures) -> Tensor:
        """Log probabilities (B, Q, K+1) of both branches together, void last."""
        logits = self.classifier(proposals.embeddings)
        if not self.classifier.ensemble:
            return self.classifier.log_probs(logits, None)
        pooled, valid = self.pooled(features, proposals.mask_logits)
        vocabulary = self.classifier.vocabulary or self.classifier.train_vocabulary
        remembered = None
        if self.memory is not None and vocabulary is not None and not self.classifier.training:
            remembered = self.memory.logits(pooled, vocabulary, self.classifier.rows.seen)
        return self.classifier.log_probs(logits, self.in_text_space(pooled), valid, remembered=remembered)

    def frozen_embeddings(self, features: TowerFeatures, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """What the frozen tower says about masks (B, Q, h, w).

        Returns:
            (B, Q, D) in text space; (B, Q) bool, masks that have a pixel (`'area'`) or a cell of the frozen map.
        """
        pooled, valid = self.pooled(features, mask_logits)
        return self.in_text_space(pooled), valid

    def in_text_space(self, pooled: Tensor) -> Tensor:
        """(..., D) of pooled frozen features (..., C)."""
        head: Any = self.frozen_head
        return pooled if head is None else head.visual_prediction(pooled)

    def remember(self, memory: ClassMemory | None) -> None:
        """Name regions by these examples too; None: by words alone.

        Raises:
            UserError: the model pools no frozen features that could be compared.
        """
        if memory is not None and not getattr(self.classifier, 'ensemble', False):
            raise UserError('this model pools no frozen features to compare with examples: its classifier has no '
                            'frozen branch; a memory needs ensemble=dict(frozen=True)')

        def words(vectors: Tensor) -> Tensor:
            return self.classifier.frozen_share(self.in_text_space(vectors.to(self.classifier.logit_scale.device)))

        self.memory = None if memory is None else RegionMemory(memory, words, self.classifier.sharpness)

    def pooled(self, features: TowerFeatures, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Frozen features under masks (B, Q, h, w): (B, Q, C), and which masks have a part of the frozen map (B, Q)."""
        dense = features.map(self.dense_name)
        masks = mask_logits.float()
        if self.frozen_pool == 'hard':
            masks = resize_masks(masks, dense.shape[-2:])
        if self.mask_padding:
            stride = self.tower.strides[self.dense_name]
            canvas = (dense.shape[-2] * stride, dense.shape[-1] * stride)
            masks = Padding(features.valid, canvas, masks.device).cut(masks)
        valid = (masks > 0).flatten(2).any(-1)
        if self.frozen_head is not None:
            head: Any = self.frozen_head
            return mask_pool(head.class_features(dense), masks,
                             rule=cast(Literal['hard', 'area'], self.frozen_pool)), valid
        return self.tower.run(mask_embeddings, dense, masks), valid

    def results(self, proposals: MaskProposals, features: TowerFeatures, geometries: Sequence[MaskGeometry],
                batch_data_samples: Sequence[DetDataSample], *, finish: Finish | None = None) -> list[MaskResults]:
        """Results of all tasks, one per image; `finish` makes them from one image's part, by default `self.finish`."""
        finish = self.finish if finish is None else finish
        log_probs, mask_logits = self.classify(proposals, features), proposals.mask_logits.float()
        return [finish(log_probs[index], mask_logits[index], geometry, sample, one_image(features, index))
                for index, (geometry, sample) in enumerate(zip(geometries, batch_data_samples))]

    def finish(self, log_probs: Tensor, mask_logits: Tensor, geometry: MaskGeometry, sample: DetDataSample,
               features: TowerFeatures) -> MaskResults:
        """Results of one image from its log probabilities (Q, K+1) and mask logits (Q, h, w).

        The metainfo `tasks` of the sample, where it is there, names what to compute.
        """
        return self.postprocessor(log_probs, mask_logits, geometry, self.classifier.rows.things,
                                  tasks=sample.metainfo.get('tasks'))


def build_trunk(tower: ImageTower | Options, classifier: MaskClassifier | Options,
                generator: Callable[[list[int]], nn.Module], *, criterion: Options | None, postprocess: Options | None,
                frozen_head: Options | None, frozen_pool: str, mask_padding: bool) -> MaskTrunk:
    """The parts from their options, in the order in which their weights are drawn.

    Args:
        tower: see `FCCLIP`; likewise the other options.
        classifier: a `MaskClassifier`, or its options.
        generator: makes the first part for the widths of res2..res5.
        criterion: options of `SetCriterion`.
        postprocess: options of `MaskPostprocessor`.
        frozen_head: config of the head of a tower without CLIP's; it gets the tower.
        frozen_pool: one of `FROZEN_POOLS`.
        mask_padding: see `FCCLIP`.

    Raises:
        UserError: a tower without the maps, a `frozen_pool` that does not exist or needs a `frozen_head`.
    """
    tower = tower_at_resolution(tower)
    missing = [name for name in PYRAMID if name not in tower.channels]
    if missing:
        raise UserError(f'the image tower {tower.name} gives the maps {list(tower.channels)}; mask generation needs '
                        f'{missing} too; add them to its out_maps, or take another tower')
    made = generator([tower.channels[name] for name in PYRAMID])
    holder = classifier if isinstance(classifier, MaskClassifier) else built(MaskClassifier, classifier)
    if tower.run(pools_by_attention):
        holder.official_rule = 'valid_masks'
    head = None if frozen_head is None else MODELS.build({**frozen_head, 'tower': tower})
    if frozen_pool not in FROZEN_POOLS or (frozen_pool != 'hard' and head is None):
        raise UserError(f'frozen_pool must be one of {list(FROZEN_POOLS)}, \'hard\' without a frozen_head; got '
                        f'{frozen_pool!r}')
    return MaskTrunk(tower, made, holder, built(SetCriterion, criterion), built(MaskPostprocessor, postprocess), head,
                     frozen_pool, mask_padding)


def tower_at_resolution(tower: ImageTower | Options) -> ImageTower:
    """The tower, kept at the pipeline's resolution.

    Raises:
        UserError: a tower that crops or stretches its input, whose maps would not lie under the masks.
    """
    tower = build_tower(tower, part='mask classification', resize_mode='none')
    if tower.resize_mode != 'none':
        raise UserError(f'the image tower must keep the pipeline\'s resolution: resize_mode=\'none\', got '
                        f'{tower.resize_mode!r}')
    return tower


def one_image(features: TowerFeatures, index: int) -> TowerFeatures:
    """The maps of one image of a batch, as a batch of one."""
    part = slice(index, index + 1)
    return TowerFeatures(maps={name: value[part] for name, value in features.maps.items()}, valid=features.valid[part],
                         region=features.region[part])


def valid_sizes(batch_inputs: Tensor, samples: Sequence[DetDataSample] | None) -> list[tuple[int, int]]:
    """Height and width of each image of a batch (B, 3, H, W) without padding."""
    if samples is None:
        return [(batch_inputs.shape[-2], batch_inputs.shape[-1])] * len(batch_inputs)
    return [(int(sample.img_shape[0]), int(sample.img_shape[1])) for sample in samples]
