from __future__ import annotations

import pytest

from frozenmm.engine.command_line import run_tool
from frozenmm.errors import MissingFile, UnknownName, UserError


def _raise(error):
    def main():
        raise error
    return main


@pytest.mark.parametrize('kind', [UserError, MissingFile, UnknownName])
def test_an_error_of_the_user_is_one_sentence_and_code_2(kind, capsys):
    with pytest.raises(SystemExit) as end:
        run_tool(_raise(kind('a bad value')))
    assert end.value.code == 2
    assert capsys.readouterr().err == 'error: a bad value\n(FROZENMM_TRACEBACK=1 shows where)\n'


def test_the_traceback_is_there_when_asked_for(monkeypatch):
    monkeypatch.setenv('FROZENMM_TRACEBACK', '1')
    with pytest.raises(UserError, match='a bad value'):
        run_tool(_raise(UserError('a bad value')))


@pytest.mark.parametrize('kind', [ValueError, KeyError, TypeError, OSError, ImportError, RuntimeError, AssertionError])
def test_a_fault_of_ours_keeps_its_traceback_and_says_where_to_report_it(kind, capsys):
    with pytest.raises(SystemExit) as end:
        run_tool(_raise(kind('img_shape')))
    assert end.value.code == 1
    shown = capsys.readouterr().err
    assert 'Traceback (most recent call last)' in shown and kind.__name__ in shown
    assert '/issues' in shown and 'frozenmm.env' in shown


@pytest.mark.parametrize(('words', 'shown'), [
    ((), '\nthe command says\n'), (('go on with --resume', ), '\ngo on with --resume\n')])
def test_an_interruption_says_what_is_true_for_the_command(words, shown, capsys):
    with pytest.raises(SystemExit) as end:
        run_tool(_raise(KeyboardInterrupt(*words)), interrupted='the command says')
    assert end.value.code == 130 and capsys.readouterr().err == shown


def test_an_interruption_that_other_code_turned_into_an_error_is_one_still(capsys):
    def main():
        try:
            raise KeyboardInterrupt
        except BaseException as error:
            raise SyntaxError('Failed to format the config file') from error

    with pytest.raises(SystemExit) as end:
        run_tool(main, interrupted='the command says')
    assert end.value.code == 130 and capsys.readouterr().err == '\nthe command says\n'
