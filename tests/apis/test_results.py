"""What results can do: be counted, shown, saved, and handed to supervision and pycocotools."""
from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image, ImageShow
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from frozenmm.apis.coco_entries import named_classes
from frozenmm.apis.detection_inferencer import SampleResult
from frozenmm.apis.results import Result
from frozenmm.compat.image_sources import NamedImage
from frozenmm.errors import MissingFile, UserError

SIZE = (20, 30)
CLASSES = named_classes(['cat', 'cup', 'sky'])
IMAGE = NamedImage('a', np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))


def masks():
    values = torch.zeros(4, *SIZE, dtype=torch.bool)
    values[0, 2:10, 3:12] = values[1, 2:10, 3:12] = True
    values[2, 12:18, 15:29] = True
    return values


def found(*, with_masks):
    instances = InstanceData(
        bboxes=torch.tensor([[3.0, 2, 12, 10], [3, 2, 12, 10], [15, 12, 29, 18], [0, 0, 0, 0]]),
        labels=torch.tensor([0, 1, 1, 0]), scores=torch.tensor([0.9, 0.6, 0.4, 0.35]))
    if with_masks:
        instances.masks = masks()
    return instances


def panoptic():
    values = torch.full((1, *SIZE), 3)
    values[0, 2:10, 3:12], values[0, 12:, :] = 1000, 2
    sample = DetDataSample(metainfo=dict(segments_info=[
        dict(id=1, category_id=0, isthing=True, area=72, score=0.8, value=1000),
        dict(id=2, category_id=2, isthing=False, area=240, score=0.25, value=2)]))
    sample.pred_panoptic_seg = PixelData(sem_seg=values)
    return sample


def semantic():
    labels = torch.full((1, *SIZE), -1)
    labels[0, :5], labels[0, 5:15] = 2, 0
    return BaseDataElement(pred_sem_seg=PixelData(sem_seg=labels))


def result(task):
    if task == 'semantic':
        return Result.of(semantic(), IMAGE, CLASSES)
    sample = panoptic() if task == 'panoptic' else DetDataSample(pred_instances=found(with_masks=task == 'masks'))
    return SampleResult.of(sample, IMAGE, CLASSES)


TASKS = ('boxes', 'masks', 'panoptic', 'semantic')


@pytest.mark.parametrize(('task', 'count', 'text'), [
    ('boxes', 4, '<SampleResult of a (30x20): 4 boxes, 2 of at least 0.3: cat 0.90, cup 0.40>'),
    ('masks', 4, '<SampleResult of a (30x20): 4 masks, 2 of at least 0.3: cat 0.90, cup 0.40>'),
    ('panoptic', 2, '<SampleResult of a (30x20): 2 segments: cat 0.80, sky 0.25>'),
    ('semantic', 2, '<Result of a (30x20): 2 classes: cat 50.0 %, sky 25.0 %>')])
def test_a_result_is_counted_and_says_what_it_is(task, count, text):
    assert len(result(task)) == count and repr(result(task)) == text


@pytest.mark.parametrize('task', TASKS)
def test_supervision_takes_every_result_with_its_class_names(task):
    supervision = pytest.importorskip('supervision')
    made = result(task)
    detections = made.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == len(made)
    names = dict(boxes=['cat', 'cup', 'cup', 'cat'], panoptic=['cat', 'sky'], semantic=['cat', 'sky'])
    assert detections.data['class_name'].tolist() == names.get(task, names['boxes'])
    assert detections.class_id.dtype == int
    if task == 'semantic':
        assert detections.confidence is None
    if task == 'boxes':
        assert detections.mask is None
    else:
        assert detections.mask.dtype == bool and detections.mask.shape == (len(made), *SIZE)
        drawn = supervision.MaskAnnotator().annotate(IMAGE.pixels.copy(), detections)
        assert (drawn != IMAGE.pixels).any()
    assert supervision.LabelAnnotator().annotate(IMAGE.pixels.copy(), detections).shape == (*SIZE, 3)
    assert len(made.to_supervision(min_score=2)) == (2 if task == 'semantic' else 0)


