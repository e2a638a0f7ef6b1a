"""Recorded cases of official code: found, run through the adapter of their system, compared."""
from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file
from torch import Tensor

ADAPTERS = Path(__file__).parent
BENCHMARKS = {('frozen_recon', 'e2e_clip'): 'a whole optimisation over minutes; a benchmark runs it'}
"""Cases that are listed but not run here, with the reason."""


@dataclass
class Case:
    """One recorded case.

    Attributes:
        folder: where it lies.
        system: `frozen_detr`, ...
        kind: which computation, e.g. `dino_eval`.
        name: which sizes.
        params: sizes and options by official name.
        atol: allowed absolute error.
        rtol: allowed error relative to the recorded value.
        inputs: tensors `in.*` without the prefix; masks are bool where the case says so.
        weights: tensors `w.*` without the prefix, official key names.
        expected: tensors `out.*` by name, and `grad.*` with their prefix.
    """

    folder: Path
    system: str
    kind: str
    name: str
    params: dict
    atol: float
    rtol: float
    inputs: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    expected: dict[str, Tensor] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """`system/kind__name`."""
        return f'{self.system}/{self.kind}__{self.name}'

    def load(self) -> Case:
        """Read the tensors."""
        declared = json.loads((self.folder / 'case.json').read_text()).get('inputs', {})
        for key, value in load_file(self.folder / 'tensors.safetensors').items():
            prefix, _, name = key.partition('.')
            if prefix == 'in':
                is_mask = str(declared.get(name, '')).startswith('bool')
                self.inputs[name] = value.bool() if is_mask else value
            elif prefix == 'w':
                self.weights[name] = value
            else:
                self.expected[name if prefix == 'out' else key] = value
        return self


@dataclass
class Result:
    """Outcome of one case.

    Attributes:
        case: its title.
        verdict: `pass`, `FAIL`, `UNKNOWN` (no adapter) or `listed` (a benchmark, not run here).
        absolute: worst absolute error over all outputs.
        relative: worst error relative to the recorded value, where that exceeds the absolute tolerance.
        used: worst share of the tolerance that an error uses; above 1 is a failure.
        compared: number of outputs compared.
        notes: what failed, and what was not compared with the reason.
    """

    case: str
    verdict: str
    absolute: float = 0.0
    relative: float = 0.0
    used: float = 0.0
    compared: int = 0
    notes: list[str] = field(default_factory=list)


def find_cases(paths: Iterable[Path]) -> list[Case]:
    """All cases below the paths, without their tensors, in the order of their folders."""
    found = []
    for path in paths:
        for file in sorted(Path(path).rglob('case.json')):
            content = json.loads(file.read_text())
            tolerance = content.get('tolerance') or {}  # benchmarks have none
            found.append(Case(file.parent, content['system'], content['kind'], content['name'],
                              content.get('params', {}), float(tolerance.get('atol', 0)),
                              float(tolerance.get('rtol', 0))))
    return found


@cache
def adapters_of(system: str) -> ModuleType | None:
    """`tests/parity/<system>.py`, or None."""
    path = ADAPTERS / f'{system}.py'
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f'parity_{system}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_case(case: Case) -> Result:
    """Run one case through the adapter of its system and kind, and compare.

    The adapter module holds `ADAPTERS` (kind -> function from a case to outputs by name). It may hold `NOT_COMPARED`
    (kind -> pairs of a regular expression of output names and a reason) and `RANKED` (kind -> name of sorted scores and
    names of outputs in the same order).
    """
    if (case.system, case.kind) in BENCHMARKS:
        return Result(case.title, 'listed', notes=[BENCHMARKS[case.system, case.kind]])
    module = adapters_of(case.system)
    if module is None:
        return Result(case.title, 'UNKNOWN', notes=[f'no adapters for the system {case.system!r}'])
    adapter: Callable[[Case], dict[str, Tensor]] | None = module.ADAPTERS.get(case.kind)
    if adapter is None:
        return Result(case.title, 'UNKNOWN', notes=[f'no adapter for the kind {case.kind!r}'])
    try:
        outputs = adapter(case.load())
    except Exception as error:  # a crash is a failed case; the other cases still run
        return Result(case.title, 'FAIL', notes=[f'{type(error).__name__}: {error}'])
    if case.kind in getattr(module, 'RANKED', {}):
        scores, others = module.RANKED[case.kind]
        outputs = follow_ties(case, outputs, scores, others)
    return compare(case, outputs, getattr(module, 'NOT_COMPARED', {}).get(case.kind, ()))


