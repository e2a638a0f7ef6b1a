"""A page in the browser to look at a reconstruction: surface, cameras with their pictures, depth of single frames."""
from __future__ import annotations

import contextlib
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frozenmm.compat.dependencies import require
from frozenmm.compat.files import write_whole
from frozenmm.reconstruction.gltf import glb_content
from frozenmm.reconstruction.mesh import Mesh
from frozenmm.reconstruction.motions import rotation_quaternion
from frozenmm.reconstruction.outputs import CLOUD_STRIDE
from frozenmm.reconstruction.results_folder import ResultsFolder

PICTURE_WIDTH = 192
"""Width in pixels of the pictures in the cameras: several hundred of them are sent to the browser at once."""
DEPTH_STRIDE = 2
"""Every n-th pixel of a single frame's depth is drawn."""
DEFAULT_PORT = 8080
_BLUE, _ORANGE = (70, 110, 200), (240, 130, 20)
_WIDE = math.radians(75)
"""Vertical field of view where no frame's own is shown."""
_LIGHT = math.pi
"""Intensity of the only light, under which a surface shows the very colours of its vertices."""


class Viewer:
    """A page that shows a reconstruction; it is served from construction on.

    The controls choose mesh, points or neither, and a frame: its camera is marked and its picture shown; on request its
    depth is drawn as points, and the view jumps to its place.

    Args:
        results: what to show.
        host: address to listen on; only this machine can reach the default.
        port: number; the next free one where it is taken.

    Raises:
        MissingPackage: viser is not installed.
        MissingFile: a file of the results is missing.
        UserError: a file of the results cannot be read.
    """

    def __init__(self, results: ResultsFolder, *, host: str = '127.0.0.1', port: int = DEFAULT_PORT) -> None:
        viser = require('viser', 'the viewer of reconstructions')
        self.results = results
        self.frame = 0
        self._lock = threading.Lock()
        self._distance = [_middle_depth(results.depth(frame)) for frame in range(len(results))]
        pictures = [results.image(frame) for frame in range(len(results))]
        mesh, points = results.mesh(), results.points()
        self.server = viser.ViserServer(host, port, label=results.folder.resolve().name, verbose=False)
        self._set_scene()
        self.surfaces = self._add_surfaces(mesh, points)
        self.cameras = [self._add_camera(frame, picture) for frame, picture in enumerate(pictures)]
        self.depth_points: Any = None
        self._add_controls()
        self.show_frame(0)

    @property
    def address(self) -> str:
        """Of the page."""
        return f'http://{self.server.get_host()}:{self.server.get_port()}'

    def show_frame(self, frame: int) -> None:
        """Mark a frame's camera, show its picture and, where the controls say so, its depth and the view from it."""
        with self._lock, self.server.atomic():
            self.cameras[self.frame].color = _BLUE
            self.cameras[frame].color = _ORANGE
            self.frame = frame
            self.picture.image = self.results.image(frame)
            self.picture.label = self.results.image_paths[frame].name
            self._update_cameras()
            self._update_depth()
            self._direct_views()

    def save(self, path: str | Path) -> Path:
        """Write the scene as one self-contained HTML page without controls, which opens without a server."""
        path = Path(path)
        write_whole(path, self.server.get_scene_serializer().as_html())
        return path

    def close(self) -> None:
        """End serving."""
        self.server.stop()

    def _set_scene(self) -> None:
        scene = self.server.scene
        scene.set_up_direction(self._up())
        scene.configure_default_lights(enabled=False)
        scene.configure_environment_map(hdri=None)
        scene.add_light_ambient('/light', intensity=_LIGHT)
        # the page's own button would send the scene through a server of viser's makers
        self.server.gui.configure_theme(show_share_button=False, show_logo=False)

    def _add_surfaces(self, mesh: Mesh | None, points: Mesh) -> dict[str, Any]:
        surfaces = {'points': self._add_points('/points', points, CLOUD_STRIDE)}
        surfaces['points'].visible = mesh is None
        if mesh is not None:
            surfaces['mesh'] = self.server.scene.add_glb('/mesh', glb_content(mesh))
        return surfaces

    def _add_points(self, name: str, cloud: Mesh, stride: int) -> Any:
        """Points so large that those of every n-th pixel nearly touch at the usual depth."""
        return self.server.scene.add_point_cloud(
            name, cloud.vertices, cloud.colours, point_size=0.5 * stride * self._unit() / self.results.focal_px,
            precision='float32', point_shading='flat')

    def _unit(self) -> float:
        """A length that fits the scene: the median depth."""
        return float(np.median(self._distance))

    def _camera_scale(self) -> float:
        """Length of a drawn camera: the usual step between frames, within 3 and 12 % of the median depth."""
        steps = np.linalg.norm(np.diff(self.results.poses_c2w[:, :3, 3], axis=0), axis=1)
        return float(np.clip(np.median(steps) if len(steps) else 0, 0.03 * self._unit(), 0.12 * self._unit()))

    def _add_camera(self, frame: int, picture: np.ndarray) -> Any:
        height, width = self.results.size
        step = max(width // PICTURE_WIDTH, 1)
        pose = self.results.poses_c2w[frame]
        camera = self.server.scene.add_camera_frustum(
            f'/cameras/{frame:06d}', self._fov(), width / height, scale=self._camera_scale(), color=_BLUE,
            thickness=2, thickness_units='screen', image=_shrunk(picture, step), wxyz=_wxyz(pose), position=pose[:3, 3])
        camera.on_click(lambda _: setattr(self.slider, 'value', frame))
        return camera

    def _fov(self) -> float:
        """Vertical field of view in radians."""
        return 2 * math.atan(self.results.size[0] / 2 / self.results.focal_px)

    def _add_controls(self) -> None:
        gui = self.server.gui
        offers = [name for name in ('mesh', 'points') if name in self.surfaces] + ['nothing']
        self.surface = gui.add_dropdown('surface', offers)
        self.slider = gui.add_slider('frame', 0, max(len(self.results) - 1, 1), 1, 0)
        self.along = gui.add_checkbox('view from its camera', False, hint='jump to the place of the chosen frame')
        self.depth = gui.add_checkbox('its depth as points', False)
        self.shown = gui.add_checkbox('cameras', True, hint='a click on a camera chooses its frame')
        self.enlarged = gui.add_slider('size of cameras', 0.2, 5.0, 0.2, 1.0)
        self.picture = gui.add_image(self.results.image(0), label='')
        self.surface.on_update(lambda _: self._update_surfaces())
        self.enlarged.on_update(lambda _: self._resize_cameras())
        for control in (self.slider, self.along, self.depth, self.shown):
            control.on_update(lambda _: self.show_frame(min(int(self.slider.value), len(self.results) - 1)))

    def _update_surfaces(self) -> None:
        for name, surface in self.surfaces.items():
            surface.visible = name == self.surface.value

    def _update_cameras(self) -> None:
        """Seen from its place, a camera's own picture and those of its neighbours would hide everything."""
        away = np.linalg.norm(self.results.poses_c2w[:, :3, 3] - self.results.poses_c2w[self.frame, :3, 3], axis=1)
        near = 4 * self._camera_scale() * self.enlarged.value
        for distance, camera in zip(away, self.cameras):
            camera.visible = self.shown.value and not (self.along.value and distance < near)

    def _resize_cameras(self) -> None:
        for camera in self.cameras:
            camera.scale = self._camera_scale() * self.enlarged.value
        self._update_cameras()

    def _update_depth(self) -> None:
        if self.depth_points is not None:
            self.depth_points.remove()
            self.depth_points = None
        if self.depth.value:
            cloud = self.results.frame_points(self.frame, stride=DEPTH_STRIDE)
            self.depth_points = self._add_points('/depth', cloud, DEPTH_STRIDE)

    def _direct_views(self) -> None:
        """Set where a page begins that is opened now; on request move the open ones to the frame's place."""
        pose, start = self.results.poses_c2w[self.frame], self.server.initial_camera
        place, target = pose[:3, 3], pose[:3, 3] + self._distance[self.frame] * pose[:3, 2]
        if not self.along.value:
            back = self._unit() * (0.5 * pose[:3, 2] + 0.25 * pose[:3, 1])
            start.position, start.look_at, start.up, start.fov = place - back, target, self._up(), _WIDE
            return
        start.position, start.look_at, start.up, start.fov = place, target, -pose[:3, 1], self._fov()
        for client in self.server.get_clients().values():
            with client.atomic():
                client.camera.position = place
                client.camera.look_at = target
                client.camera.up_direction = -pose[:3, 1]
                client.camera.fov = self._fov()

    def _up(self) -> np.ndarray:
        """(3, ) mean direction of the cameras' upper edges; of the first one where they cancel."""
        up = -self.results.poses_c2w[:, :3, 1].mean(0)
        return up if np.linalg.norm(up) > 1e-6 else -self.results.poses_c2w[0, :3, 1]


def _middle_depth(depth: np.ndarray) -> float:
    known = depth[depth > 0]
    return float(np.median(known)) if len(known) else 1.0


def _wxyz(pose_c2w: np.ndarray) -> np.ndarray:
    return rotation_quaternion(torch.from_numpy(pose_c2w[:3, :3])).numpy()


def _shrunk(picture: np.ndarray, step: int) -> np.ndarray:
    """The picture at 1 / step of its size, by means of blocks."""
    height, width = (length // step * step for length in picture.shape[:2])
    blocks = picture[:height, :width].reshape(height // step, step, width // step, step, 3)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def view(results: ResultsFolder, *, host: str = '127.0.0.1', port: int = DEFAULT_PORT) -> None:
    """Serve the page until Ctrl-C."""
    viewer = Viewer(results, host=host, port=port)
    print(f'{len(results)} frames of {results.folder} are shown at {viewer.address} (Ctrl-C ends it)', flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    viewer.close()
