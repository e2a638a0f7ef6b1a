"""FC-CLIP as an mmdet model: one frozen convolutional tower, a light decoder, any words."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from frozenmm.deprecation import renamed_arguments
from frozenmm.foundation import ImageTower
from frozenmm.foundation.vocabulary import VocabularySource
from frozenmm.ops.mask_ensemble import MaskGeometry
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.postprocess import MaskResults
from frozenmm.segmentation.fc_clip.results import store
from frozenmm.segmentation.fc_clip.trunk import MaskTrunk, build_trunk, valid_sizes
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.segmentation.mask2former.generator import MaskGenerator
from frozenmm.segmentation.options import part
from frozenmm.structures import ImageStats, TowerFeatures


class MaskSegmentor(BaseDetector):
    """Mmdet's interface of a model that holds a `MaskTrunk`.

    Args:
        trunk: the parts; they become submodules under the names that checkpoints have.
        data_preprocessor: see mmdet; its normalisation is undone and redone for the tower, so any will do.
        init_cfg: see mmengine.
    """

    def __init__(self, trunk: MaskTrunk, *, data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.trunk = trunk
        self.image_tower, self.mask_generator, self.classifier = trunk.tower, trunk.mask_generator, trunk.classifier
        self.criterion, self.frozen_head = trunk.criterion, trunk.frozen_head
        self.postprocessor = trunk.postprocessor

    @abstractmethod
    def generate(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None, *,
                 all_layers: bool) -> tuple[list[MaskProposals], TowerFeatures]:
        """Mask proposals of a batch (B, 3, H, W), and the frozen features that the classifier looks at."""

    @abstractmethod
    def results(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                rescale: bool = True) -> list[MaskResults]:
        """Results of all tasks on a batch (B, 3, H, W), one per image."""

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Predict these classes from now on; see `MaskClassifier.set_vocabulary`."""
        self.classifier.set_vocabulary(vocabulary, seen=seen)

    def extract_feat(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None
                     ) -> TowerFeatures:
        """The frozen tower's features of a padded batch (B, 3, H, W)."""
        return self.image_tower(batch_inputs, valid_sizes(batch_inputs, batch_data_samples),
                                ImageStats.from_preprocessor(self.data_preprocessor))

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Losses of all prediction layers on a batch (B, 3, H, W) against the annotations."""
        proposals, _ = self.generate(batch_inputs, batch_data_samples, all_layers=True)
        return self.trunk.losses(proposals, batch_inputs, batch_data_samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample],
                rescale: bool = True) -> list[DetDataSample]:
        """The data samples of a batch (B, 3, H, W) with the results of all tasks, at original or network size."""
        results = self.results(batch_inputs, batch_data_samples, rescale=rescale)
        for sample, result in zip(batch_data_samples, results):
            store(sample, result, self.classifier.rows.num_classes)
        return list(batch_data_samples)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None
                 ) -> tuple[Tensor, Tensor]:
        """Logits of the trained branch (B, Q, K+1) and mask logits (B, Q, H/4, W/4), of the last layer."""
        proposals, _ = self.generate(batch_inputs, batch_data_samples, all_layers=False)
        return self.classifier(proposals[-1].embeddings), proposals[-1].mask_logits


@MODELS.register_module()
class FCCLIP(MaskSegmentor):
    """Open-vocabulary panoptic, instance and semantic segmentation.

    Three replaceable parts: `mask_generator` (trained), `classifier` (trained, holds the words), `postprocessor`.
    Source: Yu et al., Convolutions Die Hard (NeurIPS 2023).

    Args:
        tower: an `ImageTower` with maps res2..res5, or its config; it must keep the pipeline's resolution
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

    @renamed_arguments(removed_in='0.3', image_tower='tower')
    def __init__(self, tower: ImageTower | Mapping[str, object],
                 classifier: MaskClassifier | Mapping[str, object], *,
                 mask_generator: nn.Module | Mapping[str, object] | None = None,
                 criterion: Mapping[str, object] | None = None, postprocess: Mapping[str, object] | None = None,
                 frozen_head: Mapping[str, object] | None = None, frozen_pool: str = 'hard',
                 mask_padding: bool = False, data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        def generator(widths: list[int]) -> nn.Module:
            return part(MaskGenerator, mask_generator, widths)

        super().__init__(build_trunk(tower, classifier, generator, criterion=criterion, postprocess=postprocess,
                                     frozen_head=frozen_head, frozen_pool=frozen_pool, mask_padding=mask_padding),
                         data_preprocessor=data_preprocessor, init_cfg=init_cfg)

    def generate(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None, *,
                 all_layers: bool) -> tuple[list[MaskProposals], TowerFeatures]:
        """Mask proposals of a batch (B, 3, H, W), and the frozen features that the classifier looks at."""
        features = self.extract_feat(batch_inputs, batch_data_samples)
        padding = self.trunk.padding(batch_inputs, batch_data_samples)
        return self.trunk.propose(features, all_layers=all_layers, padding=padding), features

    def results(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                rescale: bool = True) -> list[MaskResults]:
        """Results of all tasks on a batch (B, 3, H, W), one per image."""
        proposals, features = self.generate(batch_inputs, batch_data_samples, all_layers=False)
        geometries = self.trunk.geometries(batch_inputs, batch_data_samples, rescale=rescale)
        return self.trunk.results(proposals[-1], features, geometries, batch_data_samples)

    def finish(self, log_probs: Tensor, mask_logits: Tensor, geometry: MaskGeometry, sample: DetDataSample,
               features: TowerFeatures) -> MaskResults:
        """Results of one image from its log probabilities (Q, K+1) and mask logits (Q, h, w)."""
        return self.trunk.finish(log_probs, mask_logits, geometry, sample, features)
