"""Scalars of training runs, drawn."""
from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from frozenmm.compat import require
from frozenmm.compat.files import write_whole
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.lookup import nearest


def read_scalars(work_dir: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Scalars of a work folder by name, as (step, value), all its runs one after the other.

    Raises:
        MissingFile: no `vis_data/scalars.json` below it.
        UnreadableFile: a line that is no JSON object.
    """
    folder = Path(work_dir)
    files = sorted(folder.rglob('vis_data/scalars.json'))
    if not files:
        raise MissingFile(f'there is no vis_data/scalars.json below {folder.resolve()}; give the work folder of '
                          'a training')
    found: dict[str, list[tuple[float, float]]] = {}
    for file in files:
        with reading(file, 'the scalars of a training'):
            lines = file.read_text(encoding='utf-8').splitlines()
        for number, line in enumerate(lines, 1):
            with reading(f'{file}, line {number}', 'a JSON object', f'it begins with {line[:60]!r}'):
                entry = json.loads(line)
                step = entry.pop('step', entry.pop('iter', None))
                for key, value in entry.items():
                    if isinstance(value, (int, float)) and step is not None:
                        found.setdefault(key, []).append((float(step), float(value)))
    return found


def plot_scalars(work_dirs: Sequence[str | Path], keys: Sequence[str], out: str | Path) -> Path:
    """Draw scalars of one or several runs, one plot per key.

    Args:
        work_dirs: work folders.
        keys: names of scalars, e.g. `'loss'`.
        out: the PNG to write.

    Raises:
        UserError: a scalar that no run has; the text lists the nearest names.
    """
    runs = {str(folder): read_scalars(folder) for folder in work_dirs}
    known = sorted({key for scalars in runs.values() for key in scalars})
    for key in keys:
        if key not in known:
            raise UserError(f'no run has the scalar {key!r}; nearest: {", ".join(nearest(key, known))}')
    figure = require('matplotlib.figure', 'plotting').Figure(figsize=(7, 3.2 * len(keys)), layout='constrained')
    for index, key in enumerate(keys):
        axes = figure.add_subplot(len(keys), 1, index + 1)
        for name, scalars in runs.items():
            points = scalars.get(key, [])
            marker = 'o' if len(points) < 30 else None
            axes.plot([step for step, _ in points], [value for _, value in points], marker=marker, markersize=3,
                      label=Path(name).name)
        axes.set(xlabel='step', ylabel=key)
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=100)
    write_whole(Path(out), buffer.getvalue())
    return Path(out)
