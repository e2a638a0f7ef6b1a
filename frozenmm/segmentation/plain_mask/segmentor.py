"""PMT as an mmdet model: one frozen tower, a plain decoder on its taps, the classes of training."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from mmdet.structures import DetDataSample
from torch import Tensor, nn

from frozenmm.errors import UserError
from frozenmm.foundation import ImageTower
from frozenmm.foundation.tower_building import build_tower
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.classifier import MaskClassifier
from frozenmm.segmentation.fc_clip.postprocess import MaskPostprocessor, MaskResults
from frozenmm.segmentation.fc_clip.segmentor import MaskSegmentor
from frozenmm.segmentation.fc_clip.trunk import MaskTrunk, tower_at_resolution, valid_sizes
from frozenmm.segmentation.mask2former.criterion import SetCriterion
from frozenmm.segmentation.mask2former.decoder import MaskProposals
from frozenmm.segmentation.mask2former.padding import Padding
from frozenmm.segmentation.options import built
from frozenmm.segmentation.plain_mask.classifier import ClosedSetClassifier
from frozenmm.segmentation.plain_mask.decoder import PlainMaskDecoder
from frozenmm.segmentation.plain_mask.taps import TapReader
from frozenmm.structures import TowerFeatures


@MODELS.register_module()
class PlainMaskSegmentor(MaskSegmentor):
    """Panoptic, instance and semantic segmentation of a closed set of classes.

    Source: PMT (arXiv 2603.25398).

    Args:
        tower: an `ImageTower` or its config. It keeps the pipeline's resolution and gives the taps; a config need not
            say so.
        classifier: options of `ClosedSetClassifier` but `channels`; or a module in its place, e.g. a `MaskClassifier`
            with `ensemble=dict(frozen=False)` and the decoder's width, which reads free words.
        taps: blocks of a ViT, counted from 0, or names of maps.
        stride: see `TapReader`.
        mask_generator: options of `PlainMaskDecoder` but `in_channels` and `stride`.
        criterion: options of `SetCriterion`.
        postprocess: options of `MaskPostprocessor`.
        data_preprocessor: see mmdet; its normalisation is undone and redone for the tower, so any will do.
        init_cfg: see mmengine.

    Raises:
        UserError: taps that the tower does not give, or a classifier with a frozen branch.
    """

    def __init__(self, tower: ImageTower | Mapping[str, object], classifier: nn.Module | Mapping[str, object], *,
                 taps: Sequence[int | str], stride: int | None = None,
                 mask_generator: Mapping[str, object] | None = None, criterion: Mapping[str, object] | None = None,
                 postprocess: Mapping[str, object] | None = None,
                 data_preprocessor: nn.Module | Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        blocks = [tap for tap in taps if isinstance(tap, int)]
        wanted: dict[str, object] = {'taps': blocks} if blocks else {}
        tower = tower_at_resolution(build_tower(tower, part='PlainMaskSegmentor', resize_mode='none', **wanted))
        reader = TapReader(tower, taps, stride)
        decoder = built(PlainMaskDecoder, {**(mask_generator or {}), 'stride': reader.stride}, reader.in_channels)
        holder = classifier if isinstance(classifier, nn.Module) else built(ClosedSetClassifier, classifier,
                                                                            decoder.channels)
        if getattr(holder, 'ensemble', False):
            raise UserError('PlainMaskSegmentor pools no frozen features, so its classifier has no frozen branch; set '
                            'ensemble=dict(frozen=False)')
        super().__init__(MaskTrunk(tower, decoder, cast(MaskClassifier, holder), built(SetCriterion, criterion),
                                   built(MaskPostprocessor, postprocess)),
                         data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.reader = reader

    def extract_feat(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None = None
                     ) -> TowerFeatures:
        """The frozen tower's features of a padded batch (B, 3, H, W); with `compat` it sees padding as it is."""
        return super().extract_feat(batch_inputs, None if self.mask_generator.compat else batch_data_samples)

    def generate(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None, *,
                 all_layers: bool) -> tuple[list[MaskProposals], TowerFeatures]:
        """Mask proposals of a batch (B, 3, H, W), and the frozen features."""
        features = self.extract_feat(batch_inputs, batch_data_samples)
        taps, grid = self.reader(features, self.trunk.canvas(batch_inputs))
        padding = self.padding(batch_inputs, batch_data_samples)
        return self.mask_generator(taps, grid, all_layers=all_layers, padding=padding), features

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """Losses of all predictions on a batch (B, 3, H, W); masks are made at points and of matched queries only."""
        features = self.extract_feat(batch_inputs, batch_data_samples)
        taps, grid = self.reader(features, self.trunk.canvas(batch_inputs))
        padding = self.padding(batch_inputs, batch_data_samples)
        decoder = cast(PlainMaskDecoder, self.mask_generator)
        predictions = decoder.predictions(taps, grid, all_layers=self.training, padding=padding)
        return self.trunk.losses(predictions, batch_inputs, batch_data_samples)

    def results(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample], *,
                rescale: bool = True) -> list[MaskResults]:
        """Results of all tasks on a batch (B, 3, H, W), one per image."""
        proposals, features = self.generate(batch_inputs, batch_data_samples, all_layers=False)
        geometries = self.trunk.geometries(batch_inputs, batch_data_samples, rescale=rescale)
        return self.trunk.results(proposals[-1], features, geometries, batch_data_samples)

    def padding(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample] | None) -> Padding | None:
        """The padding of a batch (B, 3, H, W) to leave out; None where there is none, or where it takes part."""
        sizes, canvas = valid_sizes(batch_inputs, batch_data_samples), self.trunk.canvas(batch_inputs)
        if self.mask_generator.compat or all(size == canvas for size in sizes):
            return None
        return Padding(sizes, canvas, batch_inputs.device)
