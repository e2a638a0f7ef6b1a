"""FrozenSeg as an mmdet model: FC-CLIP, a frozen SAM beside the frozen CLIP, and SAM's masks where they are at hand."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from frozenmm.foundation import ImageTower
from frozenmm.ops.mask_ensemble import MaskGeometry
from frozenmm.ops.mask_pool import resize_masks
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.postprocess import MaskResults, all_masks
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP, PYRAMID, build_tower, valid_sizes
from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks
from frozenmm.segmentation.frozen_seg.generator import InjectedMaskGenerator
from frozenmm.segmentation.frozen_seg.mask_files import SAMMaskFolder
from frozenmm.segmentation.frozen_seg.proposal_ensemble import proposal_ensemble
from frozenmm.segmentation.frozen_seg.sam_input import normalise_and_pad, stretch
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks, masks_on_map, masks_on_map_compat
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.structures import ImageStats, TowerFeatures


@dataclass(frozen=True)
class ProposalOptions:
    """How SAM's masks take part in the semantic result.

    Attributes:
        epsilon: their share for unseen classes.
        threshold: a SAM mask votes only if some unseen class scores above this.
        scale_always: scale the queries' share of unseen classes down even where no SAM mask votes (official).
        pad_before_pool: the official mapping of SAM masks to CLIP's map, which squeezes them; None: as the classifier's
            `compat`.
        postprocess_twice: the official second post-processing of the proposals for recall, which shows the top left
            part only where the output is larger than the network's input; None: as the classifier's `compat`.
    """

    epsilon: float = 0.2
    threshold: float = 0.5
    scale_always: bool = True
    pad_before_pool: bool | None = None
    postprocess_twice: bool | None = None


@MODELS.register_module()
class FrozenSeg(FCCLIP):
    """Open-vocabulary segmentation with spatial knowledge of SAM.

    Source: Chen et al., FrozenSeg (arXiv 2409.03525). SAM's image features enter the mask generator; SAM's automatic
    masks may vote in the semantic result. A data sample brings its masks in the field `sam_masks` (a `SAMMasks`), or
    they come from a folder, or they are computed at test time and left in that field; an image with none gets the plain
    semantic result.

    Args:
        image_tower: see `FCCLIP`.
        sam_tower: a `SAMTower`, `MobileSAMTower` or `DemoSAMTower`, or its config; kept at the resolution that this
            model stretches to. None: no injectors, so this is FC-CLIP, loads its checkpoints, and lets masks vote.
        classifier: see `FCCLIP`; likewise criterion, postprocess, frozen_head, frozen_pool, mask_padding,
            data_preprocessor and init_cfg.
        mask_generator: options of `InjectedMaskGenerator` but the widths, or a module with its signature.
        sam_masks: options of `SAMMaskFolder` (`folder`, `choice`, `count`); None: no folder.
        automatic_masks: options of `AutomaticMasks` (`prompter`, `points_per_side`, ...), which then makes the masks of
            images that bring none; exclusive with a folder. None: no such masks.
        proposals: options of `ProposalOptions`.
    """

    def __init__(self, image_tower: ImageTower | Mapping[str, object],
                 sam_tower: ImageTower | Mapping[str, object] | None,
                 classifier: MaskClassifier | Mapping[str, object], *,
                 mask_generator: nn.Module | Mapping[str, object] | None = None,
                 criterion: Mapping[str, object] | None = None, postprocess: Mapping[str, object] | None = None,
                 frozen_head: Mapping[str, object] | None = None, frozen_pool: str = 'hard',
                 mask_padding: bool = False, sam_masks: Mapping[str, object] | None = None,
                 automatic_masks: Mapping[str, object] | None = None,
                 proposals: Mapping[str, object] | None = None,
                 data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        sam_tower = None if sam_tower is None else build_tower(sam_tower)
        # `build_generator` asks for SAM's width before nn.Module can hold submodules
        self.__dict__['_sam_channels'] = None if sam_tower is None else sam_tower.channels[
            next(reversed(sam_tower.channels))]
        super().__init__(image_tower, classifier, mask_generator=mask_generator, criterion=criterion,
                         postprocess=postprocess, frozen_head=frozen_head, frozen_pool=frozen_pool,
                         mask_padding=mask_padding, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.sam_tower = sam_tower
        if sam_masks is not None and automatic_masks is not None:
            raise ValueError('SAM\'s masks come from a folder (`sam_masks`) or are made at test time '
                             '(`automatic_masks`), not both; leave one out')
        self.sam_masks = None if sam_masks is None else SAMMaskFolder(**sam_masks)
        self.automatic_masks = None if automatic_masks is None else AutomaticMasks(**automatic_masks)
        self.proposals = ProposalOptions(**(proposals or {}))

    def build_generator(self, generator: nn.Module | Mapping[str, object] | None) -> nn.Module:
        """The first part, from its options."""
        if isinstance(generator, nn.Module) or self._sam_channels is None:
            return super().build_generator(generator)
        channels = [self.image_tower.channels[name] for name in PYRAMID]
        return InjectedMaskGenerator(channels, self._sam_channels, **(generator or {}))

    def generate(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None, *,
                 all_layers: bool) -> tuple[list[MaskProposals], TowerFeatures]:
        """See `FCCLIP.generate`."""
        if self.sam_tower is None:
            return super().generate(batch_inputs, batch_data_samples, all_layers=all_layers)
        features = self.extract_feat(batch_inputs, batch_data_samples)
        embedding = self.sam_embedding(batch_inputs, batch_data_samples)
        maps = [features.map(name) for name in PYRAMID]
        padding = self.padding(batch_inputs, batch_data_samples)
        return self.mask_generator(maps, embedding, all_layers=all_layers, padding=padding), features

    def sam_embedding(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None) -> Tensor:
        """SAM's embedding (B, C, h, w) of the padded batch, stretched to SAM's square input.

        Raises:
            ValueError: there is no SAM tower.
        """
        if self.sam_tower is None:
            raise ValueError('this model has no SAM tower; build it with `sam_tower`')
        stats = ImageStats.from_preprocessor(self.data_preprocessor)
        size, target = self.sam_tower.input.size, self.sam_tower.input.stats
        padded = normalise_and_pad(batch_inputs, valid_sizes(batch_inputs, batch_data_samples), stats,
                                   divisor=self.image_tower.input.patch, target=target)
        return self.sam_tower(stretch(padded, (size, size)), image_stats=target).map()

    # ------------------------------------------------------------------------------------------------ SAM's masks
    def results(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                rescale: bool = True) -> list[MaskResults]:
        """See `FCCLIP.results`; masks that are to be made at test time are made first."""
        if self.automatic_masks is not None:
            self.add_masks(batch_inputs, batch_data_samples)
        return super().results(batch_inputs, batch_data_samples, rescale=rescale)

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenSeg:
        # the mask maker is no part of what is trained and saved, but follows the model's device
        super()._apply(fn, recurse)
        if self.automatic_masks is not None:
            self.automatic_masks.prompter._apply(fn, recurse)
        return self

    def add_masks(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> None:
        """Give the data samples of a batch (B, 3, H, W) that have no `sam_masks` theirs."""
        if self.automatic_masks is None:
            raise ValueError('this model makes no SAM masks; build it with `automatic_masks`')
        stats = ImageStats.from_preprocessor(self.data_preprocessor)
        for image, shown, sample in zip(batch_inputs, valid_sizes(batch_inputs, batch_data_samples),
                                        batch_data_samples):
            if 'sam_masks' not in sample:
                features = self.automatic_masks.prompter.embed(image[None], [shown], stats)
                height, width = sample.ori_shape[:2]
                sample.sam_masks = self.automatic_masks.generate(features, shown, (height, width))

    def finish(self, log_probs: Tensor, mask_logits: Tensor, geometry: MaskGeometry, sample: DetDataSample,
               features: TowerFeatures) -> MaskResults:
        """See `FCCLIP.finish`; the semantic result and the proposals take SAM's masks in."""
        masks = self.masks_of(sample)
        if masks is None or len(masks.logits) == 0:
            return super().finish(log_probs, mask_logits, geometry, sample, features)
        process, rows = self.postprocessor, self.classifier.rows
        tasks = sample.metainfo.get('tasks', process.tasks)
        results = process(log_probs, mask_logits, geometry, rows.things,
                          tasks=[task for task in tasks if task in ('panoptic', 'instance')])
        logits = masks.full().to(mask_logits.device)
        if 'semantic' in tasks:
            options = self.proposals
            results.semantic = proposal_ensemble(
                log_probs.softmax(-1)[:, :-1], mask_logits, geometry, seen=rows.seen, sam_logits=logits,
                sam_probabilities=self.sam_probabilities(logits, geometry, features), epsilon=options.epsilon,
                threshold=options.threshold, scale_always=options.scale_always, order=process.semantic_order,
                return_scores=process.class_scores)
        if 'proposals' in tasks:
            results.proposals = self.all_proposals(mask_logits, logits, geometry)
        return results

    def all_proposals(self, mask_logits: Tensor, sam_logits: Tensor, geometry: MaskGeometry) -> Tensor:
        """(Q + M, H, W) bool at output size: masks of the queries (Q, h, w), then SAM's (M, H0, W0)."""
        whole = MaskGeometry.resize_to(geometry.output)
        if not self.official(self.proposals.postprocess_twice) or geometry.output == geometry.image:
            return torch.cat([all_masks(mask_logits, geometry), all_masks(sam_logits, whole)])
        # Parity: the official code cuts and resizes masks that have output size already once more
        padded = resize_masks(mask_logits[None], geometry.padded)[..., :geometry.image[0], :geometry.image[1]]
        both = [resize_masks(masks, geometry.output)[0] for masks in (padded, sam_logits[None])]
        again = torch.cat(both)[:, :geometry.image[0], :geometry.image[1]]
        return all_masks(again, whole)

    def official(self, choice: bool | None) -> bool:
        """An option that follows the classifier's `compat` where it is not set."""
        return self.classifier.compat if choice is None else choice

    def masks_of(self, sample: DetDataSample) -> SAMMasks | None:
        """SAM's masks of an image: those of the data sample, else those of the folder, else None.

        Raises:
            FileNotFoundError: a folder is configured, but holds none for this image.
            TypeError: the sample's `sam_masks` is something else.
        """
        given = sample.get('sam_masks')
        if given is not None and not isinstance(given, SAMMasks):
            raise TypeError(f'`sam_masks` of a data sample must be a SAMMasks, got {type(given).__name__}')
        if given is None and self.sam_masks is not None:
            return self.sam_masks.load(sample.img_path)
        return given

    def sam_probabilities(self, sam_logits: Tensor, geometry: MaskGeometry, features: TowerFeatures) -> Tensor:
        """Class probabilities (M, K) of SAM's masks (M, H, W) by the frozen branch; void takes part in the softmax."""
        size = tuple(features.map(self.dense_name).shape[-2:])
        if self.official(self.proposals.pad_before_pool):
            on_map = masks_on_map_compat(sam_logits, size, self.image_tower.input.patch)
        else:
            if self.frozen_pool != 'hard':  # areas want the masks' own resolution, that of the queries' masks
                size = (geometry.padded[0] // 4, geometry.padded[1] // 4)
            on_map = masks_on_map(sam_logits, size, image=geometry.image, padded=geometry.padded)
        embeddings, _ = self.frozen_embeddings(features, on_map[None])
        return self.classifier.frozen_logits(embeddings, void=True)[0].softmax(-1)[:, :-1]
