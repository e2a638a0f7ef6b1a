"""The trained part of a model as a checkpoint of the zoo: small, hashed, with a header that says whence it comes."""
from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from frozenmm.compat.checkpoint import save_checkpoint_file
from frozenmm.compat.fetch import file_digest
from frozenmm.foundation.frozen_module import frozen_modules
from frozenmm.zoo.checkpoints import FOLDER, LARGEST


def export_checkpoint(model: nn.Module, name: str, *, config: str, data: str, metrics: Mapping[str, float],
                      folder: Path | None = None, part: str = '', dtype: torch.dtype = torch.float16) -> Path:
    """Write what a model has learnt as `NAME-SHA8.safetensors`.

    Frozen networks are not written. Of a whole model their records stay, so that loading with another network fails; of
    a part the header alone names them.

    Args:
        model: trained.
        name: of the checkpoint in the zoo.
        config: path of its config inside the repository.
        data: what it was trained on, in a few words.
        metrics: what was measured, by name.
        folder: where to write; by default that of the shipped checkpoints.
        part: name of a submodule to write alone, under names relative to it; by default the whole model.
        dtype: of floating tensors in the file.

    Returns:
        The file.

    Raises:
        ValueError: the model has no such part, or the file would exceed what a checkpoint of the zoo may have.
    """
    state = _part(model.state_dict(), part)
    size = sum(value.numel() * (dtype.itemsize if value.is_floating_point() else value.itemsize)
               for value in state.values())
    if size > LARGEST:
        raise ValueError(f'{name} would have {size} bytes, more than the {LARGEST} that a checkpoint of the zoo may '
                         'have; give it fewer parameters, or a smaller dtype')
    header = dict(config=config, data=data, revision=revision(), metrics=dict(metrics), part=part,
                  base_models={module.name: module.fingerprint for module in frozen_modules(model).values()})
    folder = FOLDER if folder is None else folder
    draft = folder / f'{name}-draft.safetensors'
    save_checkpoint_file(draft, {key: value.to(dtype) if value.is_floating_point() else value
                                 for key, value in state.items()}, header)
    path = draft.with_name(f'{name}-{file_digest(draft)[:8]}.safetensors')
    return draft.replace(path)


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    if not part:
        return dict(state)
    prefix = f'{part}.'
    found = {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        parts = sorted({key.split('.')[0] for key in state})
        raise ValueError(f'the model has no part {part!r}; its parts are {parts}')
    return found


def revision() -> str:
    """The commit of the source tree, with `+` where files differ from it; `'unknown'` outside a repository."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(['git', *arguments], cwd=root, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git('rev-parse', 'HEAD')
    if commit is None:
        return 'unknown'
    return commit + ('+' if git('status', '--porcelain', '--untracked-files=no') else '')
