"""The random transforms of Fusioner's training, on an image and its label maps.

Source: Fusioner (Ma et al., BMVC 2022), training data of the released code. Images are uint8, three channels.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from frozenmm.compat import require
from frozenmm.errors import UserError
from frozenmm.registry import TRANSFORMS

IGNORE = 255
_LUMA = {'bgr': (0.114, 0.587, 0.299), 'rgb': (0.299, 0.587, 0.114)}
_TRIES = 10
_ELASTIC_PX = 20


@TRANSFORMS.register_module()
class FusionerAugmentation(BaseTransform):
    """One of two crops to a square, then, half of the time, a chain whose links are each taken half of the time.

    Crops: (a) a part of 50 to 100 % of the area with an aspect ratio of 3/4 to 4/3, resized; (b) the short side resized
    to `size`, then a square at random. Links: colours, noise of variance 10 to 50, mirroring, an affine warp by up to
    20 pixels of 224, and shift and scale by up to 10 % with a rotation.

    Args:
        size: side of the result in pixels.
        colour: strength of brightness, contrast, saturation and hue; officially 0.5 for PASCAL-5i, 0.2 for COCO-20i.
        degrees: largest rotation; officially 20 and 10.
        border: label of what a warp brings in from outside; 255 does not count, the official 0 is background.
        channel_order: of the images, `'bgr'` (as mmcv loads them) or `'rgb'`.

    Raises:
        UserError: a size below 1, a strength outside 0..1 (hue: 0.5), an unknown channel order.
    """

    def __init__(self, size: int, *, colour: float = 0.5, degrees: float = 20.0, border: int = IGNORE,
                 channel_order: str = 'bgr') -> None:
        if size < 1:
            raise UserError(f'size must be at least 1 pixel, got {size}')
        if not 0 <= colour <= 0.5:
            raise UserError(f'colour must be in 0..0.5 (hue is an angle in half turns), got {colour}')
        if channel_order not in _LUMA:
            raise UserError(f'channel_order must be one of {list(_LUMA)}, got {channel_order!r}')
        self.size = size
        self.colour = colour
        self.degrees = degrees
        self.border = border
        self.channel_order = channel_order

    def transform(self, results: dict) -> dict:
        """The sample with `img` (size, size, 3) uint8 and its label maps (`seg_fields`) cut and warped alike."""
        crop = self._area_crop if np.random.rand() < 0.5 else self._short_side_crop
        crop(results)
        if np.random.rand() < 0.5:
            links: tuple[Callable[[dict], None], ...] = (self._colours, self._noise, self._mirror, self._elastic,
                                                         self._shift_scale_rotate)
            for link in links:
                if np.random.rand() < 0.5:
                    link(results)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(size={self.size}, colour={self.colour}, degrees={self.degrees}, '
                f'border={self.border})')

    def _area_crop(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        for _ in range(_TRIES):
            area = height * width * np.random.uniform(0.5, 1.0)
            aspect = math.exp(np.random.uniform(math.log(3 / 4), math.log(4 / 3)))
            tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < tall <= height and 0 < wide <= width:
                top, left = np.random.randint(height - tall + 1), np.random.randint(width - wide + 1)
                break
        else:  # the largest central part of an allowed aspect ratio
            tall, wide = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
            top, left = (height - tall) // 2, (width - wide) // 2
        _cut(results, max(top, 0), max(left, 0), max(tall, 1), max(wide, 1))
        _resize(results, (self.size, self.size))

    def _short_side_crop(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        scale = self.size / min(height, width)
        tall, wide = max(round(height * scale), self.size), max(round(width * scale), self.size)
        _resize(results, (tall, wide))
        _cut(results, np.random.randint(tall - self.size + 1), np.random.randint(wide - self.size + 1), self.size,
             self.size)

    def _colours(self, results: dict) -> None:
        """Brightness, contrast, saturation and hue, in random order."""
        low, high = 1 - self.colour, 1 + self.colour
        brightness, contrast, saturation = (np.random.uniform(low, high) for _ in range(3))
        turn = np.random.uniform(-self.colour, self.colour)
        luma = np.array(_LUMA[self.channel_order], np.float32)
        steps: list[Callable[[np.ndarray], np.ndarray]] = [
            lambda image: image * brightness,
            lambda image: (image - (image @ luma).mean()) * contrast + (image @ luma).mean(),
            lambda image: (image - (image @ luma)[..., None]) * saturation + (image @ luma)[..., None],
            lambda image: self._turn_hue(image, turn),
        ]
        image = results['img'].astype(np.float32)
        for index in np.random.permutation(len(steps)):
            image = np.clip(steps[index](image), 0, 255)
        results['img'] = image.round().astype(np.uint8)

    def _turn_hue(self, image: np.ndarray, turn: float) -> np.ndarray:
        there, back = ((cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR) if self.channel_order == 'bgr'
                       else (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB))
        hsv = cv2.cvtColor(image.astype(np.float32) / 255, there)  # hue in degrees
        hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
        return 255 * cv2.cvtColor(hsv, back)

    def _noise(self, results: dict) -> None:
        deviation = math.sqrt(np.random.uniform(10, 50))
        noise = np.random.normal(0, deviation, results['img'].shape)
        results['img'] = np.clip(results['img'] + noise, 0, 255).round().astype(np.uint8)

    def _mirror(self, results: dict) -> None:
        for key in _fields(results):
            results[key] = np.ascontiguousarray(results[key][:, ::-1])

    def _elastic(self, results: dict) -> None:
        """An affine map by three points that move; the official smooth field beside it moves no pixel by 0.02."""
        centre, arm = self.size / 2, self.size // 3
        reach = _ELASTIC_PX * self.size / 224
        corners = np.array([(centre + arm, centre + arm), (centre + arm, centre - arm), (centre - arm, centre - arm)],
                           np.float32)
        moved = corners + np.random.uniform(-reach, reach, corners.shape).astype(np.float32)
        self._warp(results, cv2.getAffineTransform(corners, moved))

    def _shift_scale_rotate(self, results: dict) -> None:
        angle, scale = np.random.uniform(-self.degrees, self.degrees), np.random.uniform(0.9, 1.1)
        matrix: np.ndarray = cv2.getRotationMatrix2D((self.size / 2, self.size / 2), angle, scale)
        matrix[:, 2] += np.random.uniform(-0.1, 0.1, 2) * self.size
        self._warp(results, matrix)

    def _warp(self, results: dict, matrix: np.ndarray) -> None:
        """Move places of the sample by an affine map (2, 3); from outside come black and the border's label."""
        for key in _fields(results):
            interpolation, value = (cv2.INTER_LINEAR, 0) if key == 'img' else (cv2.INTER_NEAREST, self.border)
            results[key] = cv2.warpAffine(np.ascontiguousarray(results[key]), matrix, (self.size, self.size),
                                          flags=interpolation, borderMode=cv2.BORDER_CONSTANT,
                                          borderValue=(value, value, value))


