"""`frozenmm analyse layers`: tables of a small ViT on a picture, and its help without torch."""
from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from frozenmm_command import main


def analyse(*arguments):
    """Exit code of a command line."""
    try:
        main('analyse', ['layers', *arguments])
    except SystemExit as end:
        return end.code
    return 0


def test_tables_of_a_tower(tmp_path, capsys):
    pytest.importorskip('timm')
    cv2.imwrite(str(tmp_path / 'a.png'), np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    assert analyse(str(tmp_path / 'a.png'), '--tower', 'timm:vit_tiny_patch16_224', '--weights', 'random',
                   '--skip', '1', '--device', 'cpu', '--out', str(tmp_path / 'out.json')) == 0
    tables = json.loads((tmp_path / 'out.json').read_text())
    said = capsys.readouterr().out
    assert len(tables['cosines']) == 12 and all(-1 <= cosine <= 1 for cosine in tables['cosines'])
    assert [len(row['blocks']) for row in tables['skipped']] == [0, 1] and tables['skipped'][1]['error'] > 0
    assert '1 pictures' in said and f'{tables["skipped"][1]["error"]:.3f}' in said


def test_a_wrong_name_is_answered(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    assert analyse(str(tmp_path / 'a.png'), '--tower', 'dinov2') == 2
    assert 'FAMILY:MODEL' in capsys.readouterr().err
    assert analyse(str(tmp_path / 'a.png'), '--tower', 'dyno:x') == 2
    assert "the family of a tower must be one of ['clip'" in capsys.readouterr().err


def test_help_loads_no_torch():
    code = ('import sys\nfrom frozenmm_command import main\n'
            'try:\n    main("analyse", ["layers", "--help"])\nexcept SystemExit:\n    print("torch" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == 'False' and '--tower' in done.stdout