def follow_ties(case: Case, outputs: dict[str, Tensor], scores: str, others: Sequence[str]) -> dict[str, Tensor]:
    """Outputs in the recorded order where recorded scores are equal within the tolerance.

    Args:
        case: the recorded case.
        outputs: what the adapter gave; (B, N) scores and (B, N, ...) others.
        scores: name of the sorted scores.
        others: names of the outputs that go with them.
    """
    names = [scores, *others]
    if any(name not in outputs or outputs[name].shape != case.expected[name].shape for name in names):
        return outputs
    outputs = dict(outputs, **{name: outputs[name].clone() for name in names})
    for row, recorded in enumerate(case.expected[scores]):
        starts = [0, *((recorded[:-1] - recorded[1:]) > case.atol).nonzero().flatten().add(1).tolist(), len(recorded)]
        for start, stop in zip(starts, starts[1:]):
            free = list(range(start, stop))
            order = []
            for index in range(start, stop):
                wanted = {name: case.expected[name][row, index] for name in others}
                best = min(free, key=lambda place: sum(float((outputs[name][row, place] - wanted[name]).abs().sum())
                                                       for name in others))
                free.remove(best)
                order.append(best)
            for name in names:
                outputs[name][row, start:stop] = outputs[name][row, order]
    return outputs


def compare(case: Case, outputs: dict[str, Tensor], skipped: Iterable[tuple[str, str]] = ()) -> Result:
    """Every recorded output within the tolerance of the case, or skipped for a stated reason."""
    result, left_out = Result(case.title, 'pass'), {}
    for name, expected in case.expected.items():
        reason = next((why for pattern, why in skipped if re.fullmatch(pattern, name)), None)
        if reason is not None:
            left_out.setdefault(reason, []).append(name)
            continue
        problem = _compare_one(case, name, outputs.get(name), expected, result)
        if problem:
            result.verdict = 'FAIL'
            result.notes.append(problem)
    result.notes += [f'not compared: {", ".join(names)}: {reason}' for reason, names in left_out.items()]
    if not result.compared:
        result.verdict = 'FAIL'
        result.notes.append('nothing was compared')
    return result


def _compare_one(case: Case, name: str, got: Tensor | None, expected: Tensor, result: Result) -> str | None:
    if got is None:
        return f'{name}: the adapter does not give it'
    if got.shape != expected.shape:
        return f'{name}: shape {tuple(got.shape)}, recorded {tuple(expected.shape)}'
    result.compared += 1
    got, expected = got.detach().cpu().double(), expected.double()
    same = got == expected  # equal infinities have no difference
    error = torch.where(same, torch.zeros_like(got), (got - expected).abs())
    if not error.numel():
        return None
    large = expected.abs() > case.atol
    result.absolute = max(result.absolute, float(error.max().nan_to_num(torch.inf)))
    if large.any():
        result.relative = max(result.relative, float((error / expected.abs())[large].max().nan_to_num(torch.inf)))
    allowed = case.atol + case.rtol * expected.abs()
    result.used = max(result.used, float(torch.where(error == 0, error, error / allowed).max().nan_to_num(torch.inf)))
    bad = ~(error <= allowed)  # written so that NaN counts as outside
    if bad.any():
        return f'{name}: {int(bad.sum())} of {bad.numel()} values outside, worst {float(error.max()):.3g}'
    return None
