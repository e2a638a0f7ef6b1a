"""Point features, their matches between frames, and the tracks that the matches form (spec section 12.0, step 1)."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from frozenmm.compat.dependencies import require

REFERENCE_DIAGONAL = 400.0
"""Diagonal in pixels of the images (320x240) to which all pixel tolerances refer."""
MAX_FEATURES = 2000
ALL_PAIRS_UP_TO = 40
NEIGHBOURS = 12
TELLING_PAIRS = 8
"""Pairs of frames by which distortion is looked for."""
BENDS = (-0.12, 0.06)
"""A barrel and a pincushion, in the measure of `unbend`; what begins with them finds its own distortion."""
BETTER = 1.02
"""Times as many matches as without distortion must fit closely before there is one."""


@dataclass(frozen=True)
class MatchSettings:
    """Settings of the search for matches.

    Attributes:
        contrast: threshold of SIFT's contrast.
        edge: threshold of SIFT's edge test.
        ratio: greatest ratio of the distances to the nearest and the second nearest descriptor.
        epipolar_px: tolerance of the fundamental matrix, at a diagonal of 400 pixels.
        min_inliers: pairs with fewer matches are dropped.
        seed: of the robust estimation.
    """

    contrast: float = 0.015
    edge: float = 15.0
    ratio: float = 0.82
    epipolar_px: float = 1.0
    min_inliers: int = 18
    seed: int = 0


@dataclass
class FrameFeatures:
    """Features of one frame.

    Attributes:
        pixels: (N, 2) places as (u, v).
        descriptors: (M, 128) uint8, a quarter of the memory that `unit` takes; a place has one per orientation.
        place: (M, ) index of the place of every descriptor.
    """

    pixels: np.ndarray
    descriptors: torch.Tensor
    place: np.ndarray

    def unit(self) -> torch.Tensor:
        """Square roots of the L1-normalised descriptors (M, 128) float32: of unit length."""
        return torch.nn.functional.normalize(self.descriptors.float(), p=1, dim=1).sqrt()


@dataclass
class Matches:
    """Matches of frames `first` and `second`: indexes (M, 2) of places, and distances (M, ) of their descriptors."""

    first: int
    second: int
    index: np.ndarray
    distance: np.ndarray


@dataclass
class Tracks:
    """Observations of points.

    >>> tracks = Tracks(np.array([0, 1, 0, 2]), np.array([0, 0, 1, 1]), np.zeros((4, 2)))
    >>> left, old, kept = tracks.subset(tracks.frame < 2)   # point 1 is left with one observation
    >>> left.points, old.tolist(), kept.tolist()
    (1, [0], [True, True, False, False])

    Attributes:
        frame: (O, ) index of the frame.
        point: (O, ) index of the point, 0..P-1, every point in at least two frames and once per frame.
        pixels: (O, 2) as (u, v).
    """

    frame: np.ndarray
    point: np.ndarray
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def points(self) -> int:
        """Number of points."""
        return int(self.point.max()) + 1 if len(self.point) else 0

    def window(self, frames: np.ndarray) -> Tracks:
        """Tracks within some frames (W, ), which are numbered anew from 0."""
        number = np.full(int(max(self.frame.max(initial=-1), frames.max())) + 1, -1)
        number[frames] = np.arange(len(frames))
        inside = self.subset(number[self.frame] >= 0)[0]
        return Tracks(number[inside.frame], inside.point, inside.pixels)

    def subset(self, kept: np.ndarray) -> tuple[Tracks, np.ndarray, np.ndarray]:
        """Tracks of the kept observations (O, ) bool; points left with one observation go, too.

        Returns:
            the tracks, the old index of every new point, and which observations (O, ) are left.
        """
        counts = np.bincount(self.point[kept], minlength=self.points)
        kept = kept & (counts[self.point] >= 2)
        old, new = np.unique(self.point[kept], return_inverse=True)
        return Tracks(self.frame[kept], new, self.pixels[kept]), old, kept


def pixel_unit(height: int, width: int) -> float:
    """Pixels of an image of this size per pixel of a 320x240 image.

    >>> pixel_unit(480, 640)
    2.0
    """
    return float(np.hypot(height, width)) / REFERENCE_DIAGONAL


def detect(image: np.ndarray, settings: MatchSettings, invalid: np.ndarray | None = None) -> FrameFeatures:
    """SIFT features of an RGB image (H, W, 3) uint8.

    Args:
        image: (H, W, 3).
        settings: of the search.
        invalid: (H, W) bool, pixels on which no feature may lie.
    """
    cv2 = require('cv2', 'feature tracks')
    # precise upscale: without it all positions are off by a quarter of a pixel
    sift = cv2.SIFT_create(nfeatures=MAX_FEATURES, contrastThreshold=settings.contrast, edgeThreshold=settings.edge,
                           enable_precise_upscale=True)
    keypoints, descriptors = sift.detectAndCompute(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None if invalid is None else (~invalid).astype(np.uint8))
    if not keypoints:
        return FrameFeatures(np.zeros((0, 2)), torch.zeros(0, 128, dtype=torch.uint8), np.zeros(0, dtype=np.int64))
    pixels, place = np.unique(np.array([point.pt for point in keypoints]), axis=0, return_inverse=True)
    return FrameFeatures(pixels, torch.from_numpy(descriptors.astype(np.uint8)), place.reshape(-1))


def mutual_matches(first: torch.Tensor, second: torch.Tensor, *, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Mutual nearest unit descriptors (N, C) that pass the distance ratio: indexes (M, 2), squared distances (M, )."""
    if len(first) < 2 or len(second) < 2:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    cosine = first @ second.T
    best, index = cosine.max(1)
    mutual = best == cosine.amax(0)[index]  # several times faster than the places of the columns' greatest values
    cosine.scatter_(1, index[:, None], -1.0)
    runner_up = cosine.amax(1)
    near, far = (2 - 2 * best).clamp(min=0), (2 - 2 * runner_up).clamp(min=0)
    rows = torch.nonzero(mutual & (near < ratio**2 * far))[:, 0]
    return torch.stack((rows, index[rows]), 1).numpy(), near[rows].numpy()


