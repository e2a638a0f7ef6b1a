"""Phrases and masks from the layouts of RefCOCO and of Panoptic Narrative Grounding, and their scores."""
from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
import torch

from frozenmm.datasets.panoptic_files import segment_colours
from frozenmm.datasets.referring import PhraseMasks
from frozenmm.evaluation.referring_iou import ReferringIoU

pytest.importorskip('pycocotools')


@pytest.fixture
def folder(tmp_path):
    """One picture of 20 x 30 pixels with a square and a bar, in both layouts."""
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'maps').mkdir()
    cv2.imwrite(str(tmp_path / 'pictures' / 'a.png'), np.full((20, 30, 3), 90, np.uint8))
    labels = np.zeros((20, 30), np.int64)
    labels[2:8, 3:9], labels[10:12] = 7, 300
    cv2.imwrite(str(tmp_path / 'maps' / 'a.png'), segment_colours(labels)[..., ::-1])
    image = dict(id=5, file_name='a.png', height=20, width=30)
    square = [[3, 2, 9, 2, 9, 8, 3, 8]]
    bar = np.asfortranarray((labels == 300).astype(np.uint8))
    runs = np.diff(np.flatnonzero(np.concatenate([[True], np.diff(bar.flatten('F')) != 0, [True]])))
    (tmp_path / 'instances.json').write_text(json.dumps(dict(images=[image], annotations=[
        dict(id=1, segmentation=square), dict(id=2, segmentation=dict(size=[20, 30], counts=runs.tolist()))])))
    refs = [dict(image_id=5, ann_id=1, split='train', sentences=[dict(sent='the square'), dict(sent='box')]),
            dict(image_id=5, ann_id=2, split='train', sentences=[dict(sent='the bar')]),
            dict(image_id=5, ann_id=1, split='testA', sentences=[dict(sent='left one')])]
    (tmp_path / 'refs.p').write_bytes(pickle.dumps(refs))
    segments = [dict(id=7, category_id=1), dict(id=300, category_id=2)]
    (tmp_path / 'panoptic.json').write_text(json.dumps(dict(
        images=[image], categories=[dict(id=1, name='square', isthing=1), dict(id=2, name='bar', isthing=0)],
        annotations=[dict(image_id=5, file_name='a.png', segments_info=segments)])))
    (tmp_path / 'narratives.json').write_text(json.dumps([dict(image_id='5', segments=[
        dict(utterance='In this picture', segment_ids=[], noun=False), dict(utterance='a red', segment_ids=['7']),
        dict(utterance='square', segment_ids=['7']), dict(utterance='both', segment_ids=['7', '300'])])]))
    return tmp_path, labels


KINDS = {
    'refcoco': (dict(refs='refs.p', instances='instances.json', split='train'),
                ['the square', 'box', 'the bar'], [7, 7, 300]),
    'narratives': (dict(narratives='narratives.json', panoptic='panoptic.json'), ['a red square', 'both'],
                   [7, (7, 300)]),
    'panoptic': (dict(panoptic='panoptic.json'), ['square', 'bar'], [7, 300]),
}


@pytest.mark.parametrize('kind', list(KINDS))
def test_phrases_get_their_pixels(folder, kind):
    root, labels = folder
    files, phrases, segments = KINDS[kind]
    data = PhraseMasks(kind, files, pictures='pictures', panoptic_folder='maps', data_root=str(root), test_mode=True)
    entry = data[0]
    assert len(data) == 1 and entry['inputs'].shape == (3, 20, 30) and entry['data_samples'].phrases == phrases
    for mask, ids in zip(entry['data_samples'].gt_phrase_masks.data, segments):
        assert np.array_equal(mask.numpy(), np.isin(labels, ids))
    short = PhraseMasks(kind, files, pictures='pictures', panoptic_folder='maps', data_root=str(root), most=1)
    assert short[0]['data_samples'].phrases == phrases[:1]


def test_files_that_do_not_do_are_named(folder):
    root, _ = folder
    files = dict(KINDS['refcoco'][0])
    with pytest.raises(ValueError, match=r"no expressions of the split 'val'; it has .'testA', 'train'."):
        PhraseMasks('refcoco', {**files, 'split': 'val'}, pictures='pictures', data_root=str(root))
    (root / 'refs.p').write_bytes(pickle.dumps(pytest.raises))
    with pytest.raises(ValueError, match='refs.p'):
        PhraseMasks('refcoco', files, pictures='pictures', data_root=str(root))
    (root / 'narratives.json').write_text('[]')
    with pytest.raises(ValueError, match='has no phrase that names a segment'):
        PhraseMasks('narratives', KINDS['narratives'][0], pictures='pictures', data_root=str(root))
    cv2.imwrite(str(root / 'pictures' / 'a.png'), np.zeros((10, 30, 3), np.uint8))
    data = PhraseMasks('panoptic', KINDS['panoptic'][0], pictures='pictures', panoptic_folder='maps',
                       data_root=str(root))
    with pytest.raises(ValueError, match=r'is \(10, 30\) pixels, its masks are \(20, 30\)'):
        data.prepare_data(0)


def test_scores_by_hand():
    truth, predicted = torch.zeros(3, 4, 4, dtype=torch.bool), torch.zeros(3, 4, 4, dtype=torch.bool)
    truth[0, :2], predicted[0, 1:3] = True, True  # 4 of 12
    truth[1, 0, 0], predicted[1, 0, 0] = True, True  # 1 of 1; the third has no pixel in either
    metric = ReferringIoU()
    metric.process({}, [dict(gt_phrase_masks=dict(data=truth), pred_phrase_masks=dict(data=predicted))])
    found = metric.compute_metrics(metric.results)
    assert found['cIoU'] == pytest.approx(100 * 5 / 13) and found['mIoU'] == pytest.approx(100 * (1 / 3 + 2) / 3)
    assert found['P@0.5'] == found['P@0.9'] == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match='no `pred_phrase_masks` or `gt_phrase_masks`'):
        metric.process({}, [{}])
    with pytest.raises(ValueError, match='no phrase was scored'):
        metric.compute_metrics([])
