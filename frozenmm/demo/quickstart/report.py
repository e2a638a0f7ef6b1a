"""The table of the quickstart, what its rows mean, and the pictures of all rows side by side."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mmcv
import numpy as np

from frozenmm.compat.files import write_whole
from frozenmm.demo.quickstart.repeats import uneven_rates, verdict
from frozenmm.demo.quickstart.rows import Budget, RowResult
from frozenmm.visualization.detections import Boxes, beside_truth

_HEAD = ('row', 'detector', 'AP', 'AP50', 'iterations', 'trained', 'frozen')


def format_table(results: Sequence[RowResult]) -> str:
    """A Markdown table that also reads well in a terminal."""
    lines = [_HEAD] + [(f'({r.letter})', r.meaning, f'{r.ap:.3f}', f'{r.ap50:.3f}', str(r.iterations),
                        _millions(r.trained), _millions(r.frozen)) for r in results]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    rows = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in lines]
    rows.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(rows)


_COMPARISONS = (('c', 'a', 'what frozen knowledge is worth instead of a backbone of one\'s own'),
                ('b', 'a', 'what it adds to a backbone of one\'s own, the way of Frozen-DETR'))
_SPENT = {True: 'for {}', False: 'for its number of iterations; they cost the same on a machine that does nothing else'}


def explain(results: Sequence[RowResult], budget: Budget) -> str:
    """What the rows mean and how they compare, in a few sentences without times: they do not depend on the load."""
    by_letter = {result.letter: result for result in results}
    threads = ' and '.join(str(count) for count in sorted({result.threads for result in results}))
    spent = _SPENT[str(budget) != 'recipe'].format(budget)
    text = [f'Every row trained a small DINO {spent}. All saw the same images; AP is the COCO box AP on images whose '
            'backgrounds and lighting never occurred in training.',
            f'trained / frozen: millions of parameters that learn / that only compute. Threads: {threads}.']
    uneven = uneven_rates(results) if budget.minutes is not None else None
    if uneven is not None:
        return '\n'.join([*text, f'No verdict: {uneven}.'])
    for better, base, question in _COMPARISONS:
        if {better, base} <= by_letter.keys():
            text.append(f'({better}) against ({base}) is {question}: AP '
                        f'{verdict(by_letter[better], by_letter[base])}.')
    return '\n'.join(text)


def write_report(results: Sequence[RowResult], budget: Budget, folder: str | Path, *, classes: Sequence[str],
                 palette: Sequence[Sequence[int]]) -> str:
    """Write `table.md`, `results.json` and `pictures/*.png` (all rows side by side) into a folder.

    Returns:
        Table and explanation, as in `table.md`.
    """
    folder = Path(folder)
    text = f'{format_table(results)}\n\n{explain(results, budget)}\n'
    write_whole(folder / 'table.md', text)
    numbers = [{key: value for key, value in asdict(result).items() if key != 'shown'} for result in results]
    write_whole(folder / 'results.json', json.dumps({'budget': asdict(budget), 'rows': numbers}, indent=1))
    (folder / 'pictures').mkdir(parents=True, exist_ok=True)
    for path in results[0].shown if results else ():
        predictions = {f'({r.letter}) {r.meaning}': _boxes(r.shown[path]['prediction'])
                       for r in results if path in r.shown}
        sheet = beside_truth(mmcv.imread(path, channel_order='rgb'), _boxes(results[0].shown[path]['truth']),
                             predictions, classes, palette, width=400)
        mmcv.imwrite(sheet[..., ::-1], str(folder / 'pictures' / f'{Path(path).stem}.png'))
    return text


def _boxes(stored: dict) -> Boxes:
    scores = stored.get('scores')
    return Boxes(np.array(stored['xyxy'], dtype=np.float64).reshape(-1, 4), np.array(stored['labels'], dtype=np.int64),
                 None if scores is None else np.array(scores))


def _millions(count: int) -> str:
    return f'{count / 1e6:.2f} M'
