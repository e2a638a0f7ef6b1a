"""A folder of result pictures as one HTML page that needs no server and no script."""
from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from frozenmm.compat.files import write_whole
from frozenmm.errors import MissingFile, reading

_STYLE = ('body{font-family:system-ui,sans-serif;margin:2em}figure{display:inline-block;margin:.5em;vertical-align:top;'
          'width:480px}img{max-width:100%}figcaption{font-size:.85em;overflow-wrap:anywhere}')
_ENDING, _LINES = '_overlay.png', 'results.jsonl'


def write_gallery(folder: str | Path, *, title: str = 'Predictions') -> Path:
    """Write `index.html` into a folder of results.

    Shown are the pictures `NAME_overlay.png` with what `results.jsonl` says of them; in a folder without such, every
    PNG.

    Args:
        folder: what an inferencer or `--show-dir` has written.
        title: of the page.

    Returns:
        The page.

    Raises:
        MissingFile: no such folder, or no picture in it.
        UnreadableFile: the file beside the pictures cannot be read.
    """
    folder = Path(folder)
    pictures = sorted(folder.glob(f'*{_ENDING}')) or sorted(folder.glob('*.png'))
    if not pictures:
        raise MissingFile(f'{folder.resolve()} holds no pictures (*.png); give the folder that tools/infer.py '
                          '--out or tools/test.py --show-dir wrote')
    captions = _captions(folder)
    figures = []
    for path in pictures:
        name = path.name.removesuffix(_ENDING).removesuffix('.png')
        figures.append(f'<figure><img loading="lazy" src="{quote(path.name)}" alt="{html.escape(path.stem)}">'
                       f'<figcaption><b>{html.escape(name)}</b> {html.escape(captions.get(name, ""))}</figcaption>'
                       '</figure>')
    page = (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f'<style>{_STYLE}</style><h1>{html.escape(title)}</h1><p>{len(pictures)} pictures</p>\n'
            + '\n'.join(figures) + '\n</html>\n')
    write_whole(folder / 'index.html', page.encode())
    return folder / 'index.html'


def _captions(folder: Path) -> dict[str, str]:
    """What `results.jsonl` says of each picture, by name."""
    stated = folder / _LINES
    if not stated.is_file():
        return {}
    with reading(stated, 'the results of a folder', 'write the folder again'):
        lines = [json.loads(line) for line in stated.read_text(encoding='utf-8').splitlines()]
        return {str(line['name']): _best(line.get('segments') or line.get('objects') or line.get('classes') or ())
                for line in lines}


def _best(entries: Sequence[Mapping[str, Any]]) -> str:
    best = sorted(entries, key=lambda entry: -(entry.get('score') or 0))[:12]
    return ', '.join(entry['name'] + ('' if entry.get('score') is None else f' {entry["score"]:.2f}') for entry in best)
