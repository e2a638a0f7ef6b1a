from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData
from PIL import Image

import frozenmm  # noqa: F401
from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.registry import METRICS

CATEGORIES = [dict(id=1, name='cat', isthing=1), dict(id=4, name='dog', isthing=1),
              dict(id=9, name='sky-other-merged', isthing=0)]


def write(folder, crowd=0, extra_pixel=0):
    """One image of 4x6: a cat at the left (id 1000), a dog in the middle (id 7), sky at the right (id 70000)."""
    ids = np.repeat([[1000, 1000, 7, 7, 70000, 70000]], 4, 0)
    ids[0, 0] = extra_pixel or 1000
    (folder / 'maps').mkdir()
    Image.fromarray(segment_colours(ids)).save(folder / 'maps' / '5.png')
    segments = [dict(id=number, category_id=category, iscrowd=crowd * (category == 1), area=8, bbox=[0, 0, 2, 4])
                for number, category in ((1000, 1), (7, 4), (70000, 9))]
    content = dict(images=[dict(id=5, file_name='5.jpg', height=4, width=6)], categories=CATEGORIES,
                   annotations=[dict(image_id=5, file_name='5.png', segments_info=segments)])
    (folder / 'panoptic.json').write_text(json.dumps(content))
    return dict(type='PanopticQuality', ann_file=str(folder / 'panoptic.json'), seg_prefix=str(folder / 'maps'))


def sample(row, *, img_id=5, offset=None):
    made = DetDataSample(metainfo=dict(img_id=img_id, **({} if offset is None else {'instance_offset': offset})))
    made.pred_panoptic_seg = PixelData(sem_seg=torch.tensor(row, dtype=torch.int32).expand(1, 4, 6))
    return made.to_dict()


def evaluate(config, *samples, classes=('cat', 'dog', 'sky-other-merged')):
    metric = METRICS.build(config)
    metric.dataset_meta = dict(classes=classes)
    for one in samples:
        metric.process({}, [one])
    return metric.evaluate(len(samples))


def test_mmdets_encoding_is_read_with_void_as_the_number_of_classes(tmp_path):
    # cat found; dog: one of two instances lies right; sky left open
    found = evaluate(write(tmp_path), sample([1000, 1000, 1001, 2001, 3, 3]))
    # the dog's halves have IoU 1/2, which is no match
    assert found['panoptic/PQ'] == pytest.approx(100 / 3)
    assert found['panoptic/PQ_things'] == pytest.approx(50) and found['panoptic/PQ_stuff'] == 0
    assert found['panoptic/RQ_things'] == pytest.approx(50)


def test_another_instance_offset_is_respected(tmp_path):
    config = write(tmp_path)
    row = [10000, 10000, 10001, 10001, 2, 2]
    assert evaluate(config, sample(row, offset=10000))['panoptic/PQ'] == 100
    assert evaluate(config, sample([0, 0, 1001, 1001, 2, 2]))['panoptic/PQ'] == 100


def test_classes_may_stand_in_another_order_and_lack(tmp_path):
    config = write(tmp_path)
    found = evaluate(config, sample([2, 2, 0, 0, 1, 1]), classes=('dog', 'sky-other-merged'))
    assert found['panoptic/PQ'] == 100  # cats are void now


def test_the_last_class_is_not_taken_for_void(tmp_path):
    assert evaluate(write(tmp_path), sample([3, 3, 3, 3, 2, 2]))['panoptic/PQ_stuff'] == 100


def test_a_crowd_is_not_missed(tmp_path):
    found = evaluate(write(tmp_path, crowd=1), sample([3, 3, 1001, 1001, 2, 2]))
    assert found['panoptic/PQ'] == 100


def test_seen_and_unseen_classes_are_averaged_apart_by_words(tmp_path):
    config = write(tmp_path) | dict(
        vocabulary=[dict(name='cat', id=1), dict(name='dog', id=4), dict(name='sky', id=9)],
        train_vocabulary=['cat', 'sky, clouds'])
    found = evaluate(config, sample([0, 0, 3, 3, 2, 2]))
    assert found['panoptic/PQ_seen'] == 100 and found['panoptic/PQ_unseen'] == 0
    everything = config | dict(train_vocabulary=['cat', 'dog', 'sky'])
    assert math.isnan(evaluate(everything, sample([0, 0, 3, 3, 2, 2]))['panoptic/PQ_unseen'])


def test_seen_classes_need_the_words_of_the_model(tmp_path):
    with pytest.raises(ValueError, match='decides by words which classes are seen'):
        METRICS.build(write(tmp_path) | dict(train_vocabulary=['sky']))


@pytest.mark.parametrize(('change', 'message'), [
    (dict(img_id=6), r'image 6 has no annotation .* another split'),
])
def test_an_unknown_image_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate(write(tmp_path), sample([0] * 6, **change))


def test_a_prediction_without_panoptic_map_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no `pred_panoptic_seg`.*add 'panoptic' to the tasks"):
        evaluate(write(tmp_path), DetDataSample(metainfo=dict(img_id=5)).to_dict())


def test_a_map_with_unlisted_segments_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'holds the segments \[77\], which .* does not list'):
        evaluate(write(tmp_path, extra_pixel=77), sample([0] * 6))


def test_without_classes_it_says_what_is_missing(tmp_path):
    metric = METRICS.build(write(tmp_path))
    with pytest.raises(ValueError, match='PanopticQuality needs a vocabulary'):
        metric.process({}, [sample([0] * 6)])


def test_annotations_fed_back_as_results_are_perfect(shared_dir):
    from frozenmm.datasets.panoptic_files import read_panoptic_file, read_panoptic_map
    root = shared_dir / 'data/coco_mini'
    config = dict(type='PanopticQuality', ann_file=str(root / 'annotations/panoptic_val.json'),
                  seg_prefix=str(root / 'panoptic_val'), vocabulary='coco_panoptic_133',
                  train_vocabulary=dict(of='coco_panoptic_133', without=['cat']))
    content = read_panoptic_file(config['ann_file'])
    index = {category.id: number for number, category in enumerate(content.categories)}
    metric = METRICS.build(config)
    for image in content.images[:8]:
        ids = read_panoptic_map(root / 'panoptic_val' / image.map_name)
        predicted = np.full(ids.shape, len(index))
        for number, segment in enumerate(image.segments, start=1):
            predicted[ids == segment.id] = index[segment.category_id] + 1000 * number
        made = DetDataSample(metainfo=dict(img_id=image.id))
        made.pred_panoptic_seg = PixelData(sem_seg=torch.from_numpy(predicted)[None])
        metric.process({}, [made.to_dict()])
    found = metric.evaluate(8)
    assert found['panoptic/PQ'] == found['panoptic/PQ_things'] == found['panoptic/PQ_seen'] == 100
