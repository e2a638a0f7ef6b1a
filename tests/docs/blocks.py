"""Code blocks of Markdown files, with what a comment right above them says about running them.

`<!-- file: NAME -->`: the block is a file that later blocks use. `<!-- run with: ARGUMENTS -->`: added to every
`python tools/...` or `frozenmm ...` line, so that a command takes seconds. `<!-- needs: TASK -->`: run where the zoo
has a checkpoint for the task on this machine. `<!-- not run: REASON -->`: one of `NOT_RUN`.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = {
    'readme': 'set-up and training from a clean clone: .ci/readme runs it',
    'weights': 'needs weights that must be fetched, or a file of the user',
    'cluster': 'needs several GPUs or a scheduler',
    'install': 'installs packages',
    'demo': 'serves a page until it is stopped: tests/demo runs it',
    'data': 'needs data that must be fetched, or a file of the user',
    'fragment': 'a part of a config, whose whole is a shipped config',
}
LANGUAGES = {'python', 'bash', 'text', 'json', 'yaml', 'html', '{toctree}', '{eval-rst}'}
_BLOCK = re.compile(r'(?:<!-- *(?P<kind>[a-z ]+): *(?P<note>.*?) *-->\n)?(?P<indent>[ ]*)```(?P<language>[^\n]*)\n'
                    r'(?P<code>.*?)\n?(?P=indent)```', re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: after the fence.
        code: its lines.
        line: number of its first line in the file.
        kind: of the comment above it, e.g. `'not run'`; empty without one.
        note: the rest of the comment.
    """

    language: str
    code: str
    line: int
    kind: str
    note: str


def read_blocks(path: Path) -> list[Block]:
    """All fenced blocks of a file, in order."""
    text = path.read_text(encoding='utf-8')
    return [Block(found['language'].strip(), found['code'], text[:found.start('code')].count('\n') + 1,
                  found['kind'] or '', found['note'] or '') for found in _BLOCK.finditer(text)]


def documents(root: Path) -> list[Path]:
    """README.md, the pages under docs/, and the READMEs of configs."""
    return [root / 'README.md', *sorted((root / 'docs').glob('*.md')), *sorted((root / 'configs').glob('*/README.md'))]
