"""Where evidence comes from: a frozen LLaVA of transformers, or made-up attention to train and test without one."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.compat import require
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.frozen_module import FrozenModule, shared_network
from frozenmm.registry import MODELS
from frozenmm.segmentation.f_lmm.evidence import Evidence, Placement, phrase_attention, phrase_words

PROMPT = 'USER: <image>\nPlease give me a description of the image. ASSISTANT:'
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@MODELS.register_module()
class LlavaEvidence(FrozenModule):
    """Attention maps and states of a frozen LLaVA (1.5 layout of transformers), one pass for all phrases of a picture.

    The text is the prompt and then the phrases, a full stop behind each. Attention is computed the plain way, because
    faster kernels do not return it. With random weights it is a test of the path, and no more.

    Args:
        folder: of the model in transformers' layout, with its tokenizer.
        prompt: with `<image>` where the picture stands; the text behind it sees the picture, text before does not.
        merge: see `phrase_attention`.
        precision: see `FrozenModule`.

    Attributes:
        channels: see `EvidenceProvider`; likewise layers and width.

    Raises:
        MissingFile: no such folder.
        UserError: another kind of model, or a prompt without picture.
        MissingPackage: transformers is not installed.
    """

    def __init__(self, folder: str | Path, *, prompt: str = PROMPT, merge: str = 'mean',
                 precision: str = 'fp32') -> None:
        path = Path(folder).expanduser().absolute()
        if not (path / 'config.json').is_file():
            raise MissingFile(f'{path} is no folder of a LLaVA; it must hold config.json, weights and tokenizer')
        if prompt.count('<image>') != 1:
            raise UserError(f'the prompt must have <image> once, got {prompt!r}')
        transformers = require('transformers', 'LlavaEvidence')
        super().__init__(shared_network(('LLaVA', str(path)), lambda: _load(path), name=f'LLaVA {path.name}',
                                        precision=precision))
        with reading(path, 'a tokenizer', 'fetch the folder again'):
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True,
                                                                        trust_remote_code=False)
        config: Any = self.network.config
        text, vision = config.text_config, config.vision_config
        self.image_token, self.size = config.image_token_id, vision.image_size
        self.grid = (vision.image_size // vision.patch_size, ) * 2
        self.layers, self.width = text.num_hidden_layers, text.hidden_size
        self.channels = self.layers * text.num_attention_heads
        self.prompt, self.merge = prompt, merge

    def forward(  # type: ignore[override]  # a picture and phrases, not any tensors
            self, picture: Tensor, phrases: Sequence[str], masks: Tensor | None = None) -> Evidence:
        """See `EvidenceProvider`; the masks are not looked at."""
        ids, owner = self.tokens(phrases)
        places = (ids == self.image_token).nonzero()[:, 0]
        pixels, device = self.pixels(picture), self._frozen.device

        def read(network: nn.Module, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
            outputs = network(input_ids=ids[None].to(device), pixel_values=pixels, output_attentions=True,
                              output_hidden_states=True, use_cache=False)
            maps = phrase_attention([layer[0] for layer in outputs.attentions], owner.to(device), places.to(device),
                                    self.grid, merge=self.merge)
            return maps, phrase_words([state[0] for state in outputs.hidden_states], owner.to(device))

        maps, words = self.run(read, pixels.to(device))
        return Evidence(maps, words, Placement.centred(picture.shape[-2], picture.shape[-1]))

    def tokens(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (T,) of prompt and phrases, and the phrase (T,) of each, -1 for none.

        Raises:
            UserError: a phrase of which the tokenizer leaves nothing.
        """
        before, behind = (self.tokenizer(part, add_special_tokens=first)['input_ids'] for part, first in zip(
            self.prompt.split('<image>'), (True, False)))
        ids = [*before, *[self.image_token] * (self.grid[0] * self.grid[1]), *behind]
        owner = [-1] * len(ids)
        stop = self.tokenizer('.', add_special_tokens=False)['input_ids']
        for number, phrase in enumerate(phrases):
            found = self.tokenizer(phrase, add_special_tokens=False)['input_ids']
            if not found:
                raise UserError(f'nothing of the phrase {phrase!r} is left after the tokenizer of {self.name}')
            ids += [*found, *stop]
            owner += [number] * len(found) + [-1] * len(stop)
        return torch.tensor(ids), torch.tensor(owner)

    def pixels(self, picture: Tensor) -> Tensor:
        """What the model sees (1, 3, side, side): padded to a square with the mean colour, resized, normalised."""
        height, width = int(picture.shape[-2]), int(picture.shape[-1])
        placed = Placement.centred(height, width)
        mean, std = (torch.tensor(values)[:, None, None].to(picture.device) for values in (CLIP_MEAN, CLIP_STD))
        square = (255 * mean).expand(3, int(placed.side), int(placed.side)).clone()
        top, left = int(placed.top), int(placed.left)
        square[:, top:top + height, left:left + width] = picture.float()
        square = F.interpolate(square[None], (self.size, self.size), mode='bicubic', antialias=True).clamp(0, 255)
        return (square / 255 - mean) / std


def _load(path: Path) -> nn.Module:
    transformers = require('transformers', 'LlavaEvidence')
    with reading(path, 'a LLaVA', 'its weights are damaged or of another architecture than its config.json'):
        config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        if config.model_type != 'llava':
            raise UserError(f'{path} describes a model of type {config.model_type!r}; LlavaEvidence takes llava')
        return transformers.LlavaModel.from_pretrained(str(path), local_files_only=True, dtype=torch.float32,
                                                       attn_implementation='eager', trust_remote_code=False)


@MODELS.register_module()
class MadeUpEvidence(nn.Module):
    """No model: attention made of the true masks, some channels with much of them and most with little, under noise.

    It shows that head and refiner learn to read attention maps. It says nothing about any multimodal model.

    Args:
        layers: L; likewise heads, width (C) and grid (cells a side).
        heads: see above.
        width: see above.
        grid: see above.
        noise: of the maps, beside a mask of 1.
        seed: of the noise and of what each channel knows.
    """

    share: Tensor

    def __init__(self, *, layers: int = 4, heads: int = 4, width: int = 16, grid: int = 24, noise: float = 0.5,
                 seed: int = 0) -> None:
        super().__init__()
        self.layers, self.width, self.channels, self.grid, self.noise = layers, width, layers * heads, grid, noise
        random = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.register_buffer('share', torch.rand(self.channels, generator=random) ** 4, persistent=False)

    def forward(self, picture: Tensor, phrases: Sequence[str], masks: Tensor | None = None) -> Evidence:
        """See `EvidenceProvider`.

        Raises:
            UserError: no masks, of which everything here is made, or not one for each phrase.
        """
        if masks is None or len(masks) != len(phrases):
            raise UserError(f'made-up attention comes from the true masks, one for each of {len(phrases)} phrases, got '
                            f'{0 if masks is None else len(masks)}; use LlavaEvidence where there are none')
        height, width = int(masks.shape[-2]), int(masks.shape[-1])
        placed = Placement.centred(height, width)
        side, top, left = int(placed.side), int(placed.top), int(placed.left)
        square = F.pad(masks[:, None].float(), (left, side - width - left, top, side - height - top))
        small = F.interpolate(square, (self.grid, self.grid), mode='area')
        noise = self.noise * torch.rand(len(masks), self.channels, self.grid, self.grid, generator=self.generator)
        maps = self.share[:, None, None] * small + noise.to(small)
        words = [torch.randn(2, self.layers, self.width, generator=self.generator).to(small) for _ in phrases]
        return Evidence(maps / maps.sum((-2, -1), keepdim=True), words, placed)
