"""Where configs and the model index lie: in the repository, or inside an installed package."""
from __future__ import annotations

from pathlib import Path

from frozenmm.errors import MissingFile

_PACKAGE = Path(__file__).resolve().parents[1]


def data_folder() -> Path:
    """The folder that holds `configs/` and `model-index.yml`: the repository's root, else `frozenmm/.mim` of a wheel.

    Raises:
        MissingFile: neither has them.
    """
    places = (_PACKAGE.parent, _PACKAGE / '.mim')
    for folder in places:
        if (folder / 'model-index.yml').is_file() and (folder / 'configs').is_dir():
            return folder
    raise MissingFile(f'neither {places[0]} nor {places[1]} holds configs/ and model-index.yml; install frozenmm '
                            'again (pip install -e . in the repository)')


def config_files() -> dict[str, Path]:
    """All configs that can be run, by file name without suffix (bases, in `_base_/`, are left out)."""
    folder = data_folder() / 'configs'
    return {path.stem: path for path in sorted(folder.glob('*/*.py')) if path.parent.name != '_base_'}