def _fields(results: dict) -> list[str]:
    return ['img', *results.get('seg_fields', [])]


def _cut(results: dict, top: int, left: int, height: int, width: int) -> None:
    for key in _fields(results):
        results[key] = results[key][top:top + height, left:left + width]


def _resize(results: dict, size: tuple[int, int]) -> None:
    for key in _fields(results):
        interpolation = cv2.INTER_LINEAR if key == 'img' else cv2.INTER_NEAREST
        results[key] = cv2.resize(np.ascontiguousarray(results[key]), size[::-1], interpolation=interpolation)


@TRANSFORMS.register_module()
class PackEpisode(BaseTransform):
    """mmseg's `PackSegInputs` with what an episode asks for (`class_names`, `class_ids`) in the metainfo.

    Args:
        meta_keys: entries of the sample to keep in the metainfo; by default mmseg's and the episode's.
    """

    def __init__(self, meta_keys: tuple[str, ...] = (
            'img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip', 'flip_direction',
            'class_names', 'class_ids')) -> None:
        transforms = require('mmseg.datasets.transforms', 'PackEpisode')
        self.inner = transforms.PackSegInputs(meta_keys=tuple(meta_keys))

    def transform(self, results: dict) -> dict:
        """Inputs and data sample."""
        return self.inner(results)
