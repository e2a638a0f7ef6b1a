"""A tiny FC-CLIP and FrozenSeg with real parts: an open_clip ConvNeXt, a SAM ViT, a CLIP text tower, random weights."""
from __future__ import annotations

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from frozenmm.foundation.text_tower import TextTower, Tokenizer
from frozenmm.registry import MODELS

WIDTH = 32
CONVNEXT = dict(type='OpenCLIPTower', weights='random', model=dict(embed_dim=16, vision_cfg=dict(
    timm_model_name='convnext_atto', timm_model_pretrained=False, timm_pool='', timm_proj='linear', timm_drop=0.0,
    timm_drop_path=0.0, image_size=64)))
RESNET = dict(type='CLIPTower', weights='random', model=dict(input_resolution=64, width=8, layers=(1, 1, 1, 1), heads=4,
                                                             output_dim=16))
SAM = dict(type='SAMTower', weights='random', model=dict(
    img_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, global_attn_indexes=(0,), window_size=2,
    out_chans=WIDTH))
TRAINING = ['cat, kitten', 'dog', dict(name='sky', isthing=False)]
TESTING = ['zebra', 'cat', 'road']


class CountingTower(TextTower):
    """A text tower that sums random vectors of letters; it counts the texts that it encoded."""

    def __init__(self, channels: int = 16) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            letters = torch.nn.Embedding(256, channels)
        tokenizer = Tokenizer(lambda texts: [[ord(letter) % 256 for letter in text] for text in texts], marks=0,
                              identity='letters')
        super().__init__(letters, tokenizer, channels=channels, context=200, name='counting')
        self.encoded = 0

    def embed(self, network: torch.nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        return (network(ids) * (places < lengths[:, None])[..., None] * (1 + places.cos())[:, None]).sum(1)

    def encode(self, texts: list[str]) -> Tensor:
        self.encoded += len(texts)
        return super().encode(texts)


def generator_options(**decoder: object) -> dict:
    return dict(pixel_decoder=dict(channels=WIDTH, mask_channels=WIDTH, num_layers=1, feedforward_channels=16),
                decoder=dict(dict(in_channels=WIDTH, channels=WIDTH, mask_channels=WIDTH, num_queries=8, num_layers=4,
                                  num_heads=4, feedforward_channels=16), **decoder))


def classifier_options(**changes: object) -> dict:
    return dict(dict(embed_channels=16, channels=WIDTH, text_tower=CountingTower(), train_vocabulary=TRAINING,
                     vocabulary=TESTING, templates='simple'), **changes)


def fc_clip(seed: int = 0, **changes: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    options = dict(type='frozenmm.FCCLIP', tower=CONVNEXT, classifier=classifier_options(),
                   mask_generator=generator_options(), criterion=dict(num_points=64),
                   data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3,
                                          bgr_to_rgb=True, pad_size_divisor=32))
    return MODELS.build(dict(options, **changes)).eval()


def frozen_seg(seed: int = 0, **changes: object) -> torch.nn.Module:
    options = dict(type='frozenmm.FrozenSeg', sam_tower=SAM, mask_generator=dict(
        generator_options(), sam_branch=dict(channels=WIDTH, num_layers=1, feedforward_channels=16, num_heads=4)))
    return fc_clip(seed, **dict(options, **changes))


def sample(height: int, width: int, *, output: tuple[int, int] | None = None, annotated: bool = False,
           seed: int = 0) -> DetDataSample:
    made = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=output or (height, width),
                                       img_path='folder/picture.jpg'))
    if annotated:
        generator = torch.Generator().manual_seed(seed)
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, :height // 2], masks[1, height // 2:, :width // 3] = True, True
        made.gt_instances = InstanceData(labels=torch.tensor([0, 1]), masks=masks, bboxes=torch.zeros(2, 4))
        made.gt_sem_seg = PixelData(sem_seg=torch.randint(0, 4, (1, height, width), generator=generator))
    return made


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def batch(*sizes: tuple[int, int], annotated: bool = False, output: tuple[int, int] | None = None) -> dict:
    return dict(inputs=[picture(*size, seed=index) for index, size in enumerate(sizes)],
                data_samples=[sample(*size, output=output, annotated=annotated, seed=index)
                              for index, size in enumerate(sizes)])
