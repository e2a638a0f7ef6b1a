"""What a benchmark writes beside its figures: processor, versions, commit."""
from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


def describe_machine() -> dict[str, str]:
    """Processor, cores, threads, versions and the commit of this checkout."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    return {'cpu': models[0] if models else platform.processor(), 'cores': str(os.cpu_count()),
            'threads': str(torch.get_num_threads()), 'torch': torch.__version__,
            'python': platform.python_version(), 'commit': commit.stdout.strip()}
