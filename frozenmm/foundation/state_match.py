"""Load a state dict into a network: every key must match, and a file of another model is told from its keys."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from frozenmm.errors import UserError

_COUNTER = 'num_batches_tracked'
_SHOWN = 5


def load_strictly(network: nn.Module, state: dict[str, Tensor], *, name: str, source: str,
                  whole: dict[str, Tensor] | None = None) -> None:
    """Put a state into a network (which may be on the meta device); all keys and shapes must agree.

    Batch norm's step counters play no part in inference: they are set to zero, whether the file has them or not.

    Args:
        network: gets the tensors themselves, as float32 where they are floating point.
        state: names and tensors.
        name: what errors call the model.
        source: where the state comes from, for errors.
        whole: the file's own content, by which it is recognised; `state` by default.

    Raises:
        UserError: missing, unused or misshapen keys, with the first ones of each, and what the file seems to be.
    """
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    wanted = network.state_dict()
    for key, value in wanted.items():
        if key.endswith(_COUNTER):
            state[key] = torch.zeros((), dtype=value.dtype)
    missing = [key for key in wanted if key not in state]
    unused = [key for key in state if key not in wanted]
    misshapen = [f'{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}' for key, value in wanted.items()
                 if key in state and state[key].shape != value.shape]
    if missing or unused or misshapen:
        parts = [_some('wrong shape: ', misshapen), _some('missing: ', missing), _some('not used: ', unused)]
        guess = recognise(state if whole is None else whole)
        raise UserError(f'{source} does not fit {name}: ' + '; '.join(part for part in parts if part)
                         + (f'. The file looks like {guess}' if guess else ''))
    network.load_state_dict(state, strict=True, assign=True)


def _some(text: str, keys: list[str]) -> str:
    if not keys:
        return ''
    more = f' and {len(keys) - _SHOWN} more' if len(keys) > _SHOWN else ''
    return text + ', '.join(keys[:_SHOWN]) + more


def recognise(state: dict[str, Tensor]) -> str:
    """The model that a state dict belongs to, from its keys and shapes; empty if it is none that we know."""
    def width(key: str, axis: int = 0) -> int:
        return int(state[key].shape[axis])

    visual = 'visual.' if any(key.startswith('visual.') for key in state) else ''
    if f'{visual}class_embedding' in state and f'{visual}conv1.weight' in state:
        patch = width(f'{visual}conv1.weight', 3)
        grid = round((width(f'{visual}positional_embedding') - 1)**0.5)
        return f'a CLIP ViT of width {width(f"{visual}conv1.weight")}, patch {patch}, {grid * patch} px'
    if f'{visual}attnpool.positional_embedding' in state:
        return f'a CLIP ResNet of width {width(f"{visual}attnpool.positional_embedding", 1) // 32}'
    if any(key.startswith('visual.trunk.') for key in state):
        return 'an open_clip model with a timm image trunk'
    sam = 'image_encoder.' if any(key.startswith('image_encoder.') for key in state) else ''
    if f'{sam}neck.0.weight' in state:
        kind = 'MobileSAM TinyViT' if f'{sam}layers.0.blocks.0.conv1.c.weight' in state else 'SAM image encoder'
        return f'a {kind} of width {width(f"{sam}neck.0.weight", 1)}'
    if 'blocks.0.ls1.gamma' in state or 'blocks.0.0.ls1.gamma' in state:
        return f'a DINOv2 ViT of width {width("cls_token", 2)}'
    if '_conv_stem.weight' in state:
        return f'an EfficientNet in the key names of efficientnet_pytorch, stem width {width("_conv_stem.weight")}'
    if 'cls_token' in state and 'patch_embed.proj.weight' in state:
        return f'a ViT of width {width("cls_token", 2)} in timm\'s key names'
    if 'text_model.embeddings.token_embedding.weight' in state:
        return 'a CLIP model in the key names of transformers'
    if 'layer1.0.conv1.weight' in state:
        return 'a ResNet in torchvision\'s key names'
    return ''
