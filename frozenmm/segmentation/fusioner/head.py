"""Fusioner as a decode head of mmseg: any frozen image tower in front, any frozen text tower inside."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from frozenmm.deprecation import grouped_arguments, renamed_arguments
from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.text_tower import TextTower
from frozenmm.foundation.vocabulary import Vocabulary, VocabularySource
from frozenmm.registry import MODELS
from frozenmm.segmentation.fusioner.class_texts import ClassTexts
from frozenmm.segmentation.fusioner.fusion import FusionTransformer
from frozenmm.segmentation.fusioner.network import CLASS_MODES, FusionerNetwork
from frozenmm.segmentation.options import built


@dataclass(frozen=True)
class MaskOptions:
    """How the masks of a head come about.

    Attributes:
        mode: `'joint'` or `'per_class'`, see `FusionerNetwork`; used in training and test, so that both agree.
        class_chunk: see `FusionerNetwork`; likewise temperature.
        stride: masks are computed on every stride-th pixel, in training against the labels there, in a test resized. 1
            is the official way; 4 saves most of the time and memory of a light decoder.
        shared_map: place among the maps of one in the space of the text tower (CLIP's projected patches with its text
            tower; `'text'` of a `ConSETower`), whose cosine with the names is added to the logits; None leaves it out,
            as the paper does.
        fusion_drop: see `FusionerNetwork`; counts with `shared_map` only.

    Raises:
        UserError: unknown mode, or a stride below 1.
    """

    mode: str = 'joint'
    class_chunk: int = 8
    temperature: float = 0.07
    stride: int = 1
    shared_map: int | None = None
    fusion_drop: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in CLASS_MODES:
            raise UserError(f'mode must be one of {list(CLASS_MODES)}, got {self.mode!r}')
        if self.stride < 1:
            raise UserError(f'the stride of the masks must be at least 1, got {self.stride}')


@MODELS.register_module()
class FusionerHead(BaseDecodeHead):
    """Masks for named classes from frozen visual tokens and frozen class-name vectors.

    Which classes an image is asked for comes from the metainfo `class_names` of its data sample, else from the
    vocabulary. Labels are 0 for background and k + 1 for the k-th name.

    Args:
        in_channels: width of the backbone's map, or widths of several, which are scaled to unit norm in every cell,
            resized to the first and concatenated.
        text_tower: config of a text tower, or a built one.
        vocabulary: classes asked for where a sample does not name its own; whatever `Vocabulary.read` understands.
        channels: width of the fusion.
        fusion: options of `FusionTransformer` but the widths: num_layers, num_heads, num_class_rows, dropout, ...
        masks: options of `MaskOptions`.
        decoder: config of the decoder, `dict(type='frozenmm.FusionerDecoder')` by default; gets `channels`.
        templates: prompts around a class name.
        store_text: keep text vectors on disk.
        in_index: which of the backbone's maps, or several; the last (several: all) by default.
        loss_decode: config of the loss.
        ignore_index: label of pixels that do not count.

    Raises:
        UserError: unknown mode, a stride below 1, or a `shared_map` that is not as wide as the text tower.
        WrongKind: `text_tower` is no text tower.

    Source: Fusioner (Ma et al., BMVC 2022).
    """

    @renamed_arguments(removed_in='0.3', text='text_tower')
    @grouped_arguments(
        removed_in='0.3',
        fusion={name: name for name in ('num_layers', 'num_heads', 'num_class_rows', 'dropout', 'drop_path')},
        masks=dict(mode='mode', class_chunk='class_chunk', temperature='temperature', mask_stride='stride',
                   shared_map='shared_map', fusion_drop='fusion_drop'))
    def __init__(self, in_channels: int | Sequence[int], text_tower: Mapping[str, object] | TextTower,
                 vocabulary: VocabularySource | None = None, *, channels: int = 512,
                 fusion: Mapping[str, object] | None = None, masks: Mapping[str, object] | None = None,
                 decoder: Mapping[str, object] | None = None, templates: str | Sequence[str] = 'fusioner32',
                 store_text: bool = True, in_index: int | Sequence[int] | None = None,
                 loss_decode: Mapping[str, object] | None = None, ignore_index: int = 255) -> None:
        widths = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        several = not isinstance(in_channels, int)
        options = built(MaskOptions, masks)
        loss = dict(loss_decode or dict(type='frozenmm.FusionerBCELoss'))
        if in_index is None:
            in_index = list(range(len(widths))) if several else -1
        # three classes of nothing in particular: the vocabulary sets the real number, per call if need be
        super().__init__(in_channels, channels, num_classes=3, dropout_ratio=0, in_index=in_index, loss_decode=loss,
                         ignore_index=ignore_index, align_corners=False, init_cfg=None,
                         input_transform='resize_concat' if several else None)
        self.conv_seg = None  # the base class's classifier, which this head does not have
        tower = text_tower if isinstance(text_tower, TextTower) else MODELS.build(dict(text_tower))
        if not isinstance(tower, TextTower):
            raise WrongKind(f'text_tower must be a text tower, got {type(tower).__name__}')
        self.texts = ClassTexts(tower, templates, store=store_text)
        joined = built(FusionTransformer, fusion, self.in_channels, tower.channels, channels)
        dense: nn.Module = MODELS.build(dict(decoder or dict(type='frozenmm.FusionerDecoder'), channels=channels))
        self.shared_map = options.shared_map
        self.network = FusionerNetwork(joined, dense, temperature=options.temperature, class_chunk=options.class_chunk,
                                       shared_space=self.shared_map is not None, fusion_drop=options.fusion_drop)
        if self.shared_map is not None:
            self._check_shared_map(self.shared_map, widths)
        self.mode, self.mask_stride = options.mode, options.stride
        self.vocabulary: Vocabulary | None = None
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    def _check_shared_map(self, place: int, widths: Sequence[int]) -> None:
        if place not in range(len(widths)):
            raise UserError(f'shared_map must be in 0..{len(widths) - 1}, the places of in_channels={list(widths)}, '
                            f'got {place}')
        if widths[place] != self.texts.tower.channels:
            raise UserError(f'shared_map={place} has {widths[place]} channels, but {self.texts.tower.name} gives '
                            f'vectors of {self.texts.tower.channels}; both must lie in one space')

    def init_weights(self) -> None:
        """Nothing: every part initialises itself as the official code does."""

    def set_vocabulary(self, vocabulary: VocabularySource) -> None:
        """The classes asked for where a sample does not name its own; costs no reload."""
        self.vocabulary = Vocabulary.read(vocabulary)
        self.num_classes = self.out_channels = len(self.vocabulary) + 1

    def forward(self, inputs: Sequence[Tensor], names: Sequence[Sequence[str]] | None = None,
                size: tuple[int, int] | None = None) -> Tensor:
        """Mask logits.

        Args:
            inputs: the backbone's maps.
            names: class names of each image; the vocabulary's for all by default.
            size: (height, width) of the masks; that of the map by default.

        Returns:
            (B, K, *size), K being the largest number of names; `size` divided by `mask_stride`, rounded up.
        """
        several = isinstance(self.in_index, (list, tuple))
        maps = [inputs[index] for index in (self.in_index if several else [self.in_index])]
        if several:  # no map outweighs the others by the scale of its network
            inputs = [F.normalize(value, dim=1) for value in inputs]
        visual = self._transform_inputs(inputs)
        text, counts = self.texts.batch(names or [self._default_names()] * len(visual), visual)
        height, width = (-(-side // self.mask_stride) for side in size or visual.shape[-2:])
        return self.network(visual, text, (height, width), mode=self.mode, class_counts=counts,
                            shared_map=None if self.shared_map is None else maps[self.shared_map])

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: Sequence[SegDataSample],
             train_cfg: Mapping[str, object] | None = None) -> dict[str, Tensor]:
        """The loss of a batch; each sample names its classes in `class_names`, else the vocabulary holds."""
        names = [self._names(sample.metainfo) for sample in batch_data_samples]
        labels = torch.stack([sample.gt_sem_seg.data for sample in batch_data_samples])[:, 0]
        logits = self.forward(inputs, names, (labels.shape[-2], labels.shape[-1]))
        if self.mask_stride > 1:  # the pixel in the middle of each cell
            labels = F.interpolate(labels[:, None].float(), logits.shape[-2:], mode='nearest-exact')[:, 0].long()
        classes = torch.arange(1, logits.shape[1] + 1, device=labels.device)
        targets = labels[:, None] == classes[:, None, None]
        counts = torch.tensor([len(row) for row in names], device=labels.device)
        loss = self.loss_decode(logits, targets, labels == self.ignore_index, classes <= counts[:, None])
        return {'loss_mask': loss}

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: Sequence[Mapping[str, Any]],
                test_cfg: Mapping[str, object] | None = None) -> Tensor:
        """Logits (B, K + 1, H, W) at the size of the (windowed) image, the background's constant 0 first.

        Raises:
            UserError: the images of the batch name different numbers of classes.
        """
        names = [self._names(meta) for meta in batch_img_metas]
        if len({len(row) for row in names}) > 1:
            raise UserError('the images of a test batch must name equally many classes, got '
                            f'{[len(row) for row in names]}; use batch_size=1')
        height, width = (int(side) for side in batch_img_metas[0]['img_shape'][:2])
        logits = self.forward(inputs, names, (height, width))
        if self.mask_stride > 1:
            logits = F.interpolate(logits, (height, width), mode='bilinear', align_corners=False)
        return torch.cat([logits.new_zeros(len(logits), 1, *logits.shape[-2:]), logits], 1)

    def _names(self, meta: Mapping[str, Any]) -> list[str]:
        names = meta.get('class_names')
        return list(names) if names is not None else self._default_names()

    def _default_names(self) -> list[str]:
        if self.vocabulary is None:
            raise UserError('no classes to look for: the data sample has no class_names and the head no vocabulary; '
                            'call set_vocabulary([...]) or give vocabulary= in the config')
        return self.vocabulary.names
