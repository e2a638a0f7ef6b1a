"""Compare frozenmm with recorded cases of the official code.

    python tools/check_parity.py tests/golden [more paths] [--list] [--json results.json]

Every case below the paths runs through the adapter of its system and kind in `tests/parity/`. Exit status 1: a case
failed, has no adapter, or no case was found.
"""
from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]


def table(results: list) -> str:
    width = max(len(result.case) for result in results)
    lines = [f'{"case":{width}}   absolute   relative   used  outputs  verdict']
    for result in results:
        lines.append(f'{result.case:{width}}  {result.absolute:9.2e}  {result.relative:9.2e}  {result.used:5.0%}  '
                     f'{result.compared:7d}  {result.verdict}')
        lines += [f'{"":{width}}    {note}' for note in result.notes]
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('paths', nargs='+', type=Path, metavar='PATH', help='folders with recorded cases')
    parser.add_argument('--list', action='store_true', help='list the cases and stop')
    parser.add_argument('--json', type=Path, help='write the results to this file')
    arguments = parser.parse_args(arguments)
    from parity.cases import find_cases, run_case
    cases = find_cases(arguments.paths)
    if not cases:
        print(f'no case.json below {", ".join(map(str, arguments.paths))}', file=sys.stderr)
        return 1
    if arguments.list:
        print('\n'.join(case.title for case in cases))
        return 0
    import frozenmm  # noqa: F401  (fills the holes of the installation before an adapter imports mmdet)
    from frozenmm.compat.files import write_whole
    results = [run_case(case) for case in cases]
    print(table(results))
    passed = sum(result.verdict == 'pass' for result in results)
    listed = sum(result.verdict == 'listed' for result in results)
    print(f'{passed} of {len(results) - listed} cases pass' + (f', {listed} listed, not run' if listed else ''))
    if arguments.json:
        write_whole(arguments.json, json.dumps([asdict(result) for result in results], indent=1))
    return 0 if passed + listed == len(results) else 1


if __name__ == '__main__':
    sys.exit(main())
