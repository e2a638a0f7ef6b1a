"""Where the frozen depth of a clip comes from: files, or a registered depth network."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log

from frozenmm.compat.dependencies import require
from frozenmm.compat.devices import resolve_device
from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.foundation.depth_networks.base import DEPTH_KINDS, DepthNetwork
from frozenmm.reconstruction.depth_model import missing_depth
from frozenmm.reconstruction.footage import resized_depth
from frozenmm.reconstruction.frames import Progress, natural_key

REMEDY = 'save it again as .npy, .npz or 16-bit .png'


class PrecomputedDepth:
    """Depth maps from a folder of `.npy` or 16-bit `.png` files, or from one `.npz` or `.npy` file with all frames.

    Args:
        path: a folder whose files have the names of the frames, or are in their order and number; or a file that holds
            (F, h, w) (in an `.npz` under `depth`, or as its only array).
        kind: `'affine_depth'`, `'affine_disparity'` or `'metric'`.
        unit: of metric depth: `'mm'`, `'m'`, or metres per step as a number; `'auto'` takes whole numbers for
            millimetres where their median is over 100.

    Raises:
        MissingFile: no such path.
        UserError: unknown kind or unit.
    """

    def __init__(self, path: str | Path, *, kind: str = 'affine_depth', unit: str | float = 'auto') -> None:
        self.unit = _metres(unit)
        if kind not in DEPTH_KINDS:
            raise UserError(f'kind must be one of {list(DEPTH_KINDS)}, got {kind!r}')
        self.path, self.kind = Path(path).expanduser(), kind
        if not self.path.exists():
            raise MissingFile(f'there is no depth at {self.path.absolute()}; give a folder of .npy or .png '
                              'files, or a .npz file')

    def maps(self, names: Sequence[str], size: tuple[int, int] | None = None) -> list[np.ndarray]:
        """Depth (h, w) float32 of frames with these names, NaN where nothing was measured.

        Args:
            names: of the frames, without suffix.
            size: (height, width) to which all are resized; None leaves theirs.

        Raises:
            UserError: another number of maps than frames, or a file that cannot be read.
        """
        stack = self._from_folder(names) if self.path.is_dir() else list(self._from_file())
        if len(stack) != len(names):
            raise UserError(f'{self.path} holds {len(stack)} depth maps, but there are {len(names)} frames')
        unit = self._unit_of(stack)
        found = [np.where(missing_depth(values, self.kind), np.nan, values * unit).astype(np.float32)
                 for values in stack]
        return found if size is None else [resized_depth(values, size) for values in found]

    def _unit_of(self, stack: Sequence[np.ndarray]) -> float:
        """Metres per step; the unit of depth without one is free."""
        if self.kind != 'metric' or self.unit is not None:
            return self.unit or 1.0
        middle = float(np.median([np.median(values[values > 0]) for values in stack if (values > 0).any()] or [0]))
        if not all(np.issubdtype(values.dtype, np.integer) for values in stack) or middle < 100:
            return 1.0
        print_log(f'{self.path}: whole numbers of about {middle:.0f} are taken for millimetres; if they are not, give '
                  '--depth-unit', 'current')
        return 1e-3

    def _from_file(self) -> np.ndarray:
        with reading(self.path, 'a file of depth maps', REMEDY):
            content = np.load(self.path)
            if isinstance(content, np.lib.npyio.NpzFile):
                keys = list(content.keys())
                key = 'depth' if 'depth' in keys else keys[0] if len(keys) == 1 else None
                if key is None:
                    raise UserError(f'{self.path} holds the arrays {keys}; expected one called depth')
                content = content[key]
            if content.ndim != 3:
                raise UserError(f'{self.path} holds an array of shape {content.shape}; expected (F, h, w)')
            return content if np.issubdtype(content.dtype, np.integer) else content.astype(np.float32)

    def _from_folder(self, names: Sequence[str]) -> list[np.ndarray]:
        files = {file.stem: file for suffix in ('.png', '.npy') for file in self.path.glob(f'*{suffix}')}
        if all(name in files for name in names):
            chosen = [files[name] for name in names]
        else:
            chosen = sorted(files.values(), key=natural_key)
            if len(chosen) != len(names):
                missing = [name for name in names if name not in files][:3]
                raise UserError(f'{self.path} holds {len(chosen)} depth maps, but there are {len(names)} frames, and '
                                f'no map is called {", ".join(missing)}')
        return [self._read(file) for file in chosen]

    @staticmethod
    def _read(file: Path) -> np.ndarray:
        with reading(file, 'a depth map', REMEDY):
            values = np.load(file) if file.suffix == '.npy' else require('cv2', 'reading depth').imread(str(file), -1)
            if values is None or values.ndim != 2:
                raise UserError(f'{file} is no single-channel depth map')
            return values if np.issubdtype(values.dtype, np.integer) else values.astype(np.float32)


def _metres(unit: str | float) -> float | None:
    """Metres per step; None: by the values."""
    known = {'auto': None, 'mm': 1e-3, 'm': 1.0}
    if unit in known:
        return known[str(unit)]
    try:
        metres = float(unit)
    except ValueError:
        metres = 0.0
    if not metres > 0:
        raise UserError(f'the unit of depth must be one of auto, mm, m, or metres per step, got {unit!r}')
    return metres


class NetworkDepth:
    """Depth predicted by a frozen network, a few frames at a time.

    Args:
        network: any depth network.
        batch: frames per call.
        device: where the network runs, see `resolve_device`.

    Raises:
        DeviceError: there is no such device.
    """

    def __init__(self, network: DepthNetwork, *, batch: int = 4, device: str | torch.device = 'auto') -> None:
        self.device = resolve_device(device)
        self.network = network.to(self.device)
        self.batch, self.kind = batch, network.kind

    def maps(self, images: np.ndarray, report: Progress | None = None) -> np.ndarray:
        """Depth (F, H, W) of RGB images (F, H, W, 3) uint8."""
        found = []
        for start in range(0, len(images), self.batch):
            batch = torch.from_numpy(images[start:start + self.batch]).permute(0, 3, 1, 2).to(self.device)
            found.append(self.network.predict(batch).values.cpu().numpy())
            if report is not None:
                report('frozen depth', min(start + self.batch, len(images)), len(images))
        return np.concatenate(found)
