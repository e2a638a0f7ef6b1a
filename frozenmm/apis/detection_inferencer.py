"""Images in, boxes (and masks, where the detector makes them) out."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config

from frozenmm.apis.base import Inferencer
from frozenmm.apis.coco_entries import named_classes
from frozenmm.apis.image_pipeline import ImagePipeline, batch_of, category_ids, class_names
from frozenmm.apis.model_sources import open_model, read_source
from frozenmm.apis.results import Result
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.image_sources import NamedImage
from frozenmm.registry import INFERENCERS


class SampleResult(Result, DetDataSample):
    """A result that is a data sample of mmdet."""


@INFERENCERS.register_module()
class DetectionInferencer(Inferencer):
    """Runs any mmdet detector, ours or upstream's, with the test pipeline of its config.

    Args:
        model: a config; the path of a config file; or the name of a config or of a checkpoint that comes with frozenmm.
        weights: checkpoint; None takes the zoo's where `model` names one of its checkpoints.
        device: where to compute, see `resolve_device`.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its
            author.

    Attributes:
        classes: names that labels index.
        category_ids: name -> category id of the data, None where nothing says it.

    Raises:
        UserError: no such config, checkpoint or device; the config builds no detector or has no test pipeline, or the
            weights are another model's.
    """

    def __init__(self, model: Config | Mapping | str | Path, *, weights: str | Path | None = None,
                 device: str | torch.device = 'auto', trust_weights: bool = False) -> None:
        device = resolve_device(device)
        cfg, weights = read_source(model, weights)
        self.model: Any
        self.model, meta = open_model(cfg, weights, kinds=self.models(), wanted='a detector of mmdet', device=device,
                                      trusted=trust_weights)
        self.pipeline = ImagePipeline.of_config(cfg)
        self.classes = class_names(cfg, meta)
        self.category_ids = category_ids(cfg, meta, self.classes)

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """All detectors of mmdet."""
        return (BaseDetector, )

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[SampleResult]:
        """Data samples on the CPU.

        Returns:
            One per image, with `pred_instances`, best first: `bboxes` (N, 4) xyxy in pixels of the image, `scores`,
            `labels`, `masks` if the detector makes them; and `classes`, the names that labels index.
        """
        results = []
        batch = batch_of([self.pipeline(image) for image in images])
        if hasattr(self.model, 'language_model'):  # mmdet's grounded detectors look for words
            for sample in batch['data_samples']:
                sample.set_metainfo(dict(text=self.classes, custom_entities=True))
        for image, sample in zip(images, self.model.test_step(batch)):
            found = sample.pred_instances
            sample.pred_instances = found[found.scores.argsort(descending=True, stable=True)]
            highest = int(found.labels.max()) + 1 if len(found) else 0
            results.append(SampleResult.of(sample.cpu(), image, named_classes(
                self.classes, highest, self.category_ids)))
        return results
