"""Images and a list of words in, labelled segments out."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import PixelData
from torch import Tensor, nn
from torch.nn.functional import interpolate

from frozenmm.apis.base import Inferencer
from frozenmm.apis.detection_inferencer import SampleResult
from frozenmm.apis.image_pipeline import ImagePipeline, batch_of
from frozenmm.apis.model_sources import load_weights, open_model, read_source
from frozenmm.apis.region_encoder import CellRegions, PictureRegions
from frozenmm.compat.devices import resolve_device
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import UserError
from frozenmm.foundation.class_memory import ClassMemory
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass, VocabularySource, same_word
from frozenmm.registry import INFERENCERS, installed
from frozenmm.segmentation.fc_clip.segmentor import MaskSegmentor
from frozenmm.segmentation.word_cells.segmentor import WordCellSegmentor

RESULTS: dict[str, tuple[str, ...]] = {
    'panoptic': ('panoptic', ), 'instance': ('instance', ), 'semantic': ('semantic', ),
    'all': ('semantic', 'panoptic', 'instance')}
"""What the inferencer's tasks ask of the model's post-processing."""
PLAIN_PIPELINE = (dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True), dict(type='mmdet.PackDetInputs'))
"""Of a built model, and of a config without data sets."""
THINNEST = 100
"""Long side through short side up to which a picture goes through the pipeline as it is."""


@INFERENCERS.register_module()
class OpenVocabularyInferencer(Inferencer):
    """Segments whatever can be named, with `FCCLIP` or `FrozenSeg`, or with a segmentor of mmseg (semantic maps only).

    The model is built once. `set_vocabulary` encodes words that are new and touches nothing else.

    Args:
        model: a built model; a config; the path of a config file; or the name of a config or of a
            checkpoint that comes with frozenmm.
        vocabulary: the classes, whatever `Vocabulary.read` understands; by default those of the config. Every entry of
            a list is a class, commas in it separate synonyms.
        weights: checkpoint of the trained part; None leaves the model as it is.
        device: where to compute, see `resolve_device`.
        task: `'panoptic'`, `'instance'`, `'semantic'` or `'all'` that the model can, where `predict` is not told.
        seen: (K,) which classes were trained; by default those that share a word with the training vocabulary.
        trust_weights: open a checkpoint that holds pickled objects. It could run code of its
            author.
        memory: examples of classes, or the file that holds them: they count beside the words, see `ClassMemory`.
            Without `vocabulary`, classes that have examples join those of the model.

    Attributes:
        memory: what knows the examples, None without.
        pipeline: what is done with an image before the model sees it: that of the config; of a built model, a resize
            to at most 1333 x 800 pixels.

    Raises:
        UserError: no such config, checkpoint or device; unusable vocabulary, unknown task, a seen mask that contradicts
            the words, or weights of another model.
    """

    def __init__(self, model: nn.Module | Config | Mapping | str | Path, vocabulary: VocabularySource | None = None, *,
                 weights: str | Path | None = None, device: str | torch.device = 'auto', task: str = 'all',
                 seen: Tensor | None = None, trust_weights: bool = False,
                 memory: ClassMemory | str | Path | None = None) -> None:
        # before anything slow, so that a mistake in them shows at once
        _check_task(task)
        self.device = resolve_device(device)
        words = None if vocabulary is None else Vocabulary.read(vocabulary)
        self.model: Any
        if isinstance(model, nn.Module):
            self.pipeline = ImagePipeline(PLAIN_PIPELINE)
            self.model = model.to(self.device).eval()
            if weights is not None:
                load_weights(self.model, weights, trusted=trust_weights)
        else:
            cfg, weights = read_source(model, weights)
            self.model, _ = open_model(cfg, weights, kinds=self.models(), device=self.device, trusted=trust_weights,
                                       wanted='an open-vocabulary model (FCCLIP, FrozenSeg, DenseCLIPSegmentor)')
            self.pipeline = ImagePipeline.of_config(cfg, otherwise=PLAIN_PIPELINE)
        # the part with the words: a segmentor of mmseg holds the model, a detector of mmdet is it
        self.core: Any = getattr(self.model, 'model', self.model)
        self.task = task
        self.memory = None if memory is None else self._remember(memory)
        self._model_words: Vocabulary | None = None
        if words is not None:
            self.set_vocabulary(words, seen=seen)
        elif memory is not None:
            self._model_words = self.vocabulary

    @classmethod
    def models(cls) -> tuple[type, ...]:
        """FC-CLIP, FrozenSeg and what else is built on their trunk, of mmdet and of mmseg; and training-free models."""
        if not installed('mmseg'):
            return MaskSegmentor, WordCellSegmentor
        from frozenmm.segmentation.dense_clip.segmentor import DenseCLIPSegmentor
        from frozenmm.segmentation.fc_clip.mmseg_segmentor import OpenVocabularySegmentor
        return MaskSegmentor, WordCellSegmentor, OpenVocabularySegmentor, DenseCLIPSegmentor

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes in use.

        Raises:
            UserError: there are none.
        """
        classifier = getattr(self.core, 'classifier', self.core)  # a training-free model knows its words itself
        found = classifier.vocabulary or classifier.train_vocabulary
        if found is None:
            raise UserError('there is no vocabulary: give `vocabulary=[...]`, or weights that carry one')
        return found

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Look for these classes from now on; only words that are new cost anything."""
        with self.turn:
            self.model.set_vocabulary(vocabulary, seen=seen)
            self._model_words = None

    def _remember(self, given: ClassMemory | str | Path) -> ClassMemory:
        memory = given if isinstance(given, ClassMemory) else ClassMemory(given)
        if isinstance(self.core, WordCellSegmentor):
            self.core.remember(memory)
            memory.attach(CellRegions(self.core, self._prepare))
            return memory
        if not isinstance(self.core, MaskSegmentor):
            raise UserError(f'{type(self.core).__name__} takes no memory of examples; FCCLIP, FrozenSeg and '
                            'WordCellSegmentor do')
        self.core.trunk.remember(memory)
        memory.attach(PictureRegions(self.model, self.core, self._prepare))
        return memory

    def _add_remembered(self) -> None:
        """Classes that have examples only, beside those of the model."""
        own = self._model_words
        if self.memory is None or own is None:
            return
        known = set(map(same_word, own.words))
        more = {same_word(name): name for name in reversed(self.memory.examples().names)}  # the first spelling stays
        added = tuple(VocabularyClass(name) for word, name in reversed(more.items()) if word not in known)
        if self.vocabulary.classes != (*own.classes, *added):
            self.model.set_vocabulary(Vocabulary((*own.classes, *added), own.name, True))

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage], *, task: str | None = None) -> list[SampleResult]:
        """Data samples at the images' sizes, on the CPU.

        Args:
            images: a batch.
            task: see the class, whose `task` is the default.

        Returns:
            One per image: `pred_panoptic_seg`, `pred_sem_seg`, `pred_instances` as the task asks; `segments_info` with
            scores; `classes`, the names that labels index.
        """
        wanted = _check_task(task or self.task)
        with self.turn:
            return self._predict(images, wanted)

    def _predict(self, images: Sequence[NamedImage], wanted: tuple[str, ...]) -> list[SampleResult]:
        self._add_remembered()
        words = tuple(self.vocabulary)
        prepared = [self._prepare(image) for image in images]
        for item in prepared:
            item['data_samples'].set_metainfo(dict(tasks=wanted))
        if isinstance(self.model, (MaskSegmentor, WordCellSegmentor)):
            samples = self.model.test_step(batch_of(prepared))
        else:
            # images of different sizes do not share a batch in mmseg's preprocessor
            samples = [_semantic(sample) for item in prepared for sample in self.model.test_step(batch_of([item]))]
        return [SampleResult.of(sample.cpu(), image, words) for sample, image in zip(samples, images)]

    def _prepare(self, image: NamedImage) -> dict[str, Any]:
        """What the pipeline gives, with sides of at least a patch of the tower, which has nothing to look at else."""
        height, width = image.pixels.shape[:2]
        item = self.pipeline(replace(image, pixels=_not_thin(image.pixels)))
        patch, size = self.core.image_tower.input.patch, item['inputs'].shape[-2:]
        if min(size) < patch:
            size = max(size[0], patch), max(size[1], patch)
            item['inputs'] = interpolate(item['inputs'][None].float(), size, mode='bilinear')[0]
            item['data_samples'].set_metainfo(dict(img_shape=size))
        item['data_samples'].set_metainfo(dict(ori_shape=(height, width)))
        return item


def _not_thin(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3), stretched if one side is so much shorter that nothing of it would survive a resize."""
    height, width = pixels.shape[:2]
    least = -(-max(height, width) // THINNEST)
    if min(height, width) >= least:
        return pixels
    return mmcv.imresize(pixels, (max(width, least), max(height, least)), interpolation='nearest')


def _check_task(task: str) -> tuple[str, ...]:
    if task not in RESULTS:
        raise UserError(f'task must be one of {list(RESULTS)}, got {task!r}')
    return RESULTS[task]


def _semantic(sample: Any) -> DetDataSample:
    """A data sample of mmseg as mmdet's."""
    found = DetDataSample(metainfo=sample.metainfo)
    found.pred_sem_seg = PixelData(sem_seg=sample.pred_sem_seg.data)
    if 'seg_logits' in sample:  # where the config keeps them
        found.seg_logits = sample.seg_logits
    return found
