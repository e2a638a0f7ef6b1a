"""The same as `frozenmm export`, from a source tree or where mim looks."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frozenmm_command import main

if __name__ == '__main__':
    main('export')
