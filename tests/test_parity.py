"""Every recorded case of the official code that the repository carries, and the tool that runs them."""
from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parity.cases import Case, adapters_of, find_cases, follow_ties, run_case
from safetensors.torch import load_file, save_file

import frozenmm  # noqa: F401  (before mmdet, so that the holes of the installation are filled)

ROOT = Path(__file__).resolve().parents[1]
CASES = find_cases([ROOT / 'tests' / 'golden'])


@pytest.mark.parity
@pytest.mark.parametrize('case', CASES, ids=[case.title for case in CASES])
def test_recorded_case(case):
    if adapters_of(case.system) is None:
        pytest.skip(f'tests/parity/{case.system}.py does not exist; other tests use this case')
    result = run_case(case)
    assert result.verdict in ('pass', 'listed'), '\n'.join(result.notes)


def copy_case(folder: Path, name: str = 'clip_multi_class_token__boxes') -> Path:
    return Path(shutil.copytree(ROOT / 'tests' / 'golden' / 'frozen_detr' / name, folder / name))


def edit(folder: Path, **changes: object) -> None:
    file = folder / 'case.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(scope='module')
def tool():
    """`main` of the command."""
    spec = importlib.util.spec_from_file_location('check_parity', ROOT / 'tools' / 'check_parity.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


def test_a_changed_value_fails(tmp_path):
    folder = copy_case(tmp_path)
    tensors = load_file(folder / 'tensors.safetensors')
    tensors['out.xyxy_5'][2, 1, 0] += 1
    save_file(tensors, folder / 'tensors.safetensors')
    result = run_case(find_cases([tmp_path])[0])
    assert result.verdict == 'FAIL' and 'xyxy_5: 1 of 100 values outside' in result.notes[0]


def test_not_a_number_fails(tmp_path):
    folder = copy_case(tmp_path)
    tensors = load_file(folder / 'tensors.safetensors')
    tensors['out.xyxy_5'][0, 0, 0] = torch.nan
    save_file(tensors, folder / 'tensors.safetensors')
    assert run_case(find_cases([tmp_path])[0]).verdict == 'FAIL'


def test_an_output_that_no_adapter_gives_fails(tmp_path):
    folder = copy_case(tmp_path)
    tensors = load_file(folder / 'tensors.safetensors')
    save_file(dict(tensors, **{'out.other': torch.zeros(1)}), folder / 'tensors.safetensors')
    assert 'other: the adapter does not give it' in run_case(find_cases([tmp_path])[0]).notes


def test_a_crash_is_a_failure_with_its_message(tmp_path):
    edit(copy_case(tmp_path), params=dict(num_class_tokens=[6]))
    result = run_case(find_cases([tmp_path])[0])
    assert result.verdict == 'FAIL' and result.notes[0].startswith('UserError: the number of image queries')


@pytest.mark.parametrize('change', [dict(kind='no_such_kind'), dict(system='no_such_system')], ids=['kind', 'system'])
def test_unknown_kinds_and_systems_are_no_pass(tmp_path, change):
    edit(copy_case(tmp_path), **change)
    assert run_case(find_cases([tmp_path])[0]).verdict == 'UNKNOWN'


def test_a_benchmark_case_is_listed(tmp_path):
    edit(copy_case(tmp_path), system='frozen_recon', kind='e2e_clip')
    assert run_case(find_cases([tmp_path])[0]).verdict == 'listed'


def test_equal_scores_may_change_places():
    expected = dict(scores=torch.tensor([[0.9, 0.5, 0.5, 0.1]]), labels=torch.tensor([[1, 2, 3, 4]]))
    case = Case(Path(), '', '', '', {}, 1e-6, 0.0, expected=expected)
    swapped = dict(scores=expected['scores'], labels=torch.tensor([[1, 3, 2, 4]]))
    assert follow_ties(case, swapped, 'scores', ['labels'])['labels'].tolist() == [[1, 2, 3, 4]]
    wrong = dict(scores=expected['scores'], labels=torch.tensor([[2, 1, 3, 4]]))
    assert follow_ties(case, wrong, 'scores', ['labels'])['labels'].tolist() != [[1, 2, 3, 4]]


def test_the_tool_exits_with_its_verdict(tmp_path, tool, capsys):
    assert tool(copy_case(tmp_path / 'good'), '--json', tmp_path / 'out.json') == 0
    assert '1 of 1 cases pass' in capsys.readouterr().out
    assert json.loads((tmp_path / 'out.json').read_text())[0]['verdict'] == 'pass'
    bad = copy_case(tmp_path / 'bad')
    edit(bad, kind='no_such_kind')
    assert tool(bad) == 1


def test_the_tool_prints_what_is_not_compared_and_why(tool, capsys):
    assert tool(ROOT / 'tests/golden/frozen_detr/dino_train_dn__clip_b2_padded') == 0
    assert 'loss_xy_interm: the official code only logs it' in capsys.readouterr().out


def test_the_tool_lists(tmp_path):
    command = [sys.executable, ROOT / 'tools' / 'check_parity.py', copy_case(tmp_path), '--list']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == 'frozen_detr/clip_multi_class_token__boxes\n'


def test_the_tool_refuses_a_folder_without_cases(tmp_path, tool, capsys):
    assert tool(tmp_path) == 1 and 'no case.json below' in capsys.readouterr().err
