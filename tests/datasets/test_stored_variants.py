from __future__ import annotations

import numpy as np
import pytest

from frozenmm.datasets import StoredVariants
from frozenmm.registry import TRANSFORMS

JITTER = [dict(type='mmdet.PhotoMetricDistortion'), dict(type='mmdet.RandomFlip', prob=0.5)]


def _sample(path: str = 'a.jpg') -> dict:
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.float32)
    return dict(img_path=path, img=image, img_shape=(16, 16))


def test_an_image_has_no_more_outcomes_than_variants_and_meets_them_all():
    transform = StoredVariants(JITTER, variants=3)
    outcomes = {}
    for _ in range(40):
        result = transform(_sample())
        outcomes.setdefault(result['variant'], set()).add(result['img'].tobytes())
    assert sorted(outcomes) == [0, 1, 2]
    assert all(len(images) == 1 for images in outcomes.values())
    assert len(set.union(*outcomes.values())) == 3


def test_other_images_and_other_seeds_vary_differently():
    def first(path, seed):
        return StoredVariants(JITTER, variants=1, seed=seed)(_sample(path))['img'].tobytes()

    assert first('a.jpg', 0) == first('a.jpg', 0)
    assert len({first('a.jpg', 0), first('b.jpg', 0), first('a.jpg', 1)}) == 3


def test_the_random_generators_go_on_as_if_nothing_had_been_drawn():
    def after(transform):
        np.random.seed(5)
        transform(_sample())
        return np.random.random()

    assert after(StoredVariants(JITTER, variants=4)) == after(StoredVariants([], variants=4))


def test_a_sample_that_an_inner_transform_drops_stays_dropped():
    assert StoredVariants([lambda results: None])(_sample()) is None


def test_it_is_found_by_its_registered_name():
    built = TRANSFORMS.build(dict(type='frozenmm.StoredVariants', transforms=JITTER, variants=2))
    assert 'variants=2' in repr(built)


def test_no_variants_are_refused():
    with pytest.raises(ValueError, match='variants must be at least 1, got 0'):
        StoredVariants([], variants=0)
