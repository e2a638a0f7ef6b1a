"""A frozen language model as text tower for long captions, seen from several sides at once."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.compat import require
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.text_tower import TextTower, Tokenizer
from frozenmm.registry import MODELS

FACETS = ('Summarise the picture that this text describes in one word:',
          'Name the things that this text describes in one word:',
          'Name the place that this text describes in one word:')
"""Our prompts, one for each side of a caption; any others may be given."""
POOLINGS = ('mean', 'concatenate')


def facet_layout(captions: Sequence[int], facets: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
    """What may be looked at, and positions, for captions with all facet prompts behind them in one sequence.

    A row is the caption, then facet after facet, then padding. A token sees the tokens before it in the caption, and in
    its own facet; no facet sees another, and each starts at the position behind the caption. So every facet is what it
    would be in a pass of its own.

    Args:
        captions: tokens of each of N captions, at least one.
        facets: tokens of each facet.
        length: T of the padded rows.

    Returns:
        (N, T, T) bool and (N, T) int64; a padded token sees itself.
    """
    part = torch.zeros(len(captions), length, dtype=torch.long)  # 0 caption, 1.. facets, -1 padding
    position = torch.zeros(len(captions), length, dtype=torch.long)
    for row, count in enumerate(captions):
        part[row, count + sum(facets):] = -1
        position[row, :count] = torch.arange(count)
        start = count
        for number, size in enumerate(facets, 1):
            part[row, start:start + size] = number
            position[row, start:start + size] = torch.arange(count, count + size)
            start += size
    same, caption = part[:, :, None] == part[:, None], (part == 0)[:, None]
    seen = torch.ones(length, length, dtype=torch.bool).tril() & (same | caption) & (part != -1)[:, None]
    return seen | torch.eye(length, dtype=torch.bool), position


@MODELS.register_module()
class LongCaptionTower(TextTower):
    """Any causal language model of transformers as a frozen text tower, one vector for each facet prompt.

    A caption and all prompts are one sequence under `facet_layout`; the state of a prompt's last token is that facet's
    vector. Wherever a text tower stands it gives their mean or all of them in a row; as with every tower its vectors
    are stored on disk by `text_embeddings`.

    Args:
        folder: of the model in transformers' layout, with its tokenizer.
        facets: prompts; a plain one by default for the whole, the things and the place.
        pooling: `'mean'` of the facets' unit vectors, or `'concatenate'` them.
        context: the most tokens of a caption; what the positions leave beside the longest prompt by default.
        truncate: see `TextTower`; likewise batch_size.
        batch_size: see above.
        precision: see `FrozenModule`.

    Raises:
        MissingFile: no such folder.
        UserError: no causal language model, damaged files, or prompts that leave no room.
        MissingPackage: transformers is not installed.

    Source: FLAME (Cao et al., CVPR 2025): facet prompts and facet-decoupled attention with a frozen language model.
    """

    def __init__(self, folder: str | Path, *, facets: Sequence[str] = FACETS, pooling: str = 'mean',
                 context: int | None = None, truncate: bool = True, batch_size: int = 32,
                 precision: str = 'fp32') -> None:
        self.pooling, self.facets = choice('pooling', pooling, POOLINGS), tuple(facets)
        path = Path(folder).expanduser().absolute()
        if not (path / 'config.json').is_file():
            raise MissingFile(f'{path} is no folder of a language model; it must hold config.json, weights '
                              'and tokenizer')
        if not self.facets:
            raise UserError('LongCaptionTower needs at least one facet prompt')
        tokenizer = _tokenizer(path)
        prompts = tokenizer.rows(self.facets)
        network = shared_network(('LongCaption', str(path)), lambda: _load(path), name=f'language model {path.name}',
                                 precision=precision)
        config: Any = network.module.config
        room = int(getattr(config, 'max_position_embeddings', 2048)) - max(map(len, prompts))
        if room < 2 or (context or 2) > room:
            raise UserError(f'{network.name} has positions for {room} tokens of a caption beside its longest facet '
                            f'prompt, but {context or 2} were asked for')
        width = int(config.hidden_size)
        super().__init__(network, tokenizer, channels=width * (len(prompts) if pooling == 'concatenate' else 1),
                         context=context or room, truncate=truncate, batch_size=batch_size)
        self.prompts = prompts

    def embed(self, network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """See `TextTower.embed`."""
        facets = F.normalize(self.facet_states(network, ids, lengths).float(), dim=-1)
        return facets.flatten(1) if self.pooling == 'concatenate' else facets.mean(1)

    def facet_states(self, network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """States (N, facets, C) of the last token of every prompt behind captions (N, T) of these lengths (N,)."""
        sizes, counts = [len(prompt) for prompt in self.prompts], lengths.tolist()
        behind = [token for prompt in self.prompts for token in prompt]
        length = max(counts) + len(behind)
        rows = [row[:count] + behind + [self.tokenizer.pad_id] * (length - count - len(behind))
                for row, count in zip(ids.tolist(), counts)]
        seen, position = facet_layout(counts, sizes, length)
        dtype = next(network.parameters()).dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        states = network(input_ids=torch.tensor(rows, device=ids.device), attention_mask=mask[:, None].to(ids.device),
                         position_ids=position.to(ids.device), use_cache=False).last_hidden_state
        last = lengths[:, None] + torch.tensor(sizes, device=ids.device).cumsum(0) - 1
        return states[torch.arange(len(ids), device=ids.device)[:, None], last]

    def options(self) -> dict[str, object]:
        """See `TextTower.options`."""
        return {**super().options(), 'pooling': self.pooling, 'facets': list(self.facets)}


def _tokenizer(path: Path) -> Tokenizer:
    """Captions and prompts as they are, without marks: a prompt goes on where the caption ends."""
    transformers = require('transformers', 'LongCaptionTower')
    with reading(path, 'a tokenizer', 'fetch the folder again'):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True, use_fast=True,
                                                               trust_remote_code=False)

    def rows(texts: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(texts), add_special_tokens=False, padding=False, truncation=False,
                         verbose=False)['input_ids']

    return Tokenizer(rows, tokenizer.backend_tokenizer.to_str(), marks=0,
                     pad_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0)


def _load(path: Path) -> nn.Module:
    """The model without its output layer."""
    transformers = require('transformers', 'LongCaptionTower')
    with reading(path, 'a language model', 'its weights are damaged or of another architecture than its config.json'):
        network, report = transformers.AutoModel.from_pretrained(
            str(path), local_files_only=True, dtype=torch.float32, trust_remote_code=False, output_loading_info=True,
            attn_implementation='sdpa')
    if report['missing_keys'] or report['mismatched_keys']:
        raise UserError(f'the weights in {path} do not fit its config.json: {sorted(report["missing_keys"])[:3]} are '
                        'missing; config and weights must be of one model')
    if getattr(network.config, 'is_encoder_decoder', False) or network.config.model_type in ('bert', 'roberta'):
        raise UserError(f'{path} holds a {network.config.model_type}, no causal language model; take BertTextTower')
    return network
