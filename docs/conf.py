"""Sphinx settings: pages in Markdown (MyST), and the API reference, one page per room, written from the docstrings."""
from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import frozenmm  # noqa: E402

project = 'frozenmm'
author = 'the authors of frozenmm'
version = release = frozenmm.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx_copybutton']
html_theme = 'furo'
html_title = f'frozenmm {version}'
exclude_patterns = ['_build']
myst_heading_anchors = 3
default_role = 'code'  # docstrings put code between single backticks
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'members': True, 'show-inheritance': True, 'ignore-module-all': True}
napoleon_use_ivar = True
nitpicky = False

ROOMS = ('apis', 'zoo', 'foundation', 'detection', 'segmentation', 'reconstruction', 'ops', 'structures', 'datasets',
         'evaluation', 'engine', 'visualization', 'convert', 'compat')
_OUTSIDE = re.compile(r'\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)')
_RELATIVE = re.compile(r'(\[[^\]]*\])\((?!https?:|#)([^)#]+)(#[^)]*)?\)')
_CODE = re.compile(r'(``?[^`]+``?)')


def write_reference(app: object) -> None:
    """A page per module in a folder per room; a module without public classes and functions has nothing to show.

    The rooms are in the site's navigation and list their modules. With the modules in it as well, every one of 400
    pages would repeat 400 entries, which takes two thirds of the time to build.
    """
    folder = DOCS / 'reference'
    shutil.rmtree(folder, ignore_errors=True)
    for room in ROOMS:
        summaries = {}
        for file in sorted((ROOT / 'frozenmm' / room).rglob('*.py')):
            tree = ast.parse(file.read_text(encoding='utf-8'))
            if file.name != '__main__.py' and _public(tree):
                name = _module(file)
                summaries[name] = (ast.get_docstring(tree) or '').partition('\n\n')[0].replace('\n', ' ')
                write(folder / room / f'{name}.md', f'---\norphan: true\n---\n\n# {name}\n\nIn [frozenmm.{room}]'
                      f'(index.md).\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n')
        write(folder / room / 'index.md', f'# frozenmm.{room}\n\n' + ''.join(
            f'- [{name}]({name}.md): {summary}\n' for name, summary in summaries.items()))
    write(folder / 'index.md', '# API reference\n\nRegistered classes by role: `frozenmm.models`.\n\n'
          + _contents([f'{room}/index' for room in ROOMS]))


def write_manuals(app: object) -> None:
    """The READMEs of configs/ as pages; their relative links are made to start from where the page lies."""
    shutil.rmtree(DOCS / 'manuals', ignore_errors=True)
    for manual in sorted((ROOT / 'configs').glob('*/README.md')):
        write(DOCS / 'manuals' / f'{manual.parent.name}.md', _moved(manual.read_text(encoding='utf-8'), manual.parent))


def _moved(text: str, folder: Path) -> str:
    return _RELATIVE.sub(lambda link: f'{link[1]}({_from_manuals(folder / link[2])}{link[3] or ""})', text)


def _from_manuals(target: Path) -> str:
    target = target.resolve()
    if target.name == 'README.md' and target.parent.parent == ROOT / 'configs':
        target = DOCS / 'manuals' / f'{target.parent.name}.md'
    return os.path.relpath(target, DOCS / 'manuals')


def write(file: Path, text: str) -> None:
    """Write a page, with its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')


def _module(file: Path) -> str:
    return '.'.join(file.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


def _contents(pages: list[str]) -> str:
    return '```{toctree}\n:maxdepth: 1\n\n' + '\n'.join(pages) + '\n```\n'


def _public(tree: ast.Module) -> bool:
    kinds = (ast.ClassDef, ast.FunctionDef)
    return any(isinstance(node, kinds) and not node.name.startswith('_') for node in tree.body)


def escape_docstring(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with code between backticks: what else means something in RST is escaped."""
    parts = _CODE.split('\n'.join(lines))
    for index, part in enumerate(parts):
        if index % 2 == 0:
            parts[index] = re.sub(r'([*|\\])', r'\\\1', part).replace('_ ', r'\_ ')
        else:
            before, after = parts[index - 1][-1:], parts[index + 1][:1]
            parts[index] = (('' if not before or before in ' \n\'"([{<-/:' else '\\ ') + f'``{part.strip("`")}``'
                            + ('' if not after or after in ' \n\'")]}>-/:.,;!?' else '\\ '))
    lines[:] = ''.join(parts).split('\n')


def show_paths(app: object, name: str, source: list[str]) -> None:
    """Links to files outside the pages work on a code host; here they are shown as paths."""
    source[0] = _OUTSIDE.sub(lambda link: f'{link[1]} (`{link[2].removeprefix("../")}`)', source[0])


def setup(app: object) -> None:
    """Connect the functions above."""
    app.connect('builder-inited', write_reference)
    app.connect('builder-inited', write_manuals)
    app.connect('source-read', show_paths)
    app.connect('autodoc-process-docstring', escape_docstring, priority=100)
