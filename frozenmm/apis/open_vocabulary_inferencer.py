"""Images and a list of words in, labelled segments out."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from frozenmm.apis.base import Inferencer
from frozenmm.apis.image_sources import NamedImage
from frozenmm.apis.model_sources import build_model, load_weights, read_source
from frozenmm.apis.result_files import overlay, write_results
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import INFERENCERS
from frozenmm.segmentation.fc_clip.segmentor import MaskSegmentor
from frozenmm.visualization.segment_map import segment_map

TASKS: dict[str, tuple[str, ...]] = {
    'panoptic': ('panoptic', ), 'instance': ('instance', ), 'semantic': ('semantic', ),
    'all': ('semantic', 'panoptic', 'instance')}
DEFAULT_SIZE = (1333, 800)


@INFERENCERS.register_module()
class OpenVocabularyInferencer(Inferencer):
    """Segments whatever can be named, with `FCCLIP` or `FrozenSeg`.

    The model is built once. `set_vocabulary` encodes words that are new and touches nothing else.

    Args:
        model: a built `FCCLIP`; a config; the path of a config file; or the name of a config or of a
            checkpoint that comes with frozenmm.
        vocabulary: the classes, whatever `Vocabulary.read` understands; by default those of the config. Every entry of
            a list is a class, commas in it separate synonyms.
        weights: checkpoint of the trained part; None leaves the model as it is.
        device: where to compute.
        task: `'panoptic'`, `'instance'`, `'semantic'` or `'all'`.
        seen: (K,) which classes were trained; by default those that share a word with the training vocabulary.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its
            author.

    Raises:
        ValueError: unusable vocabulary, unknown task, a seen mask that contradicts the words, or weights of another
            model.
        FileNotFoundError: no such config or checkpoint.
    """

    def __init__(self, model: MaskSegmentor | Config | Mapping | str | Path,
                 vocabulary: VocabularySource | None = None, *,
                 weights: str | Path | None = None, device: str | torch.device = 'cpu', task: str = 'all',
                 seen: Tensor | None = None, trust_weights: bool = False) -> None:
        if task not in TASKS:
            raise ValueError(f'task must be one of {list(TASKS)}, got {task!r}')
        # before anything slow, so that a mistake in it shows at once
        words = None if vocabulary is None else Vocabulary.read(vocabulary)
        cfg = None
        if not isinstance(model, MaskSegmentor):
            cfg, weights = read_source(model, weights)
            built = build_model(cfg)
            if not isinstance(built, MaskSegmentor):
                raise ValueError(f'the config builds a {type(built).__name__}; an open-vocabulary model (FCCLIP, '
                                 'FrozenSeg) is needed')
            model = built
            if weights is None:
                print_log('no weights are given: the decoder is untrained and its masks mean nothing', logger='current')
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        if weights is not None:
            load_weights(self.model, weights, trusted=trust_weights)
        self.tasks = TASKS[task]
        self.size, self.as_float = _test_size(cfg)
        if words is not None:
            self.set_vocabulary(words, seen=seen)

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes in use.

        Raises:
            ValueError: there are none.
        """
        classifier = self.model.classifier
        found = classifier.vocabulary or classifier.train_vocabulary
        if found is None:
            raise ValueError('there is no vocabulary: give `vocabulary=[...]`, or weights that carry one')
        return found

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Look for these classes from now on; only words that are new cost anything."""
        self.model.set_vocabulary(vocabulary, seen=seen)

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[DetDataSample]:
        """Data samples at the images' sizes, on the CPU.

        Returns:
            One per image: `pred_panoptic_seg`, `pred_sem_seg`, `pred_instances` as the task asks; `segments_info` with
            scores; `classes`, the names that labels index.
        """
        names = tuple(self.vocabulary.names)
        prepared = [self._prepare(image) for image in images]
        postprocessor = self.model.postprocessor
        configured, postprocessor.tasks = postprocessor.tasks, self.tasks
        try:
            samples = self.model.test_step(dict(inputs=[pixels for pixels, _ in prepared],
                                                data_samples=[sample for _, sample in prepared]))
        finally:
            postprocessor.tasks = configured
        for sample in samples:
            sample.set_metainfo(dict(classes=names))
        return [sample.cpu() for sample in samples]

    def draw(self, image: NamedImage, result: DetDataSample, *, min_score: float = 0.0) -> np.ndarray:
        """(H', W', 3) uint8 RGB, the picture with its segments and a legend."""
        return overlay(image, result, self.vocabulary, min_score=min_score)

    def draw_frame(self, image: NamedImage, result: DetDataSample, *, min_score: float = 0.0) -> np.ndarray:
        """The picture with its segments, without a legend, whose height would change from frame to frame."""
        return overlay(image, result, self.vocabulary, min_score=min_score, legend=False)

    def write(self, folder: Path, image: NamedImage, result: DetDataSample, *, min_score: float = 0.0) -> list[Path]:
        """Write the files of `write_results`."""
        return write_results(folder, image, result, self.vocabulary, min_score=min_score)

    def summary(self, result: DetDataSample, *, min_score: float = 0.0) -> str:
        """Names and scores of the segments, best first; names alone for a semantic map."""
        _, segments = segment_map(result)
        segments = [info for info in segments if info['score'] is None or info['score'] >= min_score]
        segments.sort(key=lambda info: -(info['score'] or 0))
        names = [result.classes[info['category_id']] for info in segments]
        scores = ['' if info['score'] is None else f' {info["score"]:.2f}' for info in segments]
        return ', '.join(map(''.join, zip(names, scores))) or 'nothing found'

    def _prepare(self, image: NamedImage) -> tuple[Tensor, DetDataSample]:
        """The resized picture (3, H, W) in BGR, as mmdet's pipelines give it, and its data sample."""
        height, width = image.pixels.shape[:2]
        new = _fitted((height, width), self.size, self.model.image_tower.input.patch)
        pixels = np.ascontiguousarray(image.pixels[..., ::-1], np.float32 if self.as_float else np.uint8)
        pixels = mmcv.imresize(pixels, new[::-1], interpolation='bilinear')
        sample = DetDataSample(metainfo=dict(
            img_path=image.path, img_id=image.name, ori_shape=(height, width), img_shape=new,
            scale_factor=(new[1] / width, new[0] / height)))
        return torch.from_numpy(pixels).permute(2, 0, 1), sample


def _fitted(size: tuple[int, int], limits: tuple[int, int], smallest: int) -> tuple[int, int]:
    """Height and width scaled to fit a long and a short side, as mmdet's `Resize` does.

    A side that gets shorter than `smallest` is stretched to it, since the network needs a patch to look at.
    """
    scale = min(max(limits) / max(size), min(limits) / min(size))
    return max(smallest, int(size[0] * scale + 0.5)), max(smallest, int(size[1] * scale + 0.5))


def _test_size(cfg: Config | None) -> tuple[tuple[int, int], bool]:
    """The size that the config resizes test images to, and whether it does so in float32."""
    pipeline: Sequence[Mapping] = ()
    if cfg is not None and cfg.get('test_dataloader') is not None:
        pipeline = cfg.test_dataloader.dataset.get('pipeline', ())
    size, as_float = DEFAULT_SIZE, False
    for step in pipeline:
        if step['type'].endswith('Resize') and 'scale' in step:
            size = (int(step['scale'][0]), int(step['scale'][1]))
        if step['type'].endswith('LoadImageFromFile'):
            as_float = bool(step.get('to_float32', False))
    return size, as_float
