"""Open-vocabulary models as mmseg segmentors: semantic labels, whole or sliding, ready for test-time augmentation."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from frozenmm.errors import UserError
from frozenmm.foundation.vocabulary import VocabularySource
from frozenmm.ops.mask_ensemble import MaskGeometry, mask_ensemble_semantic
from frozenmm.registry import MODELS
from frozenmm.segmentation.fc_clip.segmentor import MaskSegmentor
from frozenmm.segmentation.flipped_maps import unflipped

INFERENCE_MODES = ('whole', 'slide')


@MODELS.register_module()
class OpenVocabularySegmentor(BaseSegmentor):
    """`FCCLIP` or `FrozenSeg` behind mmseg's interface.

    Training works too: every class of the semantic map is one segment. A checkpoint of the model alone, as mmdet trains
    it, loads as well as one of this segmentor.

    Args:
        model: an `FCCLIP` or `FrozenSeg`, or its config. It normalises by this segmentor's data preprocessor.
        test_cfg: `mode` is `'whole'` (default) or `'slide'` (then `crop_size` and `stride`); `logits=True` keeps all
            score maps, which test-time augmentation needs and which take K floats per pixel. Without them, `'whole'`
            labels are made in bounded memory.
        data_preprocessor: see mmseg.
        init_cfg: see mmengine.
    """

    slide_inference = EncoderDecoder.slide_inference
    align_corners = False

    def __init__(self, model: MaskSegmentor | Mapping[str, object], *, test_cfg: Mapping[str, object] | None = None,
                 data_preprocessor: Mapping[str, object] | None = None,
                 init_cfg: Mapping[str, object] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.test_cfg = ConfigDict(mode='whole', logits=False)
        self.test_cfg.update(test_cfg or {})
        if self.test_cfg.mode not in INFERENCE_MODES:
            raise UserError(f'test_cfg.mode must be one of {list(INFERENCE_MODES)}, got {self.test_cfg.mode!r}')
        if self.test_cfg.mode == 'slide' and not {'crop_size', 'stride'} <= set(self.test_cfg):
            raise UserError('test_cfg.mode=\'slide\' needs crop_size and stride, each (height, width)')
        self.model = model if isinstance(model, MaskSegmentor) else MODELS.build(dict(model))
        self.model.data_preprocessor = self.data_preprocessor
        self._register_load_state_dict_pre_hook(_inner_names)

    @property
    def out_channels(self) -> int:
        """Number of classes of the vocabulary in use; mmseg's sliding window asks for it."""
        return self.model.classifier.rows.num_classes

    def set_vocabulary(self, vocabulary: VocabularySource, *, seen: Tensor | None = None) -> None:
        """See `FCCLIP.set_vocabulary`."""
        self.model.set_vocabulary(vocabulary, seen=seen)

    def extract_feat(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> object:
        """The frozen tower's features; see `FCCLIP.extract_feat`."""
        return self.model.extract_feat(inputs, data_samples)

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[Mapping[str, object]]) -> Tensor:
        """Score maps (B, K, H, W) of a batch (B, 3, H, W) at its own size; padding counts as image."""
        size = (inputs.shape[-2], inputs.shape[-1])
        geometry = MaskGeometry(self.model.trunk.canvas(inputs), size, size)
        proposals, features = self.model.generate(inputs, None, all_layers=False)
        probabilities = self.model.trunk.classify(proposals[-1], features).softmax(-1)[..., :-1]
        maps = [mask_ensemble_semantic(rows, masks.float(), geometry, return_scores=True).class_scores
                for rows, masks in zip(probabilities, proposals[-1].mask_logits)]
        return torch.stack([scores for scores in maps if scores is not None])

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """See `FCCLIP.loss`."""
        samples = []
        for sample in data_samples:
            sample = sample.clone()
            sample.gt_sem_seg.sem_seg = sample.gt_sem_seg.data
            samples.append(sample)
        return self.model.loss(inputs, samples)

    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Data samples with `pred_sem_seg` at original size, and `seg_logits` if they are kept or the window slides."""
        if data_samples is None:
            shape = tuple(inputs.shape[-2:])
            data_samples = [SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape)) for _ in inputs]
        if self.test_cfg.mode == 'whole' and not self.test_cfg.logits:
            for sample, result in zip(data_samples, self.model.results(inputs, data_samples)):
                if result.semantic is None:
                    raise UserError('the model\'s post-processing has no semantic task; add \'semantic\' to its tasks')
                sample.pred_sem_seg = PixelData(data=unflipped(result.semantic.labels[None], sample.metainfo))
            return list(data_samples)
        if self.test_cfg.mode == 'slide':
            # the window writes its size into the metainfo, so it gets copies
            logits = self.slide_inference(inputs, [dict(sample.metainfo) for sample in data_samples])
        else:
            logits = self.encode_decode(inputs, [sample.metainfo for sample in data_samples])
        return self.postprocess_result(logits, list(data_samples))

    def postprocess_result(self, seg_logits: Tensor, data_samples: list[SegDataSample]) -> list[SegDataSample]:
        """Cut the padding, undo a flip, resize to original size, label. Unlike mmseg's, one class is a class too."""
        for logits, sample in zip(seg_logits, data_samples):
            padding = sample.metainfo.get('padding_size', [0] * 4)
            left, right, top, bottom = sample.metainfo.get('img_padding_size', padding)
            height, width = logits.shape[-2:]
            logits = unflipped(logits[:, top:height - bottom, left:width - right], sample.metainfo)
            logits = F.interpolate(logits[None], size=tuple(sample.ori_shape[:2]), mode='bilinear',
                                   align_corners=False)[0]
            sample.seg_logits = PixelData(data=logits)
            sample.pred_sem_seg = PixelData(data=logits.argmax(0, keepdim=True))
        return data_samples

    def _forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> tuple[Tensor, Tensor]:
        """See `FCCLIP._forward`."""
        return self.model(inputs, None, mode='tensor')


def _inner_names(state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give the keys of a checkpoint of the model alone the place that the model has here."""
    names = [name for name in state if name.startswith(prefix)]
    if not any(name.startswith(f'{prefix}model.') for name in names):
        for name in names:
            state[f'{prefix}model.{name.removeprefix(prefix)}'] = state.pop(name)
