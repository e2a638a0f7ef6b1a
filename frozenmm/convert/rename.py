"""Key maps as data: rules that rename the keys of a state dict, and a report that accounts for every key."""
from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from frozenmm.errors import UserError


@dataclass(frozen=True)
class Rename:
    r"""One rule.

    Attributes:
        pattern: regular expression that must match the whole key.
        to: the new key, with `\1`, `\2` for groups; None drops the key.
        why: reason of a drop, for the report.
    """

    pattern: str
    to: str | None
    why: str = ''

    def __post_init__(self) -> None:
        if self.to is None and not self.why:
            raise ValueError(f'the rule {self.pattern!r} drops keys, so it needs a reason (`why`)')


@dataclass
class ConversionReport:
    """What became of every key.

    Attributes:
        renamed: old key -> new key.
        aliases: old key -> new key, where another key with equal values had given the new key already.
        kept: keys that no rule matched but that are expected under this very name.
        dropped: old key -> reason.
        unmatched: keys that no rule matched and nobody expects.
        missing: expected keys that the state does not give.
        notes: what else there is to say, one line each.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'{len(self.renamed)} renamed, {len(self.kept)} kept, {len(self.aliases)} aliases with equal values, '
                 f'{len(self.dropped)} dropped, {len(self.unmatched)} unmatched, {len(self.missing)} missing']
        for reason in dict.fromkeys(self.dropped.values()):
            keys = [key for key, why in self.dropped.items() if why == reason]
            lines.append(f'  dropped, {reason}: {_examples(keys)}')
        if self.unmatched:
            lines.append(f'  unmatched: {_examples(self.unmatched)}')
        if self.missing:
            lines.append(f'  missing: {_examples(self.missing)}')
        lines += [f'  {note}' for note in self.notes]
        return '\n'.join(lines)

    def require_all_matched(self, what: str) -> None:
        """Refuse a state with keys that the rules do not know.

        Args:
            what: name of the layout, for the error.

        Raises:
            UserError: some keys are unmatched.
        """
        if self.unmatched:
            raise UserError(f'{len(self.unmatched)} keys do not belong to the layout of {what}: '
                             f'{_examples(self.unmatched)}; is the file from another model or a changed version?')


def _examples(keys: Sequence[str], shown: int = 4) -> str:
    rest = f' and {len(keys) - shown} more' if len(keys) > shown else ''
    return ', '.join(keys[:shown]) + rest


def rename_keys(state: dict[str, Tensor], rules: Sequence[Rename], *,
                expected: Collection[str] | None = None) -> tuple[dict[str, Tensor], ConversionReport]:
    r"""Rename the keys of a state dict; the first rule that matches a key decides.

    Args:
        state: tensors by old key; not changed.
        rules: the key map.
        expected: keys of the model that will load the result, for `kept` and `missing`.

    Returns:
        Tensors by new key, and the report. Unmatched keys are in the report only.

    Raises:
        UserError: two keys become the same new key with different values.

    >>> state, report = rename_keys({'head.w': torch.ones(1), 'ema': torch.ones(1)},
    ...                             [Rename(r'head\.(.+)', r'decoder.\1'), Rename('ema', None, 'a copy')])
    >>> list(state), str(report).splitlines()[-1]
    (['decoder.w'], '  dropped, a copy: ema')
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    report = ConversionReport()
    result: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, value in state.items():
        new = _apply(compiled, key, expected, report)
        if new is None:
            continue
        if new in result:
            if value.shape != result[new].shape or not torch.equal(value, result[new]):
                raise UserError(f'{origin[new]} and {key} both become {new}, but their values differ')
            report.aliases[key] = new
            continue
        result[new], origin[new] = value, key
        if new == key:
            report.kept.append(key)
        else:
            report.renamed[key] = new
    report.missing = [key for key in expected or () if key not in result]
    return result, report


def _apply(rules: list[tuple[re.Pattern, Rename]], key: str, expected: Collection[str] | None,
           report: ConversionReport) -> str | None:
    """The new key, or None after noting in the report why there is none."""
    for pattern, rule in rules:
        match = pattern.fullmatch(key)
        if match is None:
            continue
        if rule.to is None:
            report.dropped[key] = rule.why
            return None
        return match.expand(rule.to)
    if expected is not None and key in expected:
        return key
    report.unmatched.append(key)
    return None