def frame_pairs(count: int, similarity: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, to match: all of a short clip; else neighbours and the most similar frames.

    Args:
        count: number of frames.
        similarity: (count, count), greater means more alike; None spreads the far partners evenly in time.
    """
    if count <= ALL_PAIRS_UP_TO:
        return [(a, b) for a in range(count) for b in range(a + 1, count)]
    pairs = {(a, b) for a in range(count) for b in range(a + 1, min(a + NEIGHBOURS // 2 + 1, count))}
    for frame in range(count):
        if similarity is None:
            others: Sequence[int] = np.linspace(0, count - 1, NEIGHBOURS).round().astype(int).tolist()
        else:
            others = np.argsort(-similarity[frame], kind='stable')[:NEIGHBOURS + 1].tolist()
        pairs |= {(min(frame, other), max(frame, other)) for other in others if other != frame}
    return sorted(pairs)


def frame_similarity(features: Sequence[FrameFeatures], *, words: int = 64, samples: int = 100) -> np.ndarray:
    """How alike frames are (F, F), from counts of words to which their descriptors belong.

    The words are descriptors of the clip itself, evenly picked, so that nothing is random.
    """
    pool = torch.cat([frame.unit()[::max(1, len(frame.descriptors) // samples)] for frame in features])
    if not len(pool):
        return np.zeros((len(features), len(features)))
    vocabulary = pool[torch.linspace(0, len(pool) - 1, min(words, len(pool))).round().long()]
    words = len(vocabulary)
    counts = torch.stack([torch.bincount((frame.unit() @ vocabulary.T).argmax(1), minlength=words)
                          if len(frame.descriptors) else torch.zeros(words) for frame in features]).float()
    rare = torch.log(len(features) / (counts > 0).sum(0).clamp(min=1))
    weighted = torch.nn.functional.normalize(counts.sqrt() * (rare + 0.1), dim=1)
    return (weighted @ weighted.T).numpy()


def verify(first: np.ndarray, second: np.ndarray, tolerance_px: float, seed: int) -> np.ndarray:
    """Bool (M, ): matches of pixels (M, 2) with pixels (M, 2) that fit one fundamental matrix (MAGSAC)."""
    cv2 = require('cv2', 'feature tracks')
    settings = cv2.UsacParams()
    settings.confidence, settings.maxIterations, settings.threshold = 0.999, 2000, tolerance_px
    settings.randomGeneratorState = seed
    settings.score, settings.sampler = cv2.SCORE_METHOD_MAGSAC, cv2.SAMPLING_UNIFORM
    settings.loMethod, settings.loIterations, settings.loSampleSize = cv2.LOCAL_OPTIM_SIGMA, 10, 50
    settings.final_polisher, settings.final_polisher_iterations = cv2.MAGSAC, 3
    try:
        _, mask = cv2.findFundamentalMat(first, second, settings)
    except cv2.error:  # a degenerate set of points has no fundamental matrix
        mask = None
    return np.zeros(len(first), dtype=bool) if mask is None else mask[:, 0].astype(bool)


def unbend(pixels: np.ndarray, bend: float, size: tuple[int, int]) -> np.ndarray:
    """Pixels (N, 2) without the distortion r / (1 + bend r^2), r in half diagonals; their mean square stays."""
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    off = pixels - centre
    return centre + off * (1 + bend / 3) / (1 + bend * (off**2).sum(1, keepdims=True) / (centre**2).sum())


def find_bend(pairs: Sequence[tuple[np.ndarray, np.ndarray]], size: tuple[int, int], tolerance_px: float,
              seed: int) -> float:
    """The distortion under which most matches fit fundamental matrices; 0 where none is clearly better.

    Args:
        pairs: of pixels (M, 2) and (M, 2) that match, of frames that differ.
        size: (height, width).
        tolerance_px: of the fundamental matrix.
        seed: of the robust estimation.
    """
    def fitting(bend: float) -> int:
        return sum(int(verify(unbend(first, bend, size), unbend(second, bend, size), tolerance_px, seed).sum())
                   for first, second in pairs)

    counts = {bend: fitting(bend) for bend in (0.0, *BENDS)}
    best = max(counts, key=lambda bend: counts[bend])
    return best if counts[best] > BETTER * counts[0.0] else 0.0


def match_frames(features: Sequence[FrameFeatures], pairs: Sequence[tuple[int, int]], size: tuple[int, int],
                 settings: MatchSettings, report: Callable[[int, int], None] | None = None, *, straight: bool = False,
                 ) -> tuple[list[Matches], float]:
    """Verified matches of the given pairs of frames, and the distortion under which they fit, see `unbend`.

    Args:
        features: of every frame.
        pairs: indexes of the frames.
        size: (height, width) of the images.
        settings: of the search.
        report: called with the number of pairs done and their total.
        straight: the lens is known not to distort.
    """
    @lru_cache(ALL_PAIRS_UP_TO)
    def unit(frame: int) -> torch.Tensor:
        return features[frame].unit()

    raw, tolerance = [], settings.epipolar_px * pixel_unit(*size)
    for done, (first, second) in enumerate(pairs):
        index, distance = mutual_matches(unit(first), unit(second), ratio=settings.ratio)
        index = np.stack((features[first].place[index[:, 0]], features[second].place[index[:, 1]]), 1)
        index, kept = np.unique(index, axis=0, return_index=True)  # several orientations of a place can match
        if len(index) >= settings.min_inliers:
            raw.append(Matches(first, second, index, distance[kept]))
        if report is not None:
            report(done + 1, len(pairs))
    places = [(features[m.first].pixels[m.index[:, 0]], features[m.second].pixels[m.index[:, 1]]) for m in raw]
    telling = sorted(places, key=lambda pair: -len(pair[0]) * min(
        float(np.median(np.linalg.norm(pair[0] - pair[1], axis=1))), 20 * tolerance))[:TELLING_PAIRS]
    bend, found = 0.0 if straight else find_bend(telling, size, tolerance / 2, settings.seed), []
    for match, (first, second) in zip(raw, places):
        inside = verify(unbend(first, bend, size), unbend(second, bend, size), tolerance, settings.seed)
        if inside.sum() >= settings.min_inliers:
            found.append(Matches(match.first, match.second, match.index[inside], match.distance[inside]))
    return found, bend


def build_tracks(features: Sequence[FrameFeatures], matches: Sequence[Matches]) -> Tracks:
    """Tracks from matches joined by union-find, the most alike first.

    A match that would give a track two places in one frame is left out, so that one false match does not cost two
    whole tracks.
    """
    starts = np.concatenate(([0], np.cumsum([len(frame.pixels) for frame in features]))).astype(np.int64)
    frame = np.repeat(np.arange(len(features)), np.diff(starts))
    parent, frames = list(range(int(starts[-1]))), [1 << int(f) for f in frame]

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    if matches:
        edges = np.concatenate([pair.index + starts[[pair.first, pair.second]] for pair in matches])
        order = np.argsort(np.concatenate([pair.distance for pair in matches]), kind='stable')
        for first, second in edges[order].tolist():
            first, second = root(first), root(second)
            if first != second and not frames[first] & frames[second]:
                parent[second] = first
                frames[first] |= frames[second]
    label = np.array([root(node) for node in range(len(parent))], dtype=np.int64)
    kept = np.bincount(label, minlength=len(parent))[label] >= 2
    _, point = np.unique(label[kept], return_inverse=True)
    pixels = np.concatenate([f.pixels for f in features])[kept]
    order = np.lexsort((frame[kept], point))
    return Tracks(frame[kept][order], point[order], pixels[order])
