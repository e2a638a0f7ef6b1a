"""The demonstration model for words: two frozen opinions per cell, grouped, and nothing where neither is sure."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.logging import print_log
from torch import Tensor, nn

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation import ImageTower
from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.image_towers.efficientnet_lite import EfficientNetLiteTower
from frozenmm.foundation.tower_building import build_tower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.foundation.wrapping_tower import WrappingTower
from frozenmm.ops.mask_ensemble import (
    MaskGeometry,
    SemanticMap,
    mask_ensemble_instance,
    mask_ensemble_panoptic,
)
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.postprocess import MaskResults, segment_scores
from frozenmm.segmentation.fc_clip.results import store
from frozenmm.segmentation.fc_clip.trunk import valid_sizes
from frozenmm.segmentation.options import built
from frozenmm.segmentation.word_cells.evidence import (
    MAPS,
    Calibration,
    CellHead,
    KnownWords,
    cells_of,
    opinions,
)
from frozenmm.segmentation.word_cells.grouping import Grouping, region_means
from frozenmm.segmentation.word_cells.remembered import HEAD_CHANNELS, CellMemory, region_vectors
from frozenmm.structures import ImageStats, TowerFeatures

_INSIDE = 20.0  # logit of a mask's pixels; the masks of the grouping are hard
TASKS = ('semantic', 'panoptic', 'instance')


@MODELS.register_module()
class WordCellSegmentor(BaseDetector):
    """Panoptic, instance and semantic segmentation by words, with networks that come from package registries.

    Each cell of a frozen EfficientNet-Lite0 is classified twice: by ImageNet's own classifier, whose classes a word
    gathers (`dog` all breeds), and by a small head trained on some panoptic pictures, for what ImageNet has no name
    for: people and stuff. Both are calibrated, so that their sum is no competition between the words asked for: where
    neither is sure, there is nothing. Regions of one look then take the word that fits best.

    Source: class activation maps (Zhou et al., CVPR 2016) as frozen opinion; the rest is ours.

    Args:
        tower: an `EfficientNetLiteTower` at the pipeline's resolution, one inside a `RememberingTower`, or its config.
        train_vocabulary: classes of the head.
        vocabulary: words to look for in eval mode; those of training by default.
        head: options of `CellHead`.
        calibration: options of `Calibration`.
        grouping: options of `Grouping`.
        least_score: segments that score below it are left out of panoptic and instance results.
        scales: sizes at which the tower sees a picture, relative to the pipeline's.
        data_preprocessor: see mmdet.
        init_cfg: see mmengine.

    Attributes:
        vocabulary: the words asked for.
        memory: examples of classes beside the words, see `remember`.

    Raises:
        WrongKind: another tower.
        UserError: unusable words or options.
    """

    def __init__(self, tower: ImageTower | Mapping[str, object], *, train_vocabulary: VocabularySource,
                 calibration: Mapping[str, object], vocabulary: VocabularySource | None = None,
                 head: Mapping[str, object] | None = None, grouping: Mapping[str, object] | None = None,
                 least_score: float = 0.6, scales: Sequence[float] = (2 / 3, 1.0),
                 data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.image_tower = build_tower(tower, part='word cells', resize_mode='none')
        if not isinstance(self._lite, EfficientNetLiteTower):
            raise WrongKind(f'tower must be an EfficientNetLiteTower, whose ImageNet classes are read; got '
                            f'{type(self._lite).__name__}')
        if not scales or min(scales) <= 0:
            raise UserError(f'scales must be positive sizes relative to the picture, got {list(scales)}')
        self.train_vocabulary = Vocabulary.read(train_vocabulary)
        self.head = built(CellHead, head, sum(self.image_tower.channels[name] for name in MAPS),
                          len(self.train_vocabulary))
        self.calibration, self.grouping = built(Calibration, calibration), built(Grouping, grouping)
        self.least_score, self.scales = least_score, tuple(scales)
        self.memory: CellMemory | None = None
        self.vocabulary = self.train_vocabulary
        self.words = KnownWords.of(self.vocabulary, self.train_vocabulary)
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Look for these words from now on.

        What neither ImageNet nor the head has a class for is said, as no picture will show it.

        Args:
            vocabulary: whatever `Vocabulary.read` understands.
            seen: of no meaning here: who knows a word decides.
        """
        self.vocabulary = Vocabulary.read(vocabulary)
        self.words = KnownWords.of(self.vocabulary, self.train_vocabulary)
        unknown = [entry.name for index, entry in enumerate(self.vocabulary) if not self.words.known(index)
                   and not (self.memory and self.memory.memory.examples().of_words(entry.words))]
        if unknown:
            print_log(f'this demonstration model has no class for {", ".join(map(repr, unknown))} and will find none: '
                      'it knows the 1000 classes of ImageNet and those of COCO', logger='current')

    def remember(self, memory: ClassMemory | None) -> None:
        """Name regions by these examples too; None: by words alone."""
        self.memory = None if memory is None else CellMemory(memory)

    @property
    def region_signature(self) -> dict[str, str | int]:
        """What decides the vectors of `region_vectors`, for a `ClassMemory`."""
        statistics = torch.stack([value.float() for value in self.head.norm.buffers() if value.dim()]).cpu().numpy()
        return dict(tower=self.image_tower.name, fingerprint=self.image_tower.fingerprint, map='cells',
                    cells=hashlib.sha256(statistics.tobytes()).hexdigest()[:8], scales=str(self.scales),
                    channels=HEAD_CHANNELS + self.head.norm.num_features)

    # ------------------------------------------------------------------------------------------------ training
    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Cross entropy of the head with the share of every class in each cell, over what has a label."""
        cells = cells_of(self.extract_feat(batch_inputs, batch_data_samples))
        count = len(self.train_vocabulary)
        labels = torch.stack([sample.gt_sem_seg.sem_seg[0] for sample in batch_data_samples]).to(batch_inputs.device)
        labels = F.interpolate(labels[:, None].float(), [4 * side for side in cells.shape[-2:]], mode='nearest')[:, 0]
        classes = F.one_hot(labels.long().clamp(0, count), count + 1).permute(0, 3, 1, 2).float()
        shares = F.avg_pool2d(classes, 4)[:, :count]
        cost = -(shares * self.head(cells).log_softmax(1)).sum()
        return dict(loss_cells=cost / shares.sum().clamp(min=1))

    def extract_feat(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None
                     ) -> TowerFeatures:
        """The frozen tower's features of a padded batch (B, 3, H, W)."""
        return self.image_tower(batch_inputs, valid_sizes(batch_inputs, batch_data_samples), self._stats)

    @property
    def _stats(self) -> ImageStats:
        return ImageStats.from_preprocessor(self.data_preprocessor)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None) -> Tensor:
        """Logits (B, K, H/16, W/16) of the head's classes."""
        return self.head(cells_of(self.extract_feat(batch_inputs, batch_data_samples)))

    # ------------------------------------------------------------------------------------------------ results
    @torch.no_grad()
    def predict(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample],
                rescale: bool = True) -> list[DetDataSample]:
        """The data samples of a batch (B, 3, H, W) with the results of all tasks, at original or network size.

        K is the label of pixels where there is nothing, in panoptic and semantic maps.
        """
        sizes = valid_sizes(batch_inputs, batch_data_samples)
        for index, (sample, (height, width)) in enumerate(zip(batch_data_samples, sizes)):
            output = (int(sample.ori_shape[0]), int(sample.ori_shape[1])) if rescale else (height, width)
            results = self.results(batch_inputs[index, None, :, :height, :width], output,
                                   sample.metainfo.get('tasks', TASKS))
            store(sample, results, len(self.vocabulary))
        return list(batch_data_samples)

    def results(self, image: Tensor, output: tuple[int, int], tasks: Sequence[str]) -> MaskResults:
        """Results of one image (1, 3, H, W) at a size."""
        regions, views = self.regions(image), self.views(image)
        probabilities = self.calibration.cells(*self.opinions(image, views), self.words).cpu()
        if self.memory is not None:
            vectors = self.region_vectors(views, F.one_hot(regions).permute(2, 0, 1).float())
            probabilities = self.memory(probabilities, regions, vectors, self.vocabulary)
        geometry = MaskGeometry((image.shape[-2], image.shape[-1]), (image.shape[-2], image.shape[-1]), output)
        found = [(word, mask, score) for word, mask in self.grouping.segments(probabilities, regions, self.words.things)
                 if (score := self.calibration.score(probabilities[word][mask].mean())) >= self.least_score]
        results, count = MaskResults(), len(self.vocabulary)
        # the last row is nothing, so that there is one
        masks = torch.stack([*(mask for _, mask, _ in found), torch.zeros_like(regions, dtype=torch.bool)])
        scores = probabilities.new_zeros(len(masks), count + 1)
        scores[-1, -1] = 1
        for row, (word, _, score) in enumerate(found):
            scores[row, word] = score
        logits = (masks.float() * 2 - 1) * _INSIDE
        things = self.words.things.nonzero()[:, 0].tolist()
        if 'semantic' in tasks:
            results.semantic = self.semantic(probabilities, regions, output)
        if 'panoptic' in tasks:
            results.panoptic = mask_ensemble_panoptic(scores, logits, geometry, thing_classes=things)
            results.segment_scores = segment_scores(results.panoptic, scores)
        if 'instance' in tasks:
            results.instance = mask_ensemble_instance(scores[:, :-1], logits, geometry, top_k=max(1, len(found)),
                                                      thing_classes=things if found else ())
        return results

    def semantic(self, probabilities: Tensor, regions: Tensor, output: tuple[int, int]) -> SemanticMap:
        """The word that fits each region best, K where none reaches the floor, at a size (H, W)."""
        best, words = region_means(probabilities, regions).max(0)
        labels = torch.where(best >= self.grouping.floor, words, len(probabilities))
        found = torch.stack([labels.float(), best])[:, regions]
        labels, scores = F.interpolate(found[None], output, mode='nearest')[0]
        return SemanticMap(labels.long(), scores, None)

    def regions(self, image: Tensor) -> Tensor:
        """(h, w) numbers of the regions of one image (1, 3, H, W) on the grouping's grid."""
        return self.grouping.regions(self._pixels(image))

    def views(self, image: Tensor) -> list[tuple[TowerFeatures, tuple[int, int]]]:
        """What the tower sees in one image (1, 3, H, W) at every scale, and the image's size there."""
        views = []
        for scale in self.scales:
            view = image if scale == 1 else F.interpolate(
                image, [max(32, round(side * scale)) for side in image.shape[-2:]], mode='bilinear',
                align_corners=False, antialias=True)
            size = (view.shape[-2], view.shape[-1])
            views.append((self.image_tower(view, [size], self._stats), size))
        return views

    def opinions(self, image: Tensor, views: list[tuple[TowerFeatures, tuple[int, int]]] | None = None
                 ) -> tuple[Tensor, Tensor]:
        """(K, h, w) twice, see `opinions`, on the grouping's grid, of one image (1, 3, H, W) and its `views`."""
        features, sizes = zip(*(self.views(image) if views is None else views))
        return opinions(self._lite, self.head, features, self.words, sizes, self.grouping.grid(*image.shape[-2:]))

    def region_vectors(self, views: list[tuple[TowerFeatures, tuple[int, int]]], masks: Tensor) -> Tensor:
        """(R, C) of regions (R, h, w) of an image with these `views`."""
        return region_vectors(self._lite, self.head.norm, views, masks)

    @property
    def _lite(self) -> EfficientNetLiteTower:
        found = self.image_tower.inner if isinstance(self.image_tower, WrappingTower) else self.image_tower
        return cast(EfficientNetLiteTower, found)

    def _pixels(self, image: Tensor) -> Tensor:
        """(3, h, w) RGB 0..255 on the grouping's grid."""
        mean, std = self._stats.tensors(image)
        pixels = F.interpolate(image * std + mean, self.grouping.grid(*image.shape[-2:]), mode='bilinear',
                               align_corners=False, antialias=True)[0]
        return pixels if self._stats.channel_order == 'rgb' else pixels.flip(0)
