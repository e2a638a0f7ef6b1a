"""The house's rules: who may import whom, what an import costs, what the code may not contain."""
from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'frozenmm'
FILES = sorted(PACKAGE.rglob('*.py'))
SYSTEMS = {'detection', 'segmentation', 'reconstruction'}
BASE = {'compat', 'structures', 'registry', 'version', 'errors', 'deprecation'}
FROZEN = BASE | {'ops', 'foundation'}
ALLOWED = {
    '__init__': BASE | {'models', 'ops'},
    '__main__': set(),
    'version': set(),
    'errors': set(),
    'deprecation': {'errors'},
    'registry': {'errors'},
    'compat': {'errors', 'deprecation', 'version'},
    'structures': {'compat', 'errors', 'deprecation'},
    'ops': BASE,
    'foundation': BASE | {'ops'},
    **{system: FROZEN for system in SYSTEMS},
    'datasets': FROZEN,
    'evaluation': FROZEN | {'datasets'},
    'visualization': FROZEN | {'datasets'},
    'engine': FROZEN | {'datasets', 'evaluation', 'visualization'},
    'convert': FROZEN | SYSTEMS,
    'models': FROZEN | SYSTEMS,
    'apis': FROZEN | SYSTEMS | {'convert', 'datasets', 'engine', 'evaluation', 'models', 'visualization', 'zoo'},
    'env': FROZEN,
    'zoo': FROZEN,
    'demo': FROZEN | SYSTEMS | {'apis', 'datasets', 'engine', 'evaluation', 'visualization', 'zoo'},
}
"""Room -> the rooms that it may import (itself apart)."""
PLAIN_ROOMS = {'compat', 'structures', 'ops', 'foundation'}  # torch and mmengine at import, nothing else
PLAIN_PACKAGES = {'torch', 'mmengine', 'numpy', 'safetensors', 'typing_extensions', 'frozenmm'}
OPTIONAL = {'timm', 'open_clip', 'transformers', 'segment_anything', 'skimage', 'clip', 'efficientnet_lite_pytorch'}


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix('.py')


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(file: Path, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that these statements import, relative ones resolved."""
    package = module_name(file).split('.')
    if file.name != '__init__.py':
        package = package[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            source = '.'.join([*base, *(node.module.split('.') if node.module else [])])
            # `from frozenmm import x` names a room, `from frozenmm.x import y` a thing in it
            yield from (f'frozenmm.{alias.name}' for alias in node.names) if source == 'frozenmm' else [source]


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when a module is imported: not those in functions or under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
            continue
        yield node
        yield from at_import(node)


TREES = {file: ast.parse(file.read_text(encoding='utf-8')) for file in FILES}


def test_every_room_has_a_rule():
    assert {room(file) for file in FILES} <= set(ALLOWED)


@pytest.mark.parametrize('name', sorted(ALLOWED))
def test_arrows_between_rooms_point_one_way(name):
    wrong = []
    for file in FILES:
        if room(file) == name:
            for imported in imports(file, ast.walk(TREES[file])):
                top, _, rest = imported.partition('.')
                target = rest.split('.')[0]
                if top == 'frozenmm' and target and target not in ALLOWED[name] | {name} and target in ALLOWED:
                    wrong.append(f'{file.relative_to(ROOT)} imports {imported}')
    assert wrong == []


def test_plain_rooms_import_torch_and_mmengine_only():
    wrong = []
    for file in FILES:
        if room(file) in PLAIN_ROOMS:
            for imported in imports(file, at_import(TREES[file])):
                top = imported.split('.')[0]
                if top not in PLAIN_PACKAGES and top not in sys.stdlib_module_names:
                    wrong.append(f'{file.relative_to(ROOT)} imports {imported}')
    assert wrong == []


def test_plain_rooms_never_import_mmdet_or_mmseg():
    wrong = [f'{file.relative_to(ROOT)}: {imported}' for file in FILES if room(file) in PLAIN_ROOMS
             for imported in imports(file, ast.walk(TREES[file])) if imported.split('.')[0] in ('mmdet', 'mmseg')]
    assert wrong == []


def test_optional_packages_are_imported_on_use():
    wrong = [f'{file.relative_to(ROOT)}: {imported}' for file in FILES
             for imported in imports(file, at_import(TREES[file])) if imported.split('.')[0] in OPTIONAL]
    assert wrong == []


def test_the_package_raises_instead_of_asserting():
    wrong = [f'{file.relative_to(ROOT)}:{node.lineno}' for file in FILES for node in ast.walk(TREES[file])
             if isinstance(node, ast.Assert)]
    assert wrong == []


def test_there_is_no_room_called_utils():
    assert not [path for path in PACKAGE.rglob('*') if path.stem in ('utils', 'util', 'helpers', 'misc', 'common')]


def test_the_code_names_no_machine():
    """No absolute path of somebody's machine and no package index in a tracked text file."""
    folders = '|'.join(('work', 'root', r'home/\w+', 'opt', 'mnt', 'Users'))
    path = re.compile(rf'(?<![\w.~$}}/:-])/({folders})/\w')
    index = re.compile(r'(--|extra[-_])index[-_]url[ =]+[\'"]?https?://')
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split('\n') if listed.returncode == 0 else [str(f.relative_to(ROOT)) for f in FILES]
    wrong = []
    for name in filter(None, names):
        file = ROOT / name
        if file.suffix in ('.py', '.md', '.txt', '.yml', '.toml', '.sh', '.cpp', '.cu', '.h', '') and file.is_file():
            text = file.read_text(encoding='utf-8', errors='ignore')
            wrong += [f'{name}: {found.group()}' for found in (path.search(text), index.search(text)) if found]
    assert wrong == []


def run(code: str, *arguments: str) -> str:
    """The standard output of a fresh interpreter; its errors when it fails."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *arguments], capture_output=True, text=True,
                          env=environment, cwd=ROOT)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


IMPORT_EACH_ALONE = '''
import importlib, os, sys, traceback, types
import torch, mmengine
torch.set_num_threads(1)
# the heavy packages are loaded once, through a bare `frozenmm` whose registries do not exist yet; then every module is
# imported in a child process of its own, from a state in which no part of frozenmm is loaded
bare = types.ModuleType('frozenmm')
bare.__path__ = ['frozenmm']
sys.modules['frozenmm'] = bare
from frozenmm import compat
compat.fill_holes(dict)
import mmdet.models, mmdet.datasets, mmdet.evaluation, mmseg.models, mmseg.datasets, mmseg.evaluation
kept = [sys.modules.pop(name) for name in list(sys.modules) if name.partition('.')[0] == 'frozenmm']
failed = 0
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name, 'does not import alone', flush=True)
        failed = 1
sys.exit(failed)
'''


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_names_of_test_files_are_unique():
    names = Counter(path.name for path in Path(__file__).parent.rglob('test_*.py'))
    assert [name for name, count in names.items() if count > 1] == []  # pytest imports them by name alone


def test_every_module_imports_alone():
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    run(IMPORT_EACH_ALONE, *(module_name(file) for file in FILES if file.name != '__main__.py'))


def test_importing_frozenmm_is_cheap():
    """CPU time, not wall time, so that a busy machine does not decide."""
    seconds = run('import time, torch, mmengine\nstart = time.process_time()\nimport frozenmm\n'
                  'print(time.process_time() - start)')
    assert float(seconds.splitlines()[-1]) < 1.0


def test_importing_frozenmm_loads_no_heavy_package():
    loaded = run('import torch, mmengine, sys\nbefore = set(sys.modules)\nimport frozenmm\n'
                 'print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))').splitlines()[-1]
    heavy = {'mmdet', 'mmseg', 'mmcv', 'cv2', 'timm', 'torchvision', 'open_clip', 'transformers', 'scipy', 'skimage'}
    # `mmcv._ext` is the stand-in; it is there without mmcv itself
    assert not {name for name in ast.literal_eval(loaded) if name in heavy - {'mmcv'}}
    assert run('import frozenmm, sys\nprint("mmcv" in sys.modules)').splitlines()[-1] == 'False'


RECONSTRUCTION = '''
import sys
from frozenmm.engine.command_line import run_tool
from frozenmm.engine.options import parse_options
from frozenmm.reconstruction.command import DEFAULTS, _network_depth
import torch
print(_network_depth(DEFAULTS['depth'], torch.device('cpu')).network.name)
print([name for name in ('mmengine.runner', 'mmengine.model', 'mmdet', 'mmseg', 'transformers') if name in sys.modules])
'''


def test_a_reconstruction_does_not_wait_for_what_only_trainings_need():
    assert run(RECONSTRUCTION).splitlines() == ['LightDepth', '[]']


MASKED = '''
import sys
masked = set(sys.argv[1].split(','))
class Mask:
    """A finder that does not see the masked packages."""
    def __init__(self, inner): self.inner = inner
    def find_spec(self, name, path=None, target=None):
        return None if name.partition('.')[0] in masked else self.inner.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.inner, name)
sys.meta_path[:] = [Mask(finder) for finder in sys.meta_path]
import torch, frozenmm
from frozenmm.registry import MODELS, installed
assert not any(map(installed, masked))
import frozenmm.models, frozenmm.datasets, frozenmm.evaluation, frozenmm.engine.registered, frozenmm.visualization
backbone = MODELS.build(dict(type='frozenmm.FrozenBackbone', tower=dict(
    type='frozenmm.EfficientNetLiteTower', weights='random'), image_stats=dict(
    mean=[0, 0, 0], std=[1, 1, 1], channel_order='rgb')))
print(len(backbone(torch.zeros(1, 3, 64, 64))), hasattr(frozenmm.models, 'EnhancedDINO'))
'''


@pytest.mark.parametrize(('masked', 'detectors'), [('mmseg', True), ('mmdet', False), ('mmdet,mmseg,mmcv', False)])
def test_it_works_with_one_of_mmdet_and_mmseg_or_none(masked, detectors):
    assert run(MASKED, masked).splitlines()[-1] == f'5 {detectors}'


def test_without_mmengine_the_error_says_what_to_install():
    code = MASKED.split('import torch, frozenmm')[0] + '\ntry:\n    import frozenmm\nexcept ImportError as e: print(e)'
    assert run(code, 'mmengine').strip() == ('frozenmm needs the package \'mmengine\', which is not installed. '
                                             'Install it with: pip install mmengine')
