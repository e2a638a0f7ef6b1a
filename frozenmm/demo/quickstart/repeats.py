"""What may be said about two rows: only what repeats with several seeds have shown, and only of runs like those."""
from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frozenmm.demo.quickstart.rows import ROWS, RowResult

_LIKE = 1.5
"""Factor by which the iterations of a run may differ from those of the repeats that speak for it."""
_UNLIKE = 4.0
"""Standard deviations by which a run's gain may fall short of its repeats' before something else is the matter."""


@dataclass(frozen=True)
class Repeats:
    """The rows trained with several seeds.

    Attributes:
        iterations: of every row.
        ap: COCO box AP of every row, one value per seed.
    """

    iterations: Mapping[str, int]
    ap: Mapping[str, Sequence[float]]

    def gap(self, better: str, base: str) -> tuple[float, float]:
        """Mean gain of one row over another, and the pooled standard deviation of the two."""
        rows = self.ap[better], self.ap[base]
        weights = [len(row) - 1 for row in rows]
        pooled = sum(weight * statistics.variance(row) for weight, row in zip(weights, rows)) / sum(weights)
        return statistics.mean(rows[0]) - statistics.mean(rows[1]), math.sqrt(pooled)

    def like(self, *results: RowResult) -> bool:
        """Whether runs have about as many iterations as these."""
        shares = [result.iterations / self.iterations[result.letter] for result in results]
        return all(1 / _LIKE <= share <= _LIKE for share in shares)


REPEATS = (
    Repeats({'a': 110, 'b': 96, 'c': 148}, {'a': (0.009, 0.019, 0.012), 'b': (0.023, 0.022, 0.020),
                                            'c': (0.208, 0.191, 0.166)}),
    Repeats({'a': 535, 'b': 467, 'c': 718}, {'a': (0.154, 0.164, 0.174), 'b': (0.223, 0.258, 0.185),
                                             'c': (0.430, 0.446, 0.416)}),
)
"""Seeds 0, 1, 2: the recipe, and five minutes per row (`benchmarks/results/frozen_detr_quickstart.json`)."""


def verdict(better: RowResult, base: RowResult) -> str:
    """What one run of two rows, together with the repeats, says about them."""
    gain = better.ap - base.ap
    repeats = next((repeats for repeats in REPEATS if repeats.like(better, base)), None)
    if repeats is None:
        return f'{gain:+.3f}; one run cannot tell, and nobody has repeated runs of about so many iterations'
    mean, deviation = repeats.gap(better.letter, base.letter)
    known = f'{len(repeats.ap[base.letter])} seeds gave {mean:+.3f}, standard deviation {deviation:.3f}'
    if mean <= 2 * deviation:
        return f'{gain:+.3f}; one run cannot tell: {known}'
    if gain <= max(0.0, mean - _UNLIKE * deviation):
        return f'{gain:+.3f}; this run is unlike the repeats, so it says nothing: {known}'
    return f'{gain:+.3f}, a gain that repeats have shown: {known}'


def uneven_rates(results: Sequence[RowResult]) -> str | None:
    """What is wrong with the speed of rows that were trained against the clock, or None.

    Expected is the speed of the quiet machine of `Row.seconds` or of one that is slower by a factor of two; 1 / sqrt(2)
    lies in the middle of the two, and half of it is allowed for either way.
    """
    expected = {row.letter: 1 / (math.sqrt(2) * row.seconds) for row in ROWS}
    shares = {result.letter: result.iterations / max(result.seconds, 1e-9) / expected[result.letter]
              for result in results}
    if all(0.5 <= share <= 1.5 for share in shares.values()):
        return None
    text = ', '.join(f'({letter}) {100 * share:.0f} %' for letter, share in shares.items())
    return (f'the rows had {text} of the iterations per second that a quiet machine gives, so their minutes bought '
            'unequal work and the table compares the load of this machine; `make train` without MINUTES does not '
            'depend on it')
