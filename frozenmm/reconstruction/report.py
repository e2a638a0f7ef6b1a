"""Pictures of a reconstruction: depth strips, the camera's path, residuals, tracks per frame; views of the mesh."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.compat.dependencies import require
from frozenmm.compat.files import whole_file
from frozenmm.reconstruction.align import Alignment
from frozenmm.reconstruction.mesh import Mesh
from frozenmm.reconstruction.render import outside_view, render_mesh

SHOWN = 6
STRIP_WIDTH = 320
"""Greatest width in pixels of an image in the strips."""
OUTSIDE = (480, 640)
"""Size of the picture of a mesh from outside."""


def draw_report(path: Path, images: np.ndarray, frozen: np.ndarray, result: Alignment, *, title: str) -> Path:
    """Write the picture as PNG.

    Args:
        path: of the file.
        images: (F, H, W, 3) uint8.
        frozen: (F, H, W), what the frozen network predicted.
        result: of the alignment.
        title: first line.
    """
    figures = require('matplotlib.figure', 'the picture report')
    shown = np.unique(np.linspace(0, len(images) - 1, SHOWN).round().astype(int))
    figure = figures.Figure(figsize=(2.6 * len(shown), 10.5))
    figure.suptitle(title)
    grid = figure.add_gridspec(3, 1, left=0.05, right=0.98, top=0.93, bottom=0.47, hspace=0.05)
    step = -(-images.shape[2] // STRIP_WIDTH)
    pictures, found = images[shown, ::step, ::step], result.depth[shown, ::step, ::step]
    spans = [np.percentile(values, [1, 99]) for values in frozen[shown]]
    predicted = [(values[::step, ::step] - low) / max(high - low, 1e-9)
                 for values, (low, high) in zip(frozen[shown], spans)]
    limits = ((None, None), (0, 1), tuple(np.percentile(found, [1, 99])))
    strips: dict[str, Any] = {'image': pictures, 'frozen depth': predicted, 'aligned depth': found}
    for row, (name, values) in enumerate(strips.items()):
        axes, (low, high) = figure.add_subplot(grid[row]), limits[row]
        drawn = axes.imshow(np.concatenate(list(values), 1), cmap='turbo', vmin=low, vmax=high)
        axes.set_yticks([])
        axes.set_ylabel(name)
        axes.set_xticks((np.arange(len(shown)) + 0.5) * pictures.shape[2],
                        [f'frame {index}' for index in shown] if row == 0 else [], fontsize=9)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.05, 0.445, 0.93, 0.012)), orientation='horizontal')
    bar.set_label('aligned depth in the unit of the poses (one scale for all frames)')
    plots = figure.add_gridspec(1, 3, left=0.06, right=0.98, top=0.35, bottom=0.06, wspace=0.28)
    for place, draw in zip(plots, (_draw_path, _draw_residuals, _draw_counts)):
        draw(figure.add_subplot(place), result)
    return _save(figure, path)


def draw_mesh(path: Path, mesh: Mesh, images: np.ndarray, result: Alignment) -> Path:
    """Write a picture of the mesh as PNG: from outside, and from two cameras' places beside their photographs.

    Args:
        path: of the file.
        mesh: in the world of the poses.
        images: (F, H, W, 3) uint8.
        result: of the alignment.
    """
    figures = require('matplotlib.figure', 'the picture report')
    height, width = images.shape[1:3]
    intrinsics = np.array([[result.focal_px, 0, (width - 1) / 2], [0, result.focal_px, (height - 1) / 2], [0, 0, 1]])
    figure = figures.Figure(figsize=(13, 6.4))
    grid = figure.add_gridspec(2, 4, left=0.01, right=0.99, top=0.93, bottom=0.02, wspace=0.04, hspace=0.12)
    outside = outside_view(mesh, result.poses_c2w, OUTSIDE)
    pictures = [(grid[:, :2], render_mesh(mesh, *outside, OUTSIDE)[0], f'{len(mesh.faces)} faces, from outside')]
    for row, frame in enumerate((len(images) // 4, 3 * len(images) // 4)):
        seen = render_mesh(mesh, intrinsics, result.poses_c2w[frame], (height, width))[0]
        pictures += [(grid[row, 2], images[frame], f'frame {frame}'), (grid[row, 3], seen, 'the mesh from its place')]
    for place, picture, title in pictures:
        axes = figure.add_subplot(place)
        axes.imshow(picture)
        axes.set_axis_off()
        axes.set_title(title, fontsize=10)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    with whole_file(path) as part:
        figure.savefig(part, format='png', dpi=80)
    return path


def _draw_path(axes: Any, result: Alignment) -> None:
    poses = result.poses_c2w
    centres, forward = poses[:, :3, 3], poses[:, :3, 2]
    reach = 0.06 * max(float(np.ptp(centres, axis=0).max()), 1e-9)
    axes.plot(centres[:, 0], centres[:, 2], '-', color='0.6')
    points = axes.scatter(centres[:, 0], centres[:, 2], c=np.arange(len(poses)), cmap='viridis', s=18, zorder=3)
    axes.quiver(centres[:, 0], centres[:, 2], forward[:, 0] * reach, forward[:, 2] * reach, angles='xy',
                scale_units='xy', scale=1, width=0.004)
    axes.figure.colorbar(points, ax=axes, label='frame')
    axes.set(title='path from above (arrows: view)', xlabel='x', ylabel='z', aspect='equal')
    axes.set_adjustable('datalim')


def _draw_residuals(axes: Any, result: Alignment) -> None:
    pixels = result.reprojection
    if not len(pixels):
        axes.set(title='no feature tracks in this mode')
        axes.set_axis_off()
        return
    axes.hist(pixels, bins=40, range=(0, float(np.percentile(pixels, 99.5))), color='tab:blue')
    axes.axvline(float(np.median(pixels)), color='k', linestyle='--', label=f'median {np.median(pixels):.2f} px')
    axes.set(title='reprojection of kept tracks', xlabel='pixels', ylabel='observations')
    axes.legend()


def _draw_counts(axes: Any, result: Alignment) -> None:
    frames = np.arange(len(result.poses_c2w))
    axes.bar(frames, result.found, color='0.8', label='found')
    axes.bar(frames, result.inliers, color='tab:green', label='fitting')
    axes.set(title='tracks or points per frame', xlabel='frame', ylabel='observations')
    axes.legend()
