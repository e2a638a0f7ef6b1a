"""Encoders of the transformers library, from a folder or from what the hub's client has stored on this machine."""
from __future__ import annotations

from typing import Any

import torch

from frozenmm.compat import require
from frozenmm.errors import MissingFile, UserError, reading


def load_hf_model(source: str, *, offline: bool, what: str, part: str, unused: str = 'pooler.') -> Any:
    """An encoder with every weight from its files.

    Args:
        source: folder, or name on the hub.
        offline: take what is on this machine and nothing else.
        what: what errors call it (`'a text encoder'`).
        part: the class that needs it.
        unused: start of the names of weights that may be missing, because nothing reads them.

    Raises:
        UserError: damaged files, or weights that do not fit the config.
        MissingPackage: transformers is not installed.
    """
    transformers = require('transformers', part)
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with reading(source, what, 'its weights are truncated, damaged or of another architecture than its '
                                   'config.json: fetch the folder again'):
            network, report = transformers.AutoModel.from_pretrained(
                source, local_files_only=offline, output_loading_info=True, dtype=torch.float32,
                trust_remote_code=False)
    finally:
        if shown:
            bars.enable_progress_bar()
    missing = [key for key in report['missing_keys'] if not key.startswith(unused)]
    misshapen = [str(entry) for entry in report['mismatched_keys']]
    if missing or misshapen:
        raise UserError(f'the weights in {source} do not fit its config.json: missing {sorted(missing)[:5]}, '
                         f'wrong shape {misshapen[:5]} ({len(missing) + len(misshapen)} in all); config and weights '
                         'must be of one model')
    return network


def stored_file(source: str, name: str, *, part: str, offline: bool = True) -> str | None:
    """Path of one file of a model; None where the model has no such file.

    Raises:
        MissingFile: the model itself is not on this machine.
    """
    hub = require('transformers', part).utils.hub
    found = hub.cached_file(source, name, local_files_only=offline, _raise_exceptions_for_missing_entries=False,
                            _raise_exceptions_for_connection_errors=False)
    if found is None and name == 'config.json':
        raise MissingFile(f'{source} is neither a folder with a config.json nor a model that the hub\'s client has '
                          f'stored on this machine; download its folder and give that to {part}')
    return found
