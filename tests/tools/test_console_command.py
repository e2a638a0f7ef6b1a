"""The console command: what it knows, how fast it answers, and what it says to a misspelt word."""
from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import frozenmm_command
from frozenmm_command import COMMANDS, main
from frozenmm_command.parsing import Parser

FOLDER = Path(frozenmm_command.__file__).parent
HELPERS = {'__init__', 'options', 'parsing'}


def module_of(command):
    return import_module(f'frozenmm_command.{command.replace("-", "_")}')


def ended(capsys, *arguments):
    """Exit code and what was printed (both streams)."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(arguments=list(arguments))
    return end.value.code, ''.join(capsys.readouterr())


def test_every_module_is_a_command_and_the_other_way_round():
    assert {path.stem for path in FOLDER.glob('*.py')} - HELPERS == {name.replace('-', '_') for name in COMMANDS}


@pytest.mark.parametrize('command', COMMANDS)
def test_reading_arguments_loads_neither_torch_nor_frozenmm(command):
    code = (f'import sys\nfrom frozenmm_command import main\ntry:\n    main({command!r}, ["--help"])\n'
            'except SystemExit as end:\n    assert end.code == 0\n'
            'heavy = {"torch", "numpy", "frozenmm", "mmengine"} & set(sys.modules)\nassert not heavy, heavy')
    done = subprocess.run([sys.executable, '-c', code], cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: frozenmm {command} ')


def test_help_lists_every_command(capsys):
    code, shown = ended(capsys, '--help')
    assert code == 0 and set(re.findall(r'^  ([\w-]+)  ', shown, re.M)) == set(COMMANDS)


def test_the_version_is_that_of_the_package(capsys):
    from frozenmm.version import __version__
    assert ended(capsys, '--version') == (0, f'frozenmm {__version__}\n')


@pytest.mark.parametrize(('arguments', 'message'), [
    (['infr', 'a.png'], "there is no command 'infr' (nearest: infer)"),
    (['xyzxyz'], "there is no command 'xyzxyz'; `frozenmm --help` lists all"),
    (['infer', 'a.png', '--devce', 'cpu'], 'there is no option --devce (nearest: --device'),
    (['recon', 'frames', '--ot', 'x'], 'there is no option --ot (nearest: --out)'),
    (['zoo', 'lst'], "invalid choice: 'lst' (choose from"),
    (['zoo', 'lst'], '(nearest: list)'),
    (['recon', 'a', 'b', 'c', '--out', 'x'], 'expected [CONFIG] INPUT, got 3 paths'),
    (['prepare'], 'name a data set, or use --list'),
    (['score', 'a', 'b', '--kind', 'scanet'], "did you mean one of ['scannet'"),
])
def test_a_mistake_names_the_nearest_and_ends_with_exit_code_2(capsys, arguments, message):
    code, shown = ended(capsys, *arguments)
    assert code == 2 and message in shown and 'Traceback' not in shown


def test_an_abbreviated_option_is_no_mistake(capsys):
    parser = Parser(prog='frozenmm x')
    parser.add_argument('--device')
    parser.add_argument('--out', required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(['--dev', 'cpu'])
    assert 'there is no option' not in capsys.readouterr().err


def test_every_tool_is_a_thin_front_of_a_command(repo_root):
    """Those that need the repository (its recorded cases, its zoo) have their work in the file."""
    fronts = {}
    for path in (repo_root / 'tools').rglob('*.py'):
        called = [node.args[0].value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
                  and getattr(node.func, 'id', '') == 'main' and node.args]
        fronts[path.stem] = called
    own = {name for name, called in fronts.items() if not called}
    assert own == {'check_parity', 'export_checkpoint', 'export_depth'}
    others = set(COMMANDS) - {'zoo', 'env', 'material', 'memory', 'analyse'}
    assert sorted(name for called in fronts.values() for name in called) == sorted(others)


def test_the_package_runs_as_a_module(repo_root):
    done = subprocess.run([sys.executable, '-m', 'frozenmm', '--help'], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0 and 'usage: frozenmm COMMAND' in done.stdout


def test_a_missing_mmengine_is_one_sentence(repo_root):
    code = ('import sys, importlib.util as u\nfind = u.find_spec\n'
            'u.find_spec = lambda name, *a: None if name == "mmengine" else find(name, *a)\n'
            'from frozenmm_command import main\nmain("env", [])')
    done = subprocess.run([sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert "needs the package 'mmengine'" in done.stderr and 'pip install' in done.stderr


@pytest.mark.parametrize('arguments', [['--help'], ['zoo', 'list']])
def test_a_reader_that_has_seen_enough_ends_the_command_quietly(arguments, repo_root):
    command = subprocess.Popen(
        [sys.executable, '-c', 'from frozenmm_command import main; main()', *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=repo_root)
    command.stdout.close()  # before the first line
    assert command.stderr.read() == '' and command.wait(120) == 141