def test_supervision_and_coco_get_the_pixels_of_a_panoptic_segment():
    made = result('panoptic')
    entries = made.to_coco(7)
    assert [(entry['image_id'], entry['category'], entry['bbox']) for entry in entries] == [
        (7, 'cat', [3, 2, 9, 8]), (7, 'sky', [0, 12, 30, 8])]
    for entry, mask, (x, y, width, height) in zip(entries, made.to_supervision().mask, [
            (3, 2, 9, 8), (0, 12, 30, 8)]):
        expected = np.zeros(SIZE, bool)
        expected[y:y + height, x:x + width] = True
        assert np.array_equal(mask, expected)
        assert np.array_equal(coco_mask.decode(entry['segmentation']), expected)


@pytest.mark.parametrize('task', ['boxes', 'masks', 'panoptic'])
def test_loadres_takes_what_to_coco_gives(task):
    truth = COCO()
    truth.dataset = dict(images=[dict(id=3)], annotations=[], categories=[dict(id=entry.id) for entry in CLASSES])
    truth.createIndex()
    made = result(task)
    loaded = truth.loadRes(made.to_coco(3))
    assert len(loaded.getAnnIds()) == len(made)
    assert len(made.to_coco(3, min_score=0.3, several_labels=False)) == (1 if task == 'panoptic' else 2)


@pytest.mark.parametrize('task', TASKS)
def test_a_result_is_saved_as_a_picture_or_with_all_its_files(tmp_path, task):
    made = result(task)
    assert made.save(tmp_path / 'a.jpg') == [tmp_path / 'a.jpg']
    with Image.open(tmp_path / 'a.jpg') as picture:
        assert picture.format == 'JPEG' and picture.width >= 800
    files = made.save(tmp_path / 'all')
    assert all(file.is_file() for file in files) and {'a_overlay.png', 'results.jsonl'} < {file.name for file in files}
    with pytest.raises(UserError, match=r"'\.docx' is no format of pictures; write a \.png"):
        made.save(tmp_path / 'a.docx')


@pytest.mark.parametrize('task', ['boxes', 'masks', 'panoptic'])
def test_a_score_changes_the_drawing(task):
    made = result(task)
    assert not np.array_equal(made.drawing(legend=False), made.drawing(min_score=0.85, legend=False))
    # what was chosen once stays
    chosen = made.kept(min_score=0.85)
    assert len(chosen) == (0 if task == 'panoptic' else 1)
    assert np.array_equal(chosen.drawing(), made.drawing(min_score=0.85))


def test_a_result_is_shown_or_says_what_to_do(monkeypatch):
    shown = []
    monkeypatch.setattr(ImageShow, 'show', lambda image, title: shown.append((image.size[0], title)) or True)
    result('masks').show()
    assert shown == [(800, 'a')]
    monkeypatch.setattr(ImageShow, 'show', lambda image, title: False)
    with pytest.raises(UserError, match=r"no viewer.*result\.save\('picture\.png'\)"):
        result('masks').show()


def test_the_picture_of_a_file_is_read_again_when_it_is_needed(tmp_path):
    Image.fromarray(IMAGE.pixels).save(tmp_path / 'b.png')
    made = Result.of(semantic(), NamedImage('b', IMAGE.pixels, str(tmp_path / 'b.png')), CLASSES)
    assert made.origin.image.pixels.size == 0 and np.array_equal(made.image.pixels, IMAGE.pixels)
    assert np.array_equal(made.drawing(), result('semantic').drawing())
    (tmp_path / 'b.png').unlink()
    with pytest.raises(MissingFile, match='b.png'):
        made.show()
    assert len(made.to_coco()) == 2


@pytest.mark.parametrize('task', TASKS)
def test_copies_of_a_result_can_do_the_same(task):
    made = result(task)
    for other in (made.cpu(), made.clone(), made.new(), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(other) == repr(made) and np.array_equal(other.drawing(), made.drawing())
    with pytest.raises(UserError, match='knows no picture'):
        Result().show()
