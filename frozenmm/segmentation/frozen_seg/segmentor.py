"""FrozenSeg as an mmdet model: FC-CLIP, a frozen SAM beside the frozen CLIP, and SAM's masks where they are at hand."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from frozenmm.deprecation import grouped_arguments, renamed_arguments
from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation import ImageTower
from frozenmm.ops.mask_ensemble import MaskGeometry
from frozenmm.ops.mask_pool import resize_masks
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.postprocess import MaskResults, all_masks
from frozenmm.segmentation.fc_clip.segmentor import MaskSegmentor
from frozenmm.segmentation.fc_clip.trunk import build_trunk, tower_at_resolution, valid_sizes
from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks
from frozenmm.segmentation.frozen_seg.generator import InjectedMaskGenerator
from frozenmm.segmentation.frozen_seg.mask_files import SAMMaskFolder
from frozenmm.segmentation.frozen_seg.proposal_ensemble import SAMVotes, proposal_ensemble
from frozenmm.segmentation.frozen_seg.sam_input import normalise_and_pad, stretch
from frozenmm.segmentation.frozen_seg.sam_masks import SAMMasks, masks_on_map, masks_on_map_compat
from frozenmm.segmentation.frozen_seg.vote_options import VoteOptions
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.segmentation.mask2former.generator import MaskGenerator
from frozenmm.segmentation.options import built, part
from frozenmm.structures import ImageStats, TowerFeatures


@MODELS.register_module()
class FrozenSeg(MaskSegmentor):
    """Open-vocabulary segmentation with spatial knowledge of SAM, around the trunk of FC-CLIP.

    Source: Chen et al., FrozenSeg (arXiv 2409.03525). SAM's image features enter the mask generator; SAM's automatic
    masks may vote in the semantic result. A data sample brings its masks in the field `sam_masks` (a `SAMMasks`), or
    they come from a folder, or they are computed at test time and left in that field; an image with none gets the plain
    semantic result.

    Args:
        tower: see `FCCLIP`.
        sam_tower: a `SAMTower`, `MobileSAMTower` or `DemoSAMTower`, or its config; kept at the resolution that this
            model stretches to. None: no injectors, so this is FC-CLIP, loads its checkpoints, and lets masks vote.
        classifier: see `FCCLIP`; likewise criterion, postprocess, frozen_head, frozen_pool, mask_padding,
            data_preprocessor and init_cfg.
        mask_generator: options of `InjectedMaskGenerator` but the widths, or a module with its signature.
        sam_masks: options of `VoteOptions`: where SAM's masks come from and how they vote.
    """

    @renamed_arguments(removed_in='0.3', image_tower='tower')
    @grouped_arguments(removed_in='0.3', sam_masks=dict(automatic_masks='automatic', proposals='proposals'))
    def __init__(self, tower: ImageTower | Mapping[str, object],
                 sam_tower: ImageTower | Mapping[str, object] | None,
                 classifier: MaskClassifier | Mapping[str, object], *,
                 mask_generator: nn.Module | Mapping[str, object] | None = None,
                 criterion: Mapping[str, object] | None = None, postprocess: Mapping[str, object] | None = None,
                 frozen_head: Mapping[str, object] | None = None, frozen_pool: str = 'hard',
                 mask_padding: bool = False, sam_masks: Mapping[str, object] | None = None,
                 data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        sam_tower = None if sam_tower is None else tower_at_resolution(sam_tower)

        def generator(widths: list[int]) -> nn.Module:
            if sam_tower is None:
                return part(MaskGenerator, mask_generator, widths)
            return part(InjectedMaskGenerator, mask_generator, widths, list(sam_tower.channels.values())[-1])

        super().__init__(build_trunk(tower, classifier, generator, criterion=criterion, postprocess=postprocess,
                                     frozen_head=frozen_head, frozen_pool=frozen_pool, mask_padding=mask_padding),
                         data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.sam_tower = sam_tower
        self.votes = VoteOptions.read(sam_masks)
        self.sam_masks = None if self.votes.folder is None else SAMMaskFolder(
            self.votes.folder, choice=self.votes.choice, count=self.votes.count)
        self.automatic_masks = None if self.votes.automatic is None else built(AutomaticMasks, self.votes.automatic)

    def generate(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None, *,
                 all_layers: bool) -> tuple[list[MaskProposals], TowerFeatures]:
        """Mask proposals of a batch (B, 3, H, W), and the frozen features that the classifier looks at."""
        features = self.extract_feat(batch_inputs, batch_data_samples)
        more = () if self.sam_tower is None else (self.sam_embedding(batch_inputs, batch_data_samples),)
        padding = self.trunk.padding(batch_inputs, batch_data_samples)
        return self.trunk.propose(features, *more, all_layers=all_layers, padding=padding), features

    def sam_embedding(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None) -> Tensor:
        """SAM's embedding (B, C, h, w) of the padded batch, stretched to SAM's square input.

        Raises:
            UserError: there is no SAM tower.
        """
        if self.sam_tower is None:
            raise UserError('this model has no SAM tower; build it with `sam_tower`')
        stats = ImageStats.from_preprocessor(self.data_preprocessor)
        size, target = self.sam_tower.input.size, self.sam_tower.input.stats
        padded = normalise_and_pad(batch_inputs, valid_sizes(batch_inputs, batch_data_samples), stats,
                                   divisor=self.image_tower.input.patch, target=target)
        return self.sam_tower(stretch(padded, (size, size)), image_stats=target).map()

    # ------------------------------------------------------------------------------------------------ SAM's masks
    def results(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                rescale: bool = True) -> list[MaskResults]:
        """Results of all tasks on a batch (B, 3, H, W); masks that are to be made at test time are made first."""
        if self.automatic_masks is not None:
            self.add_masks(batch_inputs, batch_data_samples)
        proposals, features = self.generate(batch_inputs, batch_data_samples, all_layers=False)
        geometries = self.trunk.geometries(batch_inputs, batch_data_samples, rescale=rescale)
        return self.trunk.results(proposals[-1], features, geometries, batch_data_samples, finish=self.finish)

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenSeg:
        # the mask maker is no part of what is trained and saved, but follows the model's device
        super()._apply(fn, recurse)
        if self.automatic_masks is not None:
            self.automatic_masks.prompter._apply(fn, recurse)
        return self

    def add_masks(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> None:
        """Give the data samples of a batch (B, 3, H, W) that have no `sam_masks` theirs."""
        if self.automatic_masks is None:
            raise UserError('this model makes no SAM masks; build it with `automatic_masks`')
        stats = ImageStats.from_preprocessor(self.data_preprocessor)
        for image, shown, sample in zip(batch_inputs, valid_sizes(batch_inputs, batch_data_samples),
                                        batch_data_samples):
            if 'sam_masks' not in sample:
                features = self.automatic_masks.prompter.embed(image[None], [shown], stats)
                height, width = sample.ori_shape[:2]
                sample.sam_masks = self.automatic_masks.generate(features, shown, (height, width))

    def finish(self, log_probs: Tensor, mask_logits: Tensor, geometry: MaskGeometry, sample: DetDataSample,
               features: TowerFeatures) -> MaskResults:
        """Results of one image from log probabilities (Q, K+1) and mask logits (Q, h, w), SAM's masks taken in."""
        masks = self.masks_of(sample)
        if masks is None or len(masks.logits) == 0:
            return self.trunk.finish(log_probs, mask_logits, geometry, sample, features)
        process, rows = self.postprocessor, self.classifier.rows
        tasks = sample.metainfo.get('tasks', process.tasks)
        results = process(log_probs, mask_logits, geometry, rows.things,
                          tasks=[task for task in tasks if task in ('panoptic', 'instance')])
        logits = masks.full().to(mask_logits.device)
        if 'semantic' in tasks:
            options = self.votes
            votes = SAMVotes(logits, self.sam_probabilities(logits, geometry, features), epsilon=options.epsilon,
                             threshold=options.threshold, compat=options.compat is not False)
            results.semantic = proposal_ensemble(
                log_probs.softmax(-1)[:, :-1], mask_logits, geometry, seen=rows.seen, votes=votes,
                order=process.semantic_order, return_scores=process.class_scores)
        if 'proposals' in tasks:
            results.proposals = self.all_proposals(mask_logits, logits, geometry)
        return results

    def all_proposals(self, mask_logits: Tensor, sam_logits: Tensor, geometry: MaskGeometry) -> Tensor:
        """(Q + M, H, W) bool at output size: masks of the queries (Q, h, w), then SAM's (M, H0, W0)."""
        whole = MaskGeometry.resize_to(geometry.output)
        if not self.official(self.votes.postprocess_twice) or geometry.output == geometry.image:
            return torch.cat([all_masks(mask_logits, geometry), all_masks(sam_logits, whole)])
        # Parity: the official code cuts and resizes masks that have output size already once more
        padded = resize_masks(mask_logits[None], geometry.padded)[..., :geometry.image[0], :geometry.image[1]]
        both = [resize_masks(masks, geometry.output)[0] for masks in (padded, sam_logits[None])]
        again = torch.cat(both)[:, :geometry.image[0], :geometry.image[1]]
        return all_masks(again, whole)

    def official(self, choice: bool | None) -> bool:
        """An option that follows `votes.compat`, or else the classifier's, where it is not set."""
        return next(bool(value) for value in (choice, self.votes.compat, self.classifier.compat) if value is not None)

    def masks_of(self, sample: DetDataSample) -> SAMMasks | None:
        """SAM's masks of an image: those of the data sample, else those of the folder, else None.

        Raises:
            MissingFile: a folder is configured, but holds none for this image.
            WrongKind: the sample's `sam_masks` is something else.
        """
        given = sample.get('sam_masks')
        if given is not None and not isinstance(given, SAMMasks):
            raise WrongKind(f'`sam_masks` of a data sample must be a SAMMasks, got {type(given).__name__}')
        if given is None and self.sam_masks is not None:
            return self.sam_masks.load(sample.img_path)
        return given

    def sam_probabilities(self, sam_logits: Tensor, geometry: MaskGeometry, features: TowerFeatures) -> Tensor:
        """Class probabilities (M, K) of SAM's masks (M, H, W) by the frozen branch; void takes part in the softmax."""
        dense = features.map(self.trunk.dense_name)
        size = (dense.shape[-2], dense.shape[-1])
        if self.official(self.votes.pad_before_pool):
            on_map = masks_on_map_compat(sam_logits, size, self.image_tower.input.patch)
        else:
            if self.trunk.frozen_pool != 'hard':  # areas want the masks' own resolution, that of the queries' masks
                size = (geometry.padded[0] // 4, geometry.padded[1] // 4)
            on_map = masks_on_map(sam_logits, size, image=geometry.image, padded=geometry.padded)
        embeddings, _ = self.trunk.frozen_embeddings(features, on_map[None])
        return self.classifier.frozen_logits(embeddings, void=True)[0].softmax(-1)[:, :-1]
