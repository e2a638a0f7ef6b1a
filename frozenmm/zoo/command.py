"""What `frozenmm zoo` prints."""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from frozenmm.zoo.checkpoints import FOLDER, LARGEST_SUM, checkpoint, problems, read_index
from frozenmm.zoo.models import Model, model, read_models
from frozenmm.zoo.towers import fetch, tower_files


def run(args: argparse.Namespace) -> int:
    """Do what the arguments ask for (`frozenmm_command.zoo` describes them); 1 if `verify` found something wrong."""
    if args.action == 'list':
        print(_listing(args.part))
    elif args.action == 'resolve':
        entry = checkpoint(args.name)
        print(f'weights {entry.resolve()}\nconfig  {entry.config_path}')
    elif args.action == 'fetch':
        print(fetch(args.name))
    elif args.action == 'show':
        print(_description(model(args.name)))
    else:
        return _verify(args.names)
    return 0


def _listing(part: str) -> str:
    lines: list[str] = []
    if part in ('all', 'checkpoints'):
        lines += ['checkpoints (ours, small, for demonstration)']
        for entry in read_index().values():
            state = 'here' if entry.path.is_file() else f'not here; make it with: {entry.make}'
            names = ', '.join((entry.name, *entry.aliases))
            lines += [f'  {names} [{entry.task}; {entry.license}] {state}', f'      {entry.what}']
    if part in ('all', 'models'):
        lines += ['models (configs)']
        for name, known in read_models().items():
            results = '; '.join(f'{row.dataset} ' + ', '.join(f'{key} {value:g}' for key, value in row.metrics.items())
                                + (' (published)' if row.published else ' (measured)') for row in known.results)
            lines += [f'  {name} [{known.collection}]' + (f' {results}' if results else '')]
    if part in ('all', 'towers'):
        lines += ['official weights of frozen networks (frozenmm zoo fetch NAME)']
        lines += [f'  {name:<34} {file.megabytes:>6} MB  {file.license}' for name, file in tower_files().items()]
    return '\n'.join(lines)


def _description(entry: Model) -> str:
    lines = [entry.name, f'  collection      {entry.collection}', f'  config          {entry.config}',
             f'  official code   {entry.code_license}', f'  data            {entry.data_terms}']
    for row in entry.results:
        kind = 'published' if row.published else 'measured'
        lines.append(f'  {row.task}, {row.dataset}: ' + ', '.join(f'{key} {value:g}' for key, value in
                     row.metrics.items()) + f' ({kind}: {row.origin})')
    if entry.official is None:
        return '\n'.join([*lines, '  official weights: none'])
    return '\n'.join([*lines, f'  official weights {entry.official.where}',
                      f'      licence {entry.official.license}; commercial use: {entry.official.commercial}',
                      f'      convert {entry.official.convert}'])


def _verify(names: Sequence[str]) -> int:
    entries = [checkpoint(name) for name in names] or list(read_index().values())
    wrong = 0
    for entry in entries:
        found = problems(entry)
        wrong += len(found)
        print(f'{entry.name}: ' + ('; '.join(found) if found else 'not shipped' if entry.file is None else 'ok'))
    if not names and FOLDER.is_dir():
        known = {entry.file for entry in entries}
        files = sorted(FOLDER.glob('*.safetensors'))
        strangers = [file.name for file in files if file.name not in known]
        total = sum(file.stat().st_size for file in files)
        if strangers:
            print(f'files without an entry in the index: {", ".join(strangers)}')
        if total > LARGEST_SUM:
            print(f'{total} bytes in all, more than {LARGEST_SUM}')
        wrong += len(strangers) + (total > LARGEST_SUM)
    return 1 if wrong else 0
