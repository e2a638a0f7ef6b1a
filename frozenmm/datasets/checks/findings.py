"""What checks of a data set found, and what of it is left to learn from."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from frozenmm.errors import UserError


@dataclass(frozen=True)
class Finding:
    """Something about a data set that its owner should know.

    Attributes:
        severity: an `'error'` ends the run, a `'warning'` may spoil the result, a `'note'` was dealt with.
        file: where it was found.
        text: what it is.
        remedy: what to do, as a clause; empty where nothing need be done.
    """

    severity: Literal['error', 'warning', 'note']
    file: str
    text: str
    remedy: str = ''

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        text = self.text if self.file in self.text else f'{self.file}: {self.text}'
        return '; '.join(part for part in (text, self.remedy) if part)


@dataclass
class Survey:
    """Counts and findings of one data set.

    Attributes:
        name: what the line begins with.
        images: how many there are.
        kept: annotations that training uses.
        dropped: reason -> number of annotations that it does not use.
        findings: in the order in which they were found.
    """

    name: str
    images: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def note(self, file: object, text: str) -> None:
        """Something that was dealt with."""
        self._add(Finding('note', str(file), text))

    def warn(self, file: object, text: str, remedy: str = '') -> None:
        """Something that may spoil the result."""
        self._add(Finding('warning', str(file), text, remedy))

    def fail(self, file: object, text: str, remedy: str) -> None:
        """Something with which nothing can be learnt, or only what is wrong."""
        self._add(Finding('error', str(file), text, remedy))

    def _add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    @property
    def errors(self) -> list[Finding]:
        """What ends a run."""
        return [finding for finding in self.findings if finding.severity == 'error']

    @property
    def line(self) -> str:
        """Images, annotations kept and dropped, in one line."""
        reasons = ', '.join(f'{reason} {count}' for reason, count in sorted(self.dropped.items()) if count)
        total = sum(self.dropped.values())
        return (f'{self.name}: {self.images} images, {self.kept} annotations kept, {total} dropped'
                + (f' ({reasons})' if reasons else ''))

    def raise_errors(self) -> None:
        """Refuse the data set.

        Raises:
            UserError: the first error, and how many more there are.
        """
        if self.errors:
            more = f' ({len(self.errors) - 1} more: `frozenmm check-data` lists them)' if len(self.errors) > 1 else ''
            raise UserError(self.errors[0].sentence + more)
