"""A folder of result pictures as one HTML page that needs no server and no script."""
from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from frozenmm.compat.files import write_whole
from frozenmm.errors import MissingFile, reading

_STYLE = ('body{font-family:system-ui,sans-serif;margin:2em}figure{display:inline-block;margin:.5em;vertical-align:top;'
          'width:480px}img{max-width:100%}figcaption{font-size:.85em;overflow-wrap:anywhere}')
_ENDING = '_overlay.png'


def write_gallery(folder: str | Path, *, title: str = 'Predictions') -> Path:
    """Write `index.html` into a folder of results.

    Shown are the pictures `NAME_overlay.png` with what `NAME.json` says of them; in a folder without such, every PNG.

    Args:
        folder: what an inferencer or `--show-dir` has written.
        title: of the page.

    Returns:
        The page.

    Raises:
        MissingFile: no such folder, or no picture in it.
        UnreadableFile: a JSON file beside a picture that cannot be read.
    """
    folder = Path(folder)
    pictures = sorted(folder.glob(f'*{_ENDING}')) or sorted(folder.glob('*.png'))
    if not pictures:
        raise MissingFile(f'{folder.resolve()} holds no pictures (*.png); give the folder that tools/infer.py '
                          '--out or tools/test.py --show-dir wrote')
    figures = [f'<figure><img loading="lazy" src="{quote(path.name)}" alt="{html.escape(path.stem)}"><figcaption>'
               f'<b>{html.escape(path.name.removesuffix(_ENDING).removesuffix(".png"))}</b> '
               f'{html.escape(_caption(path))}</figcaption></figure>' for path in pictures]
    page = (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f'<style>{_STYLE}</style><h1>{html.escape(title)}</h1><p>{len(pictures)} pictures</p>\n'
            + '\n'.join(figures) + '\n</html>\n')
    write_whole(folder / 'index.html', page.encode())
    return folder / 'index.html'


def _caption(picture: Path) -> str:
    stated = picture.with_name(picture.name.removesuffix(_ENDING) + '.json')
    if not picture.name.endswith(_ENDING) or not stated.is_file():
        return ''
    with reading(stated, 'the JSON file of a result', 'write the folder again'):
        content: Any = json.loads(stated.read_text(encoding='utf-8'))
        entries = content if isinstance(content, list) else content.get('segments_info', [])
        best = sorted(entries, key=lambda entry: -(entry.get('score') or 0))[:12]
        return ', '.join(entry.get('category', '?') + ('' if entry.get('score') is None else f' {entry["score"]:.2f}')
                         for entry in best)
