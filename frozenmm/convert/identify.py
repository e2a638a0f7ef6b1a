"""Which system a checkpoint comes from, told by its keys, so that a wrong file is refused by name."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from frozenmm.errors import UserError


@dataclass(frozen=True)
class Layout:
    """A known layout: all `keys` begin some key of the file, and no key begins with one of `without`."""

    name: str
    keys: tuple[str, ...]
    without: tuple[str, ...] = ()


# the first layout that fits decides, so the special ones stand first
LAYOUTS = (
    Layout('Frozen-DETR, DINO-coco', ('transformer.decoder.image_query_proj.', 'transformer.tgt_embed.')),
    Layout('Frozen-DETR, DINO-coco', ('patch_token_proj.', 'transformer.tgt_embed.')),
    Layout('Frozen-DETR, mmdet-2.x fork', ('query_head.transformer.',)),
    Layout('MS-DETR', ('transformer.level_embed', 'transformer.pos_trans.')),
    Layout('official DINO', ('transformer.level_embed', 'transformer.enc_out_class_embed.', 'input_proj.')),
    Layout('mmdet DINO', ('bbox_head.cls_branches.', 'memory_trans_fc.', 'query_embedding.')),
    Layout('FrozenSeg', ('sem_seg_head.predictor.', 'sem_seg_head.pixel_decoder.', 'sam')),
    Layout('FC-CLIP', ('sem_seg_head.predictor.', 'backbone.clip_model.')),
    Layout('Mask2Former', ('sem_seg_head.predictor.', 'sem_seg_head.pixel_decoder.')),
    Layout('PMT', ('network.decoder.q.', 'network.decoder.blocks.', 'network.decoder.class_head.')),
    Layout('Fusioner', ('fusion.cls_emb', 'decoder.conv_4.')),
    Layout('LSeg-Fusioner', ('scratch.', 'clip_pretrained.')),
    Layout('OpenAI CLIP', ('visual.conv1.', 'token_embedding.', 'logit_scale')),
    Layout('image tower of OpenAI CLIP', ('conv1.', 'ln_pre.', 'transformer.resblocks.', 'class_embedding')),
    Layout('DINOv2', ('blocks.0.', 'patch_embed.proj.', 'cls_token', 'mask_token')),
    Layout('DINOv2 training checkpoint', ('backbone.blocks.0.', 'backbone.cls_token', 'dino_head.')),
    Layout('SAM', ('image_encoder.', 'prompt_encoder.', 'mask_decoder.')),
    Layout('LeReS', ('encoder_modules.', 'decoder_modules.')),
    Layout('timm or torchvision ResNet', ('layer1.0.conv1.', 'fc.'), ('backbone.',)),
)


def identify(keys: Iterable[str]) -> str | None:
    """Name of the layout that the keys belong to; None if unknown."""
    keys = list(keys)
    for layout in LAYOUTS:
        if (all(any(key.startswith(start) for key in keys) for start in layout.keys)
                and not any(key.startswith(start) for key in keys for start in layout.without)):
            return layout.name
    return None


def weights_of(content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict inside the content of a checkpoint file, without a common `module.` prefix.

    Args:
        content: what `load_checkpoint_file` gives: a state dict, or a dictionary that holds one under `model`,
            `state_dict` or `teacher`.

    Raises:
        UserError: no tensors in it.
    """
    for name in 'model', 'state_dict', 'teacher':
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f'no weights in the checkpoint; it holds {list(content)[:6]}')
    if all(key.startswith('module.') for key in state):
        state = {key.removeprefix('module.'): value for key, value in state.items()}
    return state


def require_layout(state: dict[str, Tensor], allowed: tuple[str, ...], command: str) -> str:
    """The layout of a state dict, which must be one of those allowed.

    Raises:
        UserError: another layout, which is named.
    """
    found = identify(state)
    if found not in allowed:
        known = f'this is a file of {found}' if found else f'its keys ({", ".join(list(state)[:3])}, ...) are not known'
        raise UserError(f'`{command}` converts {" and ".join(allowed)}, but {known}')
    return found
