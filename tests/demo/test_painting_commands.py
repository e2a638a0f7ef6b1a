from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(('arguments', 'message'), [
    (['tools/make_scenes.py', '--size', '8'], 'size must be at least 64'),
    (['tools/make_rooms.py', '--train', '0'], 'train and val must be at least 1'),
    (['tools/quickstart.py', '--rows', 'xyz'], 'no row')])
def test_a_user_error_ends_in_one_sentence_and_exit_code_2(repo_root, arguments, message):
    result = subprocess.run([sys.executable, *arguments], cwd=repo_root, capture_output=True, text=True, timeout=300,
                            env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert result.returncode == 2
    assert message in result.stderr and 'Traceback' not in result.stderr
