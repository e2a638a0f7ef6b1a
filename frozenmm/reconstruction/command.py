"""What `tools/recon.py` does: settings from a config and options, the depth source, progress on the terminal."""
from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import torch
from mmengine.config import Config

from frozenmm.compat.devices import resolve_device
from frozenmm.deprecation import warn_renamed
from frozenmm.errors import MissingFile, UnknownName, UserError, WrongKind, reading
from frozenmm.foundation.depth_networks import DepthNetwork
from frozenmm.foundation.lookup import lookup, nearest
from frozenmm.reconstruction.align import AlignSettings
from frozenmm.reconstruction.bundle_builder import TrackSettings
from frozenmm.reconstruction.depth_sources import NetworkDepth, PrecomputedDepth
from frozenmm.reconstruction.footage import LONGEST_SIDE
from frozenmm.reconstruction.given_lens import given_lens
from frozenmm.reconstruction.known_camera import KnownCamera
from frozenmm.reconstruction.outputs import read_tum
from frozenmm.reconstruction.pipeline import InvalidMask, PipelineSettings, Reconstruction, reconstruct
from frozenmm.registry import MODELS, registered_alone

DEFAULTS: dict[str, object] = {
    'depth': {'type': 'frozenmm.LightDepth'}, 'every': None, 'focal_px': None, 'poses_c2w': None,
    'metric_scale': None, 'radial': None, 'voxel_size': None, 'mesh': True, 'glb': False,
    'min_faces': 100, 'depth_only': False, 'camera': None, 'longest_side': 1024, 'principal': None,
    'mode': 'auto', 'seed': 0}
"""What is used without a config; the same as configs/frozen_recon/frozen_recon_tracks.py."""
_ALSO_IN_CONFIGS = {'custom_imports', 'default_scope'}
_RENAMED = {'poses': 'poses_c2w'}


def read_settings(config: str | Path | None, options: Mapping[str, object] | None = None) -> dict[str, object]:
    """Settings by name: the defaults, changed by a config file, changed by options.

    Raises:
        MissingFile: no such config.
        UserError: an unknown name, with the nearest ones, or a config that is no Python.
    """
    settings = dict(DEFAULTS)
    if config is not None:
        path = Path(config).expanduser()
        if not path.is_file():
            raise MissingFile(f'there is no config {path.absolute()}; leave it out to use the defaults')
        with reading(path, 'a config'):
            content = Config.fromfile(path).to_dict()
        settings.update(_known(content))
    settings.update(_known(options or {}))
    return settings


def _known(values: Mapping[str, object]) -> dict[str, object]:
    found = {}
    for key, value in values.items():
        if key in _RENAMED:
            warn_renamed(f'the setting {key}', _RENAMED[key], removed_in='0.3')
            key = _RENAMED[key]
        if key not in _ALSO_IN_CONFIGS:
            found[lookup(key, list(DEFAULTS), 'setting')] = value
    return found


class ProgressLine:
    """Steps, units done and time left: one line that is refreshed on a terminal, a line per step elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._step, self._begin = '', 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        """Report `done` of `total` units of a step."""
        now = time.monotonic()
        if step != self._step:
            self._step, self._begin = step, now
        if self.stream.isatty():
            spent = now - self._begin
            left = f', {spent / done * (total - done):.0f} s left' if 0 < done < total else ''
            self.stream.write(f'\r\x1b[K{step}: {done} of {total}{left}' + ('\n' if done == total else ''))
        elif done == total:
            self.stream.write(f'{step}: {total} done\n')
        self.stream.flush()


def reconstruct_from(source: str | Path, out: str | Path, *, config: str | Path | None = None,
                     depth: str | Path | None = None, depth_kind: str = 'affine_depth', device: str = 'auto',
                     options: Mapping[str, object] | None = None, mask: InvalidMask | None = None,
                     report: ProgressLine | None = None, depth_unit: str | float = 'auto') -> Reconstruction:
    """Reconstruct a folder of images or a video.

    Args:
        source: the input.
        out: folder of the results.
        config: a config file; None for the defaults.
        depth: precomputed maps in place of the config's network.
        depth_kind: of these maps.
        device: where the network runs, see `resolve_device`.
        options: settings by name that go before the config's.
        mask: says which pixels do not count.
        report: progress; by default on stderr.
        depth_unit: of metric maps, see `PrecomputedDepth`.

    Raises:
        MissingFile: no such input, config or depth.
        DeviceError: there is no such device.
        WrongKind: `depth` of the config is no depth network.
        UserError: a setting or an input that cannot be; see `read_settings`, `read_footage` and `align`.
    """
    where = resolve_device(device)
    values = read_settings(config, options)
    maps = (_network_depth(values['depth'], where) if depth is None else
            PrecomputedDepth(depth, kind=depth_kind, unit=depth_unit))
    return reconstruct(source, out, maps, settings=_pipeline_settings(values), mask=mask,
                       report=report or ProgressLine())


def _network_depth(config: object, device: torch.device) -> NetworkDepth:
    if not isinstance(config, Mapping):
        raise UserError("depth must be the config of a depth network, dict(type='frozenmm.LightDepth'), got "
                        f'{config!r}; depth maps from files are given by --depth')
    name = str(config.get('type'))
    kind = registered_alone(name) or MODELS.get(name)
    if kind is None:
        raise UnknownName(f'depth names {name!r}, which is no registered depth network; did you mean one of '
                          f'{nearest(name.rpartition(".")[2], MODELS.module_dict)}?')
    given = {key: value for key, value in config.items() if key != 'type'}
    try:
        inspect.signature(kind).bind(**given)
    except TypeError as error:
        raise WrongKind(f'the config of depth does not fit {name}: {error}') from error
    network = kind(**given)  # mmengine's way of building imports all of its training
    if not isinstance(network, DepthNetwork):
        raise WrongKind(f'depth must be a depth network, got {type(network).__name__}')
    return NetworkDepth(network, device=device)


def _pipeline_settings(values: Mapping[str, object]) -> PipelineSettings:
    poses_c2w = None if values['poses_c2w'] is None else read_tum(str(values['poses_c2w']))[1]
    return PipelineSettings(
        AlignSettings(mode=str(values['mode']), seed=_whole(values, 'seed') or 0,
                      tracks=TrackSettings(radial=None if values['radial'] is None else _flag(values, 'radial'),
                                           principal=None if values['principal'] is None else
                                           _flag(values, 'principal'))),
        longest_side=_whole(values, 'longest_side') or LONGEST_SIDE,
        lens=None if values['camera'] is None else given_lens(values['camera']),
        every=_whole(values, 'every'), mesh=_flag(values, 'mesh'), glb=_flag(values, 'glb'),
        depth_only=_flag(values, 'depth_only'),
        known=KnownCamera(_number(values, 'focal_px'), poses_c2w, _number(values, 'metric_scale')),
        voxel_size=_number(values, 'voxel_size'), min_faces=_whole(values, 'min_faces') or 0)


def _number(values: Mapping[str, object], name: str) -> float | None:
    value = values[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f'{name} must be a number or None, got {value!r}')
    return float(value)


def _whole(values: Mapping[str, object], name: str) -> int | None:
    value = _number(values, name)
    if value is None:
        return None
    if not value.is_integer():
        raise UserError(f'{name} must be a whole number or None, got {value!r}')
    return int(value)


def _flag(values: Mapping[str, object], name: str) -> bool:
    value = values[name]
    if not isinstance(value, bool):
        raise UserError(f'{name} must be True or False, got {value!r}')
    return value
