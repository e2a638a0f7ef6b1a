"""Points of known depth, which a correction may look at."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform

from frozenmm.errors import UserError
from frozenmm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SampleDepthPoints(BaseTransform):
    """Pixels of the truth that a correction may look at, as a sparse sensor or triangulated points would give them.

    Adds `depth_points`, float32 (N, 3): row, column and depth. Place it before a resize, and name the key among
    `PackSegInputs`' meta_keys.

    Args:
        count: of the points, fewer where fewer pixels are measured.
        seed: of the draw, which depends on the image's path besides.
    """

    needs_annotations = True  # an inferencer, which has no depth, leaves it out

    def __init__(self, count: int = 100, seed: int = 0) -> None:
        if count < 2:
            raise UserError(f'count must be at least 2, got {count}')
        self.count, self.seed = count, seed

    def transform(self, results: dict) -> dict:
        """See the class."""
        depth = results['gt_depth_map']
        rows, columns = np.nonzero(depth > 0)
        random = np.random.default_rng([self.seed, *Path(results['img_path']).name.encode()])
        chosen = random.permutation(len(rows))[:self.count]
        results['depth_points'] = np.stack((rows[chosen], columns[chosen], depth[rows[chosen], columns[chosen]]),
                                           1).astype(np.float32)
        return results
