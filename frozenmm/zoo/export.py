"""Small checkpoints of our own: the trained part of a model, with a header that says where it comes from."""
from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.compat.fetch import file_digest
from frozenmm.compat.files import write_whole
from frozenmm.errors import MissingFile, UnknownName, UserError
from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.zoo.checkpoints import ENTRY_KEYS, FOLDER, INDEX, LARGEST, read_index

_ROOT = Path(__file__).resolve().parents[2]


def base_models(model: nn.Module) -> dict[str, str]:
    """Name and fingerprint of every frozen network in a model."""
    return {module.name: module.fingerprint for module in frozen_modules(model).values()}


def revision(folder: Path = _ROOT) -> str:
    """The git revision of the code, with `-dirty` where tracked files differ from it.

    Raises:
        MissingFile: the folder is no git checkout.
    """
    def git(*arguments: str) -> str:
        found = subprocess.run(['git', '-C', str(folder), *arguments], capture_output=True, text=True, check=False)
        if found.returncode:
            raise MissingFile(f'{folder} is no git checkout ({found.stderr.strip()}); a checkpoint of the zoo '
                                    'names the revision that trained it, so give it')
        return found.stdout.strip()

    return git('rev-parse', 'HEAD') + ('-dirty' if git('status', '--porcelain', '--untracked-files=no') else '')


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from.

    Attributes:
        data: what it was trained on, in words.
        metrics: what was measured, by name.
        trained_at: git revision of the code that trained it; None for the present one.
    """

    data: str
    metrics: Mapping[str, Any]
    trained_at: str | None = None


def export_checkpoint(name: str, model: nn.Module, cfg: Config, origin: Origin, *, folder: Path = FOLDER,
                      part: str = '', dtype: torch.dtype | None = None) -> Path:
    """Write the trained part of a model into the zoo's folder.

    Frozen networks leave their names and fingerprints, nothing of their weights. Of a whole model their records stay,
    so that loading with another network fails; of a part the header alone names them.

    Args:
        name: of the checkpoint; the file gets the first eight digits of its SHA-256 behind it.
        model: with its trained weights.
        cfg: its config; the header keeps the model's part.
        origin: for the header.
        folder: where to write.
        part: name of a submodule to write alone, under names relative to it; by default the whole model.
        dtype: of floating tensors in the file; by default their own.

    Returns:
        The file.

    Raises:
        UserError: the model has no such part, or it is larger than a checkpoint of the zoo may be.
        MissingFile: no revision is given, and the code is no git checkout.
    """
    header = dict(config=cfg.model.to_dict() if hasattr(cfg.model, 'to_dict') else dict(cfg.model), data=origin.data,
                  revision=origin.trained_at or revision(), metrics=dict(origin.metrics),
                  base_models=base_models(model), part=part)
    state = {key: value.to(dtype) if dtype and value.is_floating_point() else value
             for key, value in _part(model.state_dict(), part).items()}
    draft = folder / f'.{name}.part.safetensors'
    try:
        save_checkpoint_file(draft, state, header)
        size = draft.stat().st_size
        if size > LARGEST:
            raise UserError(f'the trained part of {name} takes {size:,} bytes, more than the {LARGEST:,} that a '
                            'checkpoint of the zoo may have; make the decoder smaller')
        return draft.replace(folder / f'{name}-{file_digest(draft)[:8]}.safetensors')
    finally:
        draft.unlink(missing_ok=True)


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    if not part:
        return dict(state)
    prefix = f'{part}.'
    found = {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        parts = sorted({key.split('.')[0] for key in state})
        raise UnknownName(f'the model has no part {part!r}; its parts are {parts}')
    return found


@dataclass(frozen=True)
class Description:
    """What the index says of a checkpoint beside its file.

    Attributes:
        task: what it does, one of `frozenmm.zoo.checkpoints.CHECKPOINT_TASKS`.
        config: its config file, relative to the repository.
        what: one sentence: the model, its data, what it can and cannot do.
        license: of the weights.
        data_terms: of what they were trained on.
        make: the command that trains it.
        aliases: other names.
    """

    task: str
    config: str
    what: str
    license: str
    data_terms: str
    make: str
    aliases: Sequence[str] = ()


def enter(name: str, path: Path, description: Description, *, index: Path = INDEX) -> None:
    """Add a checkpoint to the index of the zoo, or replace its entry; the file of a replaced entry is removed.

    Args:
        name: of the checkpoint.
        path: its file, as `export_checkpoint` gives it.
        description: what else its entry says.
        index: the index file.

    Raises:
        UserError: the entry is not as it should be; the index stays as it was.
    """
    content = index.read_text(encoding='utf-8')
    entries = json.loads(content)
    before = entries.get(name, {}).get('file')
    entry = {**asdict(description), 'file': path.name, 'sha256': file_digest(path)}
    entries[name] = {key: entry[key] for key in ENTRY_KEYS}
    write_whole(index, json.dumps(entries, indent=1, ensure_ascii=False) + '\n')
    try:
        read_index(index)
    except UserError:
        write_whole(index, content)
        raise
    if before and before != path.name:
        (path.parent / before).unlink(missing_ok=True)
