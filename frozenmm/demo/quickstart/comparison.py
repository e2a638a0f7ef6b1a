"""The whole quickstart: paint the scenes, train and test the rows, compare them."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from frozenmm.compat.files import write_whole
from frozenmm.compat.threads import steady_threads
from frozenmm.demo.generated_scenes import PALETTE
from frozenmm.demo.quickstart.report import write_report
from frozenmm.demo.quickstart.rows import ROWS, Budget, Row, RowResult, run_row
from frozenmm.demo.scenes import CLASSES, write_scenes
from frozenmm.engine.command_line import interruptions
from frozenmm.errors import UserError


@dataclass(frozen=True)
class Places:
    """Folders of the quickstart.

    Attributes:
        configs: holds the configs of the rows.
        data: of the generated scenes, painted where they are not there.
        work: gets a folder per budget.
    """

    configs: Path
    data: Path
    work: Path


def compare(budget: Budget, places: Places, *, letters: str = 'abc', seed: int = 0, options: Sequence[str] = (),
            say: Callable[[str], None]) -> list[RowResult]:
    """Train the rows that are not finished yet, write table and pictures, and say what came out.

    All rows compute with one number of threads, chosen before the first, so that the same machine gives the same table
    bit for bit whatever else it does.

    Args:
        budget: what every row may spend.
        places: folders.
        letters: of the rows.
        seed: of initialisation and sampling.
        options: `key=value` changes of the configs.
        say: gets the text for the terminal.

    Raises:
        UserError: none of the letters is a row's.
        KeyboardInterrupt: with the sentence that says how to go on.
    """
    rows = [row for row in ROWS if row.letter in letters]
    if not rows:
        raise UserError(f'no row is chosen by {letters!r}; the rows are {"".join(row.letter for row in ROWS)}')
    folder = places.work / str(budget).replace(' ', '-')
    write_scenes(places.data)
    results = []
    with steady_threads('the quickstart', count=_threads_before(folder)) as threads:
        write_whole(folder / 'threads.txt', f'{threads}\n')
        for row in rows:
            say(f'\n=== row ({row.letter}): {row.meaning}; {_spends(budget, row)}, {threads} '
                f'thread{"s" if threads > 1 else ""} ===')
            with interruptions(partial(_how_to_go_on, row)):
                results.append(run_row(row, budget, folder / row.letter, configs=places.configs, data_root=places.data,
                                       seed=seed, options=options))
    text = write_report(results, budget, folder, classes=CLASSES, palette=PALETTE)
    times = ', '.join(f'({result.letter}) {result.seconds:.0f} s' for result in results)
    say(f'\n{text}\nTraining took {times}. Pictures: {folder / "pictures"}.\nA finished row is not trained again; '
        f'remove {folder} to repeat. To go on: frozenmm infer IMAGE --weights {folder / results[-1].letter}')
    return results


def _how_to_go_on(row: Row) -> str:
    return (f'interrupted in row ({row.letter}); the same command goes on from its last checkpoint, or begins this row '
            'again where there is none')


def _threads_before(folder: Path) -> int | None:
    """The number of threads of a comparison that goes on."""
    file = folder / 'threads.txt'
    text = file.read_text(encoding='ascii').strip() if file.is_file() else ''
    return int(text) if text.isdecimal() and int(text) else None


def _spends(budget: Budget, row: Row) -> str:
    return f'{row.iterations} iterations' if str(budget) == 'recipe' else f'{budget} of training'
