"""How far a long job over many items is."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable


class Progress:
    """A line with count, speed and time left: refreshed on a terminal, every `every` seconds elsewhere.

    Args:
        total: items of the whole job; 0 where nobody knows.
        every: seconds between lines where the output is no terminal.
        unit: what the items are.
        start: items that an earlier run has done.
    """

    def __init__(self, total: int, every: float = 10.0, *, unit: str = 'images', start: int = 0) -> None:
        self.total = total
        self.done = start
        self._before = start
        self.unit = unit
        self._start = self._last = time.monotonic()
        self._every = 0.5 if sys.stderr.isatty() else every

    def add(self, count: int, note: str | Callable[[], str]) -> None:
        """Count items; the note, where it takes time to make, is only asked for when the line is due."""
        self.done += count
        now = time.monotonic()
        complete = 0 < self.total <= self.done
        if complete or now - self._last >= self._every:
            self._last = now
            speed = (self.done - self._before) / max(now - self._start, 1e-9)
            note = note if isinstance(note, str) else note()
            start, end = ('\r\x1b[K', '') if sys.stderr.isatty() and not complete else ('', '\n')
            of = f' of {self.total}' if self.total else ''
            left = f', {max(self.total - self.done, 0) / max(speed, 1e-9):.0f} s left' if self.total else ''
            sys.stderr.write(f'{start}{self.done}{of} {self.unit} ({note}), {speed:.1f} {self.unit}/s{left}{end}')
            sys.stderr.flush()
