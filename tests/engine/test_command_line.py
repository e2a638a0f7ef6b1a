from __future__ import annotations

import pytest

from frozenmm.engine.command_line import run_tool


def _raise(error):
    def main():
        raise error
    return main


@pytest.mark.parametrize('kind', [ValueError, FileNotFoundError, KeyError])
def test_an_error_of_the_user_is_one_sentence_and_code_2(kind, capsys):
    with pytest.raises(SystemExit) as end:
        run_tool(_raise(kind('a bad value')))
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith('error: a bad value\n')


def test_the_traceback_is_there_when_asked_for(monkeypatch):
    monkeypatch.setenv('FROZENMM_TRACEBACK', '1')
    with pytest.raises(ValueError, match='a bad value'):
        run_tool(_raise(ValueError('a bad value')))


def test_our_own_faults_keep_their_traceback():
    with pytest.raises(AssertionError):
        run_tool(_raise(AssertionError()))


def test_an_interruption_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit) as end:
        run_tool(_raise(KeyboardInterrupt()))
    assert end.value.code == 130 and 'goes on where it stopped' in capsys.readouterr().err
