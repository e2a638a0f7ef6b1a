"""The table of the quickstart, what its rows mean, and the pictures of all rows side by side."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mmcv
import numpy as np

from frozenmm.compat.files import write_whole
from frozenmm.demo.quickstart.rows import Budget, RowResult
from frozenmm.visualization.detections import Boxes, beside_truth

_HEAD = ('row', 'detector', 'AP', 'AP50', 'iterations', 'seconds', 'trained', 'frozen')


def format_table(results: Sequence[RowResult]) -> str:
    """A Markdown table that also reads well in a terminal."""
    lines = [_HEAD] + [(f'({r.letter})', r.meaning, f'{r.ap:.3f}', f'{r.ap50:.3f}', str(r.iterations),
                        f'{r.seconds:.0f}', _millions(r.trained), _millions(r.frozen)) for r in results]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    rows = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in lines]
    rows.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(rows)


def explain(results: Sequence[RowResult], budget: Budget) -> str:
    """What the rows mean and how they compare, in a few sentences."""
    by_letter = {result.letter: result for result in results}
    text = [f'Every row trained a small DINO for {budget} on the same images; AP is the COCO box AP on images whose '
            'backgrounds and lighting never occurred in training.',
            'trained / frozen: millions of parameters that learn / that only compute.']
    if {'a', 'c'} <= by_letter.keys():
        text.append('(c) against (a) is what frozen knowledge is worth instead of a backbone of one\'s own: '
                    f'{_ratio(by_letter["c"], by_letter["a"])}.')
    if {'a', 'b'} <= by_letter.keys():
        text.append('(b) against (a) is what it adds to a backbone of one\'s own, the way of Frozen-DETR: '
                    f'{_ratio(by_letter["b"], by_letter["a"])}.')
    text.append('One run each: differences of a few hundredths may be chance; benchmarks/frozen_detr_quickstart.py '
                'repeats the rows with several seeds.')
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


def _ratio(better: RowResult, base: RowResult) -> str:
    times = f', {better.ap / base.ap:.1f} times' if base.ap > 0 else ''
    return f'AP {base.ap:.3f} -> {better.ap:.3f} ({better.ap - base.ap:+.3f}{times})'
