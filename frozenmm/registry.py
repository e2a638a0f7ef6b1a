"""The registries of frozenmm: children of mmengine's, with scope `frozenmm`.

A plain mmdet or mmseg config names our modules as `type='frozenmm.Name'`; the modules are imported when the first name
is looked up. Rooms whose dependency (mmdet, mmseg) is not installed are left out, so the others still work; so is the
room of demonstrations where it has been removed.
"""
from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import registry as mm

from frozenmm.errors import MissingPackage

_ROOMS: dict[str, tuple[str, ...]] = {
    'model': ('frozenmm.models', ),
    'dataset': ('frozenmm.datasets', ),
    'transform': ('frozenmm.datasets', ),
    'metric': ('frozenmm.evaluation', ),
    'hook': ('frozenmm.engine.registered', ),
    'optimizer': ('frozenmm.engine.registered', ),
    'visualizer': ('frozenmm.visualization', ),
    'inferencer': ('frozenmm.apis', ),
}
DEMONSTRATIONS = {'Collages', 'DemoSAM', 'DemoSAMPrompter', 'DemoSAMTower', 'GeneratedRooms', 'GeneratedScenes',
                  'GeneratedScenesPanoptic', 'LightDepth', 'LightDepthHead', 'PromptScenes', 'PromptedIoU',
                  'SceneEpisodes'}
"""Registered classes of `frozenmm.demo`, so that an error can say where they are when that room has been removed."""
DEPTH_NETWORKS = {'LightDepth': 'frozenmm.demo.light_depth', 'HFDepth': 'frozenmm.foundation.depth_networks',
                  'LeReS': 'frozenmm.foundation.depth_networks'}
"""Modules of registered depth networks."""
_DEMO = Path(__file__).with_name('demo')
HAS_DEMO = _DEMO.joinpath('__init__.py').is_file()  # a removed folder may leave its __pycache__ behind
if HAS_DEMO:
    for _role, _index in (('model', 'models'), ('dataset', 'datasets'), ('metric', 'sam.prompted_iou')):
        _ROOMS[_role] += (f'frozenmm.demo.{_index}', )
INDEXES = _ROOMS['model'] + _ROOMS['dataset']
"""Modules that export registered classes, for `frozenmm.Name`."""


def refuse_missing_demonstration(kind: object) -> None:
    """Say where a class of `frozenmm.demo` is to be had when that room has been removed.

    Args:
        kind: the `type` of a config.

    Raises:
        MissingPackage: it is such a class, and the room is not there.
    """
    name = kind.removeprefix('frozenmm.') if isinstance(kind, str) else ''
    if name in DEMONSTRATIONS and not HAS_DEMO:
        raise MissingPackage(f'frozenmm.{name} is demonstration material, and this installation has no folder {_DEMO}; '
                             'name another class in the config, or install frozenmm whole')


def registered_alone(name: str) -> type | None:
    """The depth network of this name, of whose module no index need be imported (which takes seconds); else None."""
    refuse_missing_demonstration(name)
    name = name.removeprefix('frozenmm.')
    return getattr(import_module(DEPTH_NETWORKS[name]), name) if name in DEPTH_NETWORKS else None


class _Child(mm.Registry):
    """A registry that says so when a demonstration is built and the room of demonstrations is not there."""

    def build(self, cfg: dict, *args: Any, **kwargs: Any) -> Any:
        """See mmengine; raises as `refuse_missing_demonstration`."""
        refuse_missing_demonstration(cfg.get('type') if isinstance(cfg, dict) else None)
        return super().build(cfg, *args, **kwargs)


def _child(name: str, parent: mm.Registry, rooms: str) -> mm.Registry:
    return _Child(name, parent=parent, scope='frozenmm', locations=list(_ROOMS[rooms]))


MODELS = _child('model', mm.MODELS, 'model')
MODEL_WRAPPERS = _child('model_wrapper', mm.MODEL_WRAPPERS, 'model')
TASK_UTILS = _child('task util', mm.TASK_UTILS, 'model')
DATASETS = _child('dataset', mm.DATASETS, 'dataset')
DATA_SAMPLERS = _child('data sampler', mm.DATA_SAMPLERS, 'dataset')
TRANSFORMS = _child('transform', mm.TRANSFORMS, 'transform')
METRICS = _child('metric', mm.METRICS, 'metric')
HOOKS = _child('hook', mm.HOOKS, 'hook')
LOOPS = _child('loop', mm.LOOPS, 'hook')
OPTIM_WRAPPERS = _child('optim_wrapper', mm.OPTIM_WRAPPERS, 'optimizer')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer wrapper constructor', mm.OPTIM_WRAPPER_CONSTRUCTORS, 'optimizer')
VISUALIZERS = _child('visualizer', mm.VISUALIZERS, 'visualizer')
INFERENCERS = _child('inferencer', mm.INFERENCERS, 'inferencer')


def installed(package: str) -> bool:
    """Whether a top-level package can be imported, found without importing it."""
    return find_spec(package) is not None
