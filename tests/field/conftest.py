"""Other people's data through the real door: a config file, `load_config`, `train`."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frozenmm.engine.launch import load_config, train

TINY = ['train_cfg.max_iters=1', 'train_cfg.val_interval=5', 'default_hooks.checkpoint.interval=5',
        'default_hooks.logger.interval=1']


@pytest.fixture
def field(shared_dir: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A writable copy of a folder of the field inputs."""
    def copy(name: str) -> Path:
        source = shared_dir / 'field' / name
        target = tmp_path / Path(name).name
        shutil.copytree(source, target)
        target.chmod(0o755)
        for path in target.rglob('*'):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return target
    return copy


@pytest.fixture
def run(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, str]]:
    """Train one step of a config with changes; gives the runner and what it logged."""
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path.parent / 'home'))

    def go(base: str, text: str = '', options: tuple[str, ...] = ()) -> tuple[Any, str]:
        config = tmp_path / 'own.py'
        config.write_text(f'_base_ = {str(repo_root / "configs" / base)!r}\n{text}\n')
        work_dir = tmp_path / f'work{len(list(tmp_path.glob("work*")))}'
        cfg = load_config(config, [*TINY, *options], work_dir=work_dir, device='cpu')
        cfg.custom_hooks = []
        runner = train(cfg)
        return runner, next(work_dir.glob('*/*.log')).read_text()
    return go
