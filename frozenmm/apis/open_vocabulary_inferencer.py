"""Images and a list of words in, labelled segments out."""
from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor

from frozenmm.apis.image_sources import NamedImage, read_images
from frozenmm.apis.result_files import overlay, write_results
from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import INFERENCERS, MODELS
from frozenmm.segmentation.fc_clip.segmentor import FCCLIP

TASKS: dict[str, tuple[str, ...]] = {
    'panoptic': ('panoptic', ), 'instance': ('instance', ), 'semantic': ('semantic', ),
    'all': ('semantic', 'panoptic', 'instance')}
DEFAULT_SIZE = (1333, 800)
_CONFIGS = (Path(__file__).parents[2] / 'configs', Path(__file__).parents[1] / '.mim' / 'configs')


@INFERENCERS.register_module()
class OpenVocabularyInferencer:
    """Segments whatever can be named, with `FCCLIP` or `FrozenSeg`.

    The model is built once. `set_vocabulary` encodes words that are new and touches nothing else.

    Args:
        model: a built `FCCLIP`; a config; the path of a config file; or the name of one that comes with frozenmm.
        vocabulary: the classes, whatever `Vocabulary.read` understands; by default those of the config. Every entry of
            a list is a class, commas in it separate synonyms.
        weights: checkpoint of the trained part; None leaves the model as it is.
        device: where to compute.
        task: `'panoptic'`, `'instance'`, `'semantic'` or `'all'`.
        seen: (K,) which classes were trained; by default those that share a word with the training vocabulary.
        trust_weights: open a checkpoint that holds pickled objects (as training writes them). It could run code of its
            author.

    Raises:
        ValueError: unusable vocabulary, unknown task, a seen mask that contradicts the words, or weights of another
            model.
        FileNotFoundError: no such config or checkpoint.
    """

    def __init__(self, model: FCCLIP | Config | Mapping | str | Path, vocabulary: VocabularySource | None = None, *,
                 weights: str | Path | None = None, device: str | torch.device = 'cpu', task: str = 'all',
                 seen: Tensor | None = None, trust_weights: bool = False) -> None:
        if task not in TASKS:
            raise ValueError(f'task must be one of {list(TASKS)}, got {task!r}')
        # before anything slow, so that a mistake in it shows at once
        words = None if vocabulary is None else Vocabulary.read(vocabulary)
        register_all_modules(init_default_scope=False)
        cfg = None
        if not isinstance(model, FCCLIP):
            cfg = read_config(model)
            # names without scope are those of the config's, as when its Runner builds it
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
                model = MODELS.build(cfg.model)
            if not isinstance(model, FCCLIP):
                raise ValueError(f'the config builds a {type(model).__name__}; an open-vocabulary model (FCCLIP, '
                                 'FrozenSeg) is needed')
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

    def __call__(self, images: Any, *, batch_size: int = 1, out_dir: str | Path | None = None, min_score: float = 0.0,
                 channel_order: str = 'rgb') -> list[DetDataSample]:
        """Results of all images, on the CPU; see `stream`, which does not keep them."""
        return [sample for _, sample in self.stream(images, batch_size=batch_size, out_dir=out_dir, min_score=min_score,
                                                    channel_order=channel_order)]

    def stream(self, images: Any, *, batch_size: int = 1, out_dir: str | Path | None = None, min_score: float = 0.0,
               channel_order: str = 'rgb') -> Iterator[tuple[NamedImage, DetDataSample]]:
        """Every image with its result, one after the other.

        Args:
            images: see `read_images`: path, folder, video, array, PIL picture, or a list of these.
            batch_size: images that go through the network together.
            out_dir: write result files into this folder, see `write_results`.
            min_score: segments below it are not drawn.
            channel_order: of arrays, `'rgb'` or `'bgr'`.

        Yields:
            The image, and a data sample at its size: `pred_panoptic_seg`, `pred_sem_seg`, `pred_instances` as the task
            asks; `segments_info` with scores; `classes`, the names that labels index.

        Raises:
            FileNotFoundError, ValueError, TypeError: see `read_images`.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, got {batch_size}')
        source = read_images(images, channel_order=channel_order)
        while batch := list(islice(source, batch_size)):
            for image, sample in zip(batch, self.predict(batch)):
                if out_dir is not None:
                    write_results(Path(out_dir), image, sample, self.vocabulary, min_score=min_score)
                yield image, sample

    @torch.no_grad()
    def predict(self, images: Sequence[NamedImage]) -> list[DetDataSample]:
        """Results of one batch, on the CPU."""
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

    def draw(self, image: NamedImage, sample: DetDataSample, *, min_score: float = 0.0) -> Any:
        """(H', W', 3) uint8 RGB, the picture with its segments and a legend."""
        return overlay(image, sample, self.vocabulary, min_score=min_score)

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


def read_config(model: Config | Mapping | str | Path) -> Config:
    """A config from what a user names it by.

    Raises:
        FileNotFoundError: no such file, nor one of that name among those of frozenmm; the text lists near ones.
        ValueError: it has no model.
    """
    if isinstance(model, (str, Path)):
        path = Path(model).expanduser()
        if not path.is_file():
            path = _named_config(str(model))
        cfg = Config.fromfile(path)
    else:
        cfg = model if isinstance(model, Config) else Config(dict(model))
    if 'model' not in cfg:
        raise ValueError('the config has no `model`; give a whole config, or build the model yourself')
    return cfg


def _named_config(name: str) -> Path:
    files = {path.stem: path for folder in _CONFIGS for system in ('fc_clip', 'frozen_seg')
             for path in sorted((folder / system).glob('*.py'))}
    stem = name.removesuffix('.py')
    if stem in files:
        return files[stem]
    near = [file for file in files if file.startswith(stem)][:3] \
        or difflib.get_close_matches(stem, list(files), n=3, cutoff=0.3) or sorted(files)
    raise FileNotFoundError(f'{name!r} is neither a config file nor the name of one of ours; nearest: '
                            f'{", ".join(near)}')


def load_weights(model: FCCLIP, weights: str | Path, *, trusted: bool = False) -> None:
    """Load the trained part of a model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unsafe or corrupt, or of another model; the text names what differs.
    """
    content = load_checkpoint_file(weights, trusted=trusted)
    state = content.get('state_dict', content)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise ValueError(f'{weights} does not fit the model: {lines[0][:300] if lines else error}; is it the '
                         'checkpoint of another config?') from None


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
