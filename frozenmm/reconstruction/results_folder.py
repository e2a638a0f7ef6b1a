"""What `tools/recon.py` wrote, read again: cameras, images, depth and surface of a finished run."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frozenmm.errors import MissingFile, UserError, reading
from frozenmm.reconstruction.frames import read_images
from frozenmm.reconstruction.mesh import Mesh
from frozenmm.reconstruction.outputs import point_cloud, read_ply, read_tum


@dataclass(frozen=True)
class ResultsFolder:
    """A finished reconstruction on disk; images, depth and surface are read when they are asked for.

    Attributes:
        folder: of the results.
        names: of the images, without suffix, F of them.
        image_paths: F files.
        poses_c2w: (F, 4, 4) camera to world.
        focal_px: focal length; the principal point is the centre.
        size: (height, width) of the images.
    """

    folder: Path
    names: list[str]
    image_paths: list[Path]
    poses_c2w: np.ndarray
    focal_px: float
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.names)

    def intrinsics_px(self) -> np.ndarray:
        """(3, 3) of the images."""
        height, width = self.size
        return np.array([[self.focal_px, 0, (width - 1) / 2], [0, self.focal_px, (height - 1) / 2], [0, 0, 1]])

    def image(self, frame: int) -> np.ndarray:
        """RGB image (H, W, 3) uint8 of a frame; see `read_images` for errors."""
        return read_images([self.image_paths[frame]])[0]

    def depth(self, frame: int) -> np.ndarray:
        """Aligned depth (H, W) float32 of a frame, in the unit of the poses; 0 where it is unknown.

        Raises:
            MissingFile: the file is missing.
            UserError: another size than the images'.
        """
        path = self.folder / 'depth' / f'{self.names[frame]}.npy'
        if not path.is_file():
            raise MissingFile(f'there is no depth {path.resolve()}; run tools/recon.py again')
        with reading(path, 'a depth map', 'run tools/recon.py again'):
            depth = np.asarray(np.load(path))
        if depth.shape != self.size:
            raise UserError(f'{path.name} has shape {depth.shape}, but the images have {self.size}')
        return depth

    def frame_points(self, frame: int, *, stride: int = 2) -> Mesh:
        """Points of every n-th pixel of one frame's depth, in world coordinates, without faces."""
        return point_cloud(self.image(frame)[None], self.depth(frame)[None], self.poses_c2w[frame][None], self.focal_px,
                           stride=stride)

    def mesh(self) -> Mesh | None:
        """The fused mesh; None where the run made none."""
        path = self.folder / 'mesh.ply'
        return read_ply(path) if path.is_file() else None

    def points(self) -> Mesh:
        """Points of all frames; see `read_ply` for errors."""
        return read_ply(self.folder / 'points.ply')


def open_results(folder: str | Path) -> ResultsFolder:
    """Read the cameras of a finished reconstruction.

    Args:
        folder: the `--out` folder of `tools/recon.py`.

    Raises:
        MissingFile: no such folder, or no cameras in it.
        UserError: `transforms.json` is no such file, or has another number of cameras than `poses.txt`.
    """
    folder = Path(folder).expanduser()
    file = folder / 'transforms.json'
    if not folder.is_dir():
        raise MissingFile(f'there is no folder {folder.absolute()}; give the --out folder of tools/recon.py')
    if not file.is_file():
        raise MissingFile(f'there is no file {file.absolute()}; give the --out folder of a finished '
                          'tools/recon.py (with depth_only=True it writes no cameras)')
    with reading(file, 'a transforms.json of tools/recon.py', 'run it again'):
        cameras = json.loads(file.read_text(encoding='utf-8'))
        paths = [folder / frame['file_path'] for frame in cameras['frames']]
        focal_px, size = float(cameras['fl_x']), (int(cameras['h']), int(cameras['w']))
    poses = read_tum(folder / 'poses.txt')[1]
    if len(poses) != len(paths):
        raise UserError(f'{folder} has {len(poses)} poses in poses.txt but {len(paths)} frames in transforms.json; '
                        'run tools/recon.py again')
    return ResultsFolder(folder, [path.stem for path in paths], paths, poses, focal_px, size)
