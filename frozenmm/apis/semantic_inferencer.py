"""Images in, maps of the classes that a model was trained on out: any segmentor of mmseg."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement, PixelData
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor

from frozenmm.apis.base import Inferencer
from frozenmm.apis.coco_entries import named_classes
from frozenmm.apis.image_pipeline import ImagePipeline, batch_of, class_names
from frozenmm.apis.model_sources import open_model, read_source
from frozenmm.apis.results import Result
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import VocabularyClass
from frozenmm.registry import INFERENCERS


@INFERENCERS.register_module()
class SemanticInferencer(Inferencer):
    """Runs any segmentor of mmseg on pictures, with the test pipeline of its config.

    Args:
        model: a config; the path of a config file; the name of a config that comes with frozenmm; or None where the
            weights bring their config.
        weights: checkpoint, the folder of a training run, or a file of `export_run`.
        device: where to compute, see `resolve_device`.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its author.

    Attributes:
        classes: names that the values of the maps index.

    Raises:
        UserError: no such config, checkpoint or device; the config builds no segmentor or says no class names, or the
            weights are another model's.
    """

    def __init__(self, model: Config | Mapping | str | Path | None, *, weights: str | Path | None = None,
                 device: str | torch.device = 'auto', trust_weights: bool = False) -> None:
        device = resolve_device(device)
        cfg, weights = read_source(model, weights)
        self.model: Any
        self.model, meta = open_model(cfg, weights, kinds=self.models(), wanted='a segmentor of mmseg', device=device,
                                      trusted=trust_weights)
        self.pipeline = ImagePipeline.of_config(cfg)
        self.classes = class_names(cfg, meta)
        if not self.classes:
            raise UserError('neither config nor weights say the class names; write metainfo=dict(classes=(...)) into '
                            'test_dataloader.dataset')

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """All segmentors of mmseg that no other inferencer names."""
        return (BaseSegmentor, )

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[Result]:
        """Samples with `pred_sem_seg.sem_seg` (1, H, W): class index at the image's size; and `classes`."""
        # images of different sizes do not share a batch in mmseg's preprocessor
        samples = [self.model.test_step(batch_of([self.pipeline(image)]))[0] for image in images]
        classes = named_classes(self.classes)
        return [map_result(sample.pred_sem_seg.data.cpu().long(), image, classes)
                for sample, image in zip(samples, images)]


def map_result(labels: Tensor, image: NamedImage, classes: Sequence[VocabularyClass]) -> Result:
    """The result of a map of classes (1, H, W)."""
    return Result.of(BaseDataElement(pred_sem_seg=PixelData(sem_seg=labels)), image, classes)
