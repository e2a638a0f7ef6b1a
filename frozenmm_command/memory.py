"""Classes from examples: frozenmm memory add MEMORY PICTURE --name "my mug" --box 40,60,200,220 | --mask mask.png.

`frozenmm infer PICTURE --memory MEMORY` then knows the class. `list` says what a memory holds, `remove` forgets a
class, `export` writes a copy to hand on. A memory belongs to the model that it was filled with.
"""
from __future__ import annotations

import argparse

from frozenmm_command import options
from frozenmm_command.infer import choose_word_model
from frozenmm_command.parsing import Parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    actions = parser.add_subparsers(dest='action', required=True, parser_class=Parser)
    add = actions.add_parser('add', help='remember a region of a picture as an example of a class')
    add.add_argument('memory', help='file; made if it is not there')
    add.add_argument('picture')
    add.add_argument('--name', required=True, help='of the class')
    region = add.add_mutually_exclusive_group(required=True)
    region.add_argument('--box', metavar='X1,Y1,X2,Y2', help='pixels')
    region.add_argument('--mask', help='picture of the same size, not black inside')
    add.add_argument('--model', help='as for `frozenmm infer`; default: the one that `infer` takes')
    add.add_argument('--weights', help='as for `frozenmm infer`')
    options.add_trust(add)
    options.add_device(add)
    actions.add_parser('list', help='classes and their examples').add_argument('memory')
    remove = actions.add_parser('remove', help='forget a class')
    remove.add_argument('memory')
    remove.add_argument('name')
    export = actions.add_parser('export', help='write a copy into one file')
    export.add_argument('memory')
    export.add_argument('file')


def run(args: argparse.Namespace) -> None:
    """Do it."""
    if args.action == 'add':
        return _add(args)
    from frozenmm.foundation.class_memory import ClassMemory
    memory = ClassMemory(args.memory)
    if args.action == 'remove':
        print(f'{args.name}: {memory.remove(args.name)} examples removed')
    elif args.action == 'export':
        print(memory.export(args.file))
    else:
        print('\n'.join(f'{name}: {count}' for name, count in memory.list().items()) or 'no examples')
    return None


def _add(args: argparse.Namespace) -> None:
    from frozenmm.apis import inferencer
    from frozenmm.errors import UserError
    box = None
    if args.box is not None:
        try:
            box = [float(value) for value in args.box.split(',')]
        except ValueError:
            raise UserError(f'--box is X1,Y1,X2,Y2 in pixels, got {args.box!r}') from None
    choose_word_model(args, task=None, memory=True)
    chosen = inferencer(args.model, weights=args.weights, device=args.device, trust_weights=args.trust,
                        memory=args.memory)
    memory = chosen.memory  # type: ignore[attr-defined]  # whoever takes a memory has one
    memory.add(args.picture, args.name, mask=args.mask, box=box)
    name = ' '.join(args.name.split())
    print(f'{args.memory}: {name} has {memory.list()[name]} examples' if name in memory.list() else
          f'{args.memory}: an example of {name} was added')
