"""Images in, boxes (and masks, where the detector makes them) out."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config

from frozenmm.apis.base import Inferencer
from frozenmm.apis.image_pipeline import ImagePipeline, batch_of, class_names
from frozenmm.apis.model_sources import open_model, read_source
from frozenmm.apis.result_files import overlay, png, write_results
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.files import write_whole
from frozenmm.compat.image_sources import NamedImage
from frozenmm.foundation.vocabulary import Vocabulary
from frozenmm.registry import INFERENCERS
from frozenmm.visualization.detections import Boxes, draw_boxes, spread_palette


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

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """All detectors of mmdet."""
        return (BaseDetector, )

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[DetDataSample]:
        """Data samples on the CPU.

        Returns:
            One per image, with `pred_instances`, best first: `bboxes` (N, 4) xyxy in pixels of the image, `scores`,
            `labels`, `masks` if the detector makes them; and `classes`, the names that labels index.
        """
        samples = self.model.test_step(batch_of([self.pipeline(image) for image in images]))
        for sample in samples:
            highest = int(sample.pred_instances.labels.max()) + 1 if len(sample.pred_instances) else 0
            names = (*self.classes, *(f'class {label}' for label in range(len(self.classes), highest)))
            sample.set_metainfo(dict(classes=names))
            order = sample.pred_instances.scores.argsort(descending=True, stable=True)
            sample.pred_instances = sample.pred_instances[order]
        return [sample.cpu() for sample in samples]

    def draw(self, image: NamedImage, result: DetDataSample, *, min_score: float = 0.0) -> np.ndarray:
        """(H', W', 3) uint8 RGB, the picture with labelled boxes, or with masks and a legend."""
        if 'masks' in result.pred_instances:
            return overlay(image, result, Vocabulary.read(list(result.classes)), min_score=min_score)
        found = result.pred_instances[result.pred_instances.scores >= min_score]
        boxes = Boxes(found.bboxes.numpy(), found.labels.numpy(), found.scores.numpy())
        return draw_boxes(image.pixels, boxes, result.classes, spread_palette(len(result.classes)), width=800)

    def write(self, folder: Path, image: NamedImage, result: DetDataSample, *, min_score: float = 0.0) -> list[Path]:
        """Write `NAME_overlay.png` and `NAME.json`, boxes in COCO's result format; masks: see `write_results`."""
        if 'masks' in result.pred_instances:
            return write_results(folder, image, result, Vocabulary.read(list(result.classes)), min_score=min_score)
        paths = [folder / f'{image.name}_overlay.png', folder / f'{image.name}.json']
        write_whole(paths[0], png(self.draw(image, result, min_score=min_score)))
        write_whole(paths[1], json.dumps(self._entries(image, result), indent=1).encode())
        return paths

    def summary(self, result: DetDataSample, *, min_score: float = 0.0) -> str:
        """Names and scores of what was found."""
        found = result.pred_instances
        return ', '.join(f'{result.classes[int(label)]} {float(score):.2f}'
                         for label, score in zip(found.labels, found.scores) if score >= min_score) or 'nothing found'

    def _entries(self, image: NamedImage, result: DetDataSample) -> list[dict[str, Any]]:
        found = result.pred_instances
        return [dict(image_id=image.name, category_id=int(label), category=result.classes[int(label)],
                     score=float(score), bbox=[x1, y1, x2 - x1, y2 - y1])
                for (x1, y1, x2, y2), label, score in zip(found.bboxes.tolist(), found.labels, found.scores)]
