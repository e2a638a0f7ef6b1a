"""A small SAM of the official package with random weights, and the options that build ours in the same size."""
from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

ENCODER = dict(img_size=64, patch_size=16, embed_dim=16, depth=2, num_heads=2, global_attn_indexes=(1, ), window_size=3,
               out_chans=32)
DECODER = dict(channels=32, depth=2, heads=4, mlp_channels=32, iou_channels=32)
DEMO = dict(weights='random', trunk='random', model=dict(channels=32, mask_channels=16, heads=4, decoder_depth=1,
                                                         neck_depth=1))


def official_sam(path: Path) -> nn.Module:
    """The official model, whose weights are stored at `path`."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    torch.manual_seed(0)
    model = Sam(
        ImageEncoderViT(**ENCODER, mlp_ratio=4, norm_layer=partial(nn.LayerNorm, eps=1e-6), qkv_bias=True,
                        use_rel_pos=True),
        PromptEncoder(embed_dim=32, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=16),
        MaskDecoder(transformer_dim=32, num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=32,
                    transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=32))).eval()
    for parameter in model.parameters():  # some start at zero
        nn.init.normal_(parameter, std=0.3)
    torch.save(model.state_dict(), path)
    return model
