"""Training-free segmentation by words as an mmseg segmentor."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.image_tower import ImageTower
from frozenmm.foundation.mask_prompters import MaskPrompter
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.tower_building import build_tower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import MODELS
from frozenmm.segmentation.dense_clip.labels import LabelRule
from frozenmm.segmentation.dense_clip.method import Method, method_of
from frozenmm.segmentation.dense_clip.model import DenseCLIP
from frozenmm.segmentation.dense_clip.pamr import PAMR
from frozenmm.segmentation.dense_clip.pictures import picture_of
from frozenmm.segmentation.dense_clip.sam_prompting import SamAsker
from frozenmm.segmentation.dense_clip.sam_reading import rounded_picture
from frozenmm.segmentation.dense_clip.sam_refinement import SamRefinement
from frozenmm.segmentation.dense_clip.text_rows import ClassRows
from frozenmm.segmentation.flipped_maps import unflipped
from frozenmm.segmentation.options import built
from frozenmm.structures import ImageStats

TEST_OPTIONS = ('mode', 'crop_size', 'stride', 'logits', 'windows_at_once')
Size = tuple[int, int]


@MODELS.register_module()
class DenseCLIPSegmentor(BaseSegmentor):
    """MaskCLIP, SCLIP, NACLIP, ProxyCLIP, Trident and RADSeg: nothing is trained, everything is frozen.

    Args:
        tower: a CLIP ViT or RADIO.
        text_tower: the text encoder of its space.
        vocabulary: the classes; class 0 is the background where `rule.threshold` is used. Also
            `dict(class_file=path, separator='; ')`, the official files of a class a line.
        method: `'maskclip'`, `'sclip'`, `'naclip'`, `'proxyclip'`, `'trident'`, `'radseg'`, `'clip'`, or
            `dict(name=..., ...)` with options of `Method`.
        proxy: tower whose similarities ProxyCLIP and Trident use (DINO, DINOv2, SAM, any).
        sam: a `SAMPrompter`, for Trident and for the refinement.
        rule: options of `LabelRule`.
        refine: `pamr=dict(...)`, options of `PAMR`; `sam=dict(...)`, options of `SamRefinement`.
        text: `templates` (80 of ImageNet by default), and `background`: words of a class `background` that is put
            before the others.
        test_cfg: `mode` `'whole'` (default) or `'slide'` with `crop_size` and `stride`; `logits=True` keeps the
            probabilities of all classes; `windows_at_once` per forward pass.
        data_preprocessor: see mmseg.
        init_cfg: see mmengine.
    """

    align_corners = False

    def __init__(self, tower: ImageTower | Mapping[str, Any], text_tower: TextTower | Mapping[str, Any],
                 vocabulary: VocabularySource | None = None, *, method: str | Mapping[str, Any] | Method = 'naclip',
                 proxy: ImageTower | Mapping[str, Any] | None = None,
                 sam: MaskPrompter | Mapping[str, Any] | None = None, rule: Mapping[str, Any] | None = None,
                 refine: Mapping[str, Any] | None = None, text: Mapping[str, Any] | None = None,
                 test_cfg: Mapping[str, Any] | None = None, data_preprocessor: Mapping[str, Any] | None = None,
                 init_cfg: Mapping[str, Any] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        part = type(self).__name__
        self.test_cfg = _checked(test_cfg)
        chosen = method_of(method)
        self.sam = MODELS.build(dict(sam)) if isinstance(sam, Mapping) else sam
        if self.sam is not None and not isinstance(self.sam, MaskPrompter):
            raise WrongKind(f"{part} needs sam=dict(type='frozenmm.SAMPrompter', ...), got {type(self.sam).__name__}")
        self.dense = DenseCLIP(
            build_tower(tower, part=part), chosen, sam=None if self.sam is None else self.sam.tower,
            proxy=None if proxy is None else build_tower(proxy, part=f'the proxy of {part}', resize_mode='none'),
            windows_at_once=self.test_cfg.windows_at_once)
        encoder = MODELS.build(dict(text_tower)) if isinstance(text_tower, Mapping) else text_tower
        if not isinstance(encoder, TextTower):
            raise WrongKind(f'{part} needs a text tower, got {type(encoder).__name__}')
        self.rows = built(ClassRows, text, encoder)
        self.rule = built(LabelRule, {'compat': chosen.compat, **(rule or {})})
        self._add_refinement(dict(refine or {}), compat=chosen.compat)
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    def _add_refinement(self, steps: dict[str, Any], *, compat: bool) -> None:
        unknown = sorted(set(steps) - {'pamr', 'sam'})
        if unknown:
            raise UserError(f"refine may have 'pamr' and 'sam', got {unknown}")
        pamr, sam = steps.get('pamr'), steps.get('sam')
        self.pamr = None if pamr is None else built(PAMR, pamr)
        self.refinement = None if sam is None else built(SamRefinement, {'compat': compat, **sam})
        self.asker = None if self.refinement is None else SamAsker(self.sam, compat=self.refinement.compat)
        if self.pamr is not None and self.rule.on_cells:
            raise UserError('PAMR refines cosines, which rule.on_cells=True never has at the size of the image')

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes in use, background included."""
        return self.rows.vocabulary

    @property
    def image_tower(self) -> ImageTower:
        """The tower, under the name that inferencers ask any open-vocabulary model for."""
        return self.dense.tower

    @property
    def out_channels(self) -> int:
        """Number of classes in use; mmseg's test-time augmentation asks for it."""
        return len(self.vocabulary)

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """Look for these classes from now on; they are encoded when the next image comes.

        Raises:
            UserError: `seen` is given, but nothing was trained.
        """
        if seen is not None:
            raise UserError('DenseCLIPSegmentor was trained on no classes, so there is no `seen` to give')
        self.rows.set(vocabulary)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """(B, D, rows, columns) of the changed last block, of images (B, 3, H, W) as a whole."""
        return self.dense.dense(self.dense.normalised(inputs, self._stats())).cells

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[Mapping[str, Any]]) -> Tensor:
        """Probabilities (B, K, H, W) of classes at the size of the batch."""
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        return torch.stack([self._classes(image[None], size, None) for image in inputs])

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """There is none.

        Raises:
            UserError: always.
        """
        raise UserError('DenseCLIPSegmentor has nothing to train: every part of it is frozen; test it')

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Data samples with `pred_sem_seg` at original size, and `seg_logits` (probabilities) if they are kept."""
        if data_samples is None:
            shape = tuple(inputs.shape[-2:])
            data_samples = [SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape)) for _ in inputs]
        stats = self._stats()
        for image, sample in zip(inputs, data_samples):
            height, width = sample.metainfo['img_shape'][:2]
            pixels = image[None, :, :height, :width]
            size = (int(sample.metainfo['ori_shape'][0]), int(sample.metainfo['ori_shape'][1]))
            picture = picture_of(sample.metainfo, pixels, stats) if self._needs_picture else None
            classes, labels = self.rule(self._classes(pixels, size, picture))
            if self.refinement is not None and self.asker is not None and picture is not None:
                decode, frame = self.asker.show(rounded_picture(picture, self.dense.trunk.patch))
                labels, classes = self.refinement(classes, labels, frame, decode)
            sample.pred_sem_seg = PixelData(data=unflipped(labels, sample.metainfo))
            if self.test_cfg.logits:
                sample.seg_logits = PixelData(data=unflipped(classes, sample.metainfo))
        return list(data_samples)

    def _forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """See `encode_decode`."""
        return self.encode_decode(inputs, [])

    @property
    def _needs_picture(self) -> bool:
        return self.dense.sam is not None or self.asker is not None

    def _stats(self) -> ImageStats:
        return ImageStats.from_preprocessor(self.data_preprocessor)

    def _classes(self, image: Tensor, size: Size, picture: Tensor | None) -> Tensor:
        """(K, *size) probabilities of the classes of an image (1, 3, H, W), before the rule."""
        text, index = self.rows.text(image.device)
        slide = self.test_cfg.mode == 'slide'
        cells = self.dense(image, text, self._stats(), picture=picture, crop=self.test_cfg.crop_size if slide else None,
                           stride=self.test_cfg.stride if slide else None)
        if self.pamr is None:
            return self.rule.on(cells, index, len(self.vocabulary), size)
        guide = F.interpolate(image, size, mode='bilinear', align_corners=False)
        cosines = self.pamr(guide, cells.at(size))[0]
        return self.rule.classes(self.rule.probabilities(cosines), index, len(self.vocabulary))


def _checked(test_cfg: Mapping[str, Any] | None) -> ConfigDict:
    """`test_cfg` with all its keys."""
    options = ConfigDict(dict(mode='whole', logits=False, windows_at_once=8))
    options.update(test_cfg or {})
    unknown = [key for key in options if key not in TEST_OPTIONS]
    if unknown:
        raise UserError(f'test_cfg has no {unknown[0]!r}; it may have {list(TEST_OPTIONS)}')
    if options.mode not in ('whole', 'slide'):
        raise UserError(f"test_cfg.mode must be 'whole' or 'slide', got {options.mode!r}")
    if options.mode == 'slide':
        for key in ('crop_size', 'stride'):
            value = options.get(key)
            if not isinstance(value, Sequence) or len(value) != 2 or min(value) < 1:
                raise UserError(f"test_cfg.mode='slide' needs {key}=(height, width) in pixels, got {value!r}")
            options[key] = (int(value[0]), int(value[1]))
    return options

