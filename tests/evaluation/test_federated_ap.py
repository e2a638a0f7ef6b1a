from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

import frozenmm  # noqa: F401
from frozenmm.evaluation.federated_ap import FederatedImage, average_precisions, match_image
from frozenmm.registry import METRICS

SIZE = (16, 20)
CATEGORIES = [dict(id=number, name=name, synonyms=[name], frequency=letter) for number, name, letter in (
    (7, 'yak', 'r'), (2, 'cat', 'f'), (4, 'oar', 'c'))]


def run(left, width):
    mask = np.zeros(SIZE, np.uint8)
    mask[:, left:left + width] = 1
    return coco_mask.encode(np.asfortranarray(mask))


def image(outlines, absent=(), open_ended=()):
    made = FederatedImage(SIZE, absent=frozenset(absent), open_ended=frozenset(open_ended))
    for category, outline in outlines:
        made.outlines[category].append(outline)
    return made


def matched(made, *detections):
    return match_image(made, np.array([found[0] for found in detections]), np.array([found[1] for found in detections]),
                       [found[2] for found in detections])


def test_a_detection_takes_the_free_object_that_it_overlaps_most():
    found = matched(image([(2, run(0, 10)), (2, run(10, 10))]), (2, 0.5, run(0, 10)), (2, 0.9, run(0, 9)))
    assert found.scores.tolist() == [0.9, 0.5]
    # the better one takes the left object up to an overlap of 0.9, so the perfect one has it from 0.95 on only
    assert found.correct[0].tolist() == [True] * 9 + [False]
    assert found.correct[1].tolist() == [False] * 9 + [True]


def test_categories_that_nobody_looked_for_do_not_count_and_absent_ones_are_errors():
    found = matched(image([(2, run(0, 10))], absent=[4]), (2, 0.3, run(0, 10)), (4, 0.8, run(0, 5)),
                    (7, 0.9, run(0, 5)))
    assert found.categories.tolist() == [4, 2] and found.correct.all(1).tolist() == [False, True]


def test_detections_without_a_pixel_do_not_count():
    found = matched(image([(2, run(0, 10))]), (2, 0.9, run(0, 0)), (2, 0.8, run(0, 10)))
    assert found.scores.tolist() == [0.8] and found.correct.all()


def test_unmatched_detections_of_open_ended_categories_are_no_errors():
    found = matched(image([(2, run(0, 10))], open_ended=[2]), (2, 0.9, run(10, 10)), (2, 0.8, run(0, 10)))
    assert found.ignored.all(1).tolist() == [True, False]
    assert average_precisions([found], [2]).tolist() == [[pytest.approx(1)] * 10]


def test_average_precision_by_hand():
    # right, wrong, right of two objects: precision 1 up to recall 1/2, then 2/3
    found = matched(image([(2, run(0, 5)), (2, run(5, 5))], absent=[4]), (2, 0.9, run(0, 5)), (2, 0.8, run(15, 5)),
                    (2, 0.7, run(5, 5)))
    table = average_precisions([found], [2, 4, 7])
    assert table[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert np.isnan(table[1:]).all()  # not annotated anywhere


def dataset(path, images=6, seed=0):
    """Random annotations in LVIS's format, as polygons and as run lengths."""
    rng = np.random.default_rng(seed)
    content = dict(images=[], annotations=[], categories=CATEGORIES)
    for number in range(1, images + 1):
        kinds = rng.permutation([2, 4, 7]).tolist()
        content['images'].append(dict(id=number, height=SIZE[0], width=SIZE[1], neg_category_ids=kinds[2:],
                                      not_exhaustive_category_ids=kinds[:1] if number % 2 else []))
        for _ in range(int(rng.integers(1, 5))):
            x, y = rng.integers(0, 12), rng.integers(0, 8)
            w, h = rng.integers(3, 8, 2)
            outline = [[float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]]
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=number, category_id=kinds[int(rng.integers(2))],
                area=float(w * h), bbox=[float(v) for v in (x, y, w, h)], segmentation=outline))
    path.write_text(json.dumps(content))
    return content


def predictions(content, seed):
    """Detections near the annotated objects and anywhere, with scores that are often equal."""
    rng = np.random.default_rng(seed)
    found = []
    for entry in content['images']:
        near = [a['bbox'] for a in content['annotations'] if a['image_id'] == entry['id']]
        masks, labels = [], []
        for _ in range(8):
            x, y, w, h = (int(v) for v in (near[int(rng.integers(len(near)))] if rng.random() < 0.7
                                           else rng.integers(1, 10, 4)))
            mask = torch.zeros(SIZE, dtype=torch.bool)
            mask[max(y + int(rng.integers(-1, 2)), 0):y + h, max(x + int(rng.integers(-1, 2)), 0):x + w] = True
            masks.append(mask)
            labels.append(int(rng.integers(3)))
        found.append((entry['id'], torch.stack(masks), torch.tensor(labels),
                      torch.tensor(rng.integers(1, 6, 8) / 5, dtype=torch.float32)))
    return found


def corners(masks):
    """Boxes of masks, zeros for an empty one."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks):
        if mask.any():
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            box[:] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return boxes


def sample(img_id, masks, labels, scores):
    made = DetDataSample(metainfo=dict(img_id=img_id))
    made.pred_instances = InstanceData(masks=masks, bboxes=corners(masks), labels=labels, scores=scores)
    return made.to_dict()


def evaluate(path, found, **options):
    metric = METRICS.build(dict(dict(type='LVISMaskAP', ann_file=str(path)), **options))
    for one in found:
        metric.process({}, [sample(*one)])
    return metric.evaluate(len(found))


def test_boxes_of_rectangular_masks_give_the_same_numbers(tmp_path):
    found = predictions(dataset(tmp_path / 'lvis.json', images=12), 5)
    masks, boxes = (evaluate(tmp_path / 'lvis.json', found, type=kind, max_detections=6)
                    for kind in ('LVISMaskAP', 'LVISBoxAP'))
    assert boxes == pytest.approx(masks, nan_ok=True) and 0 < boxes['lvis/AP'] < 100


@pytest.mark.parametrize(('seed', 'kind'), [(seed, 'segm') for seed in range(4)] + [(0, 'bbox'), (1, 'bbox')])
def test_it_equals_the_official_evaluation(tmp_path, monkeypatch, seed, kind):
    """Of the package lvis, whose code calls a name that numpy has dropped."""
    monkeypatch.setattr(np, 'float', float, raising=False)
    lvis = pytest.importorskip('lvis')
    content = dataset(tmp_path / 'lvis.json', seed=seed)
    found = predictions(content, seed + 100)
    most = {'segm': 6, 'bbox': 300}[kind]  # empty masks are among the best six, but no boxes
    ours = evaluate(tmp_path / 'lvis.json', found, max_detections=most,
                    type={'segm': 'LVISMaskAP', 'bbox': 'LVISBoxAP'}[kind])
    ids = [2, 4, 7]
    results = []
    for img_id, masks, labels, scores in found:
        for mask, box, label, score in zip(masks.numpy(), corners(masks).tolist(), labels.tolist(), scores.tolist()):
            if kind == 'bbox':
                x1, y1, x2, y2 = box
                if x2 > x1:  # an empty mask has no box
                    results.append(dict(image_id=img_id, category_id=ids[label], score=score,
                                        bbox=[x1, y1, x2 - x1, y2 - y1]))
                continue
            code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            results.append(dict(image_id=img_id, category_id=ids[label], score=score,
                                segmentation=dict(size=code['size'], counts=code['counts'].decode())))
    truth = lvis.LVIS(str(tmp_path / 'lvis.json'))
    official = lvis.LVISEval(truth, lvis.LVISResults(truth, results, max_dets=most), kind)
    official.run()
    for name in 'AP', 'AP50', 'AP75', 'APr', 'APc', 'APf':
        wanted = official.results[name]
        assert ours[f'lvis/{name}'] == pytest.approx(100 * wanted, abs=1e-9) if wanted > -1 \
            else math.isnan(ours[f'lvis/{name}'])
    assert 0 < ours['lvis/AP'] < 100


def test_seen_and_unseen_categories_are_averaged_apart(tmp_path):
    content = dataset(tmp_path / 'lvis.json')
    found = predictions(content, 1)
    ours = evaluate(tmp_path / 'lvis.json', found, vocabulary=['cat', 'oar', 'yak'], train_vocabulary=['cat'])
    assert ours['lvis/AP_seen'] == ours['lvis/APf']
    assert ours['lvis/AP_unseen'] == pytest.approx((ours['lvis/APc'] + ours['lvis/APr']) / 2)


def test_bad_input_is_explained(tmp_path):
    path = tmp_path / 'lvis.json'
    with pytest.raises(FileNotFoundError, match='there is no .*lvis.json, which should be an annotation file'):
        evaluate(path, [])
    content = dataset(path)
    with pytest.raises(ValueError, match='has 3 categories, but the vocabulary has 1 classes; prepare the vocabulary'):
        evaluate(path, [], vocabulary=['cat'])
    with pytest.raises(ValueError, match='image 99 is not in .*lvis.json'):
        evaluate(path, [(99, *predictions(content, 0)[0][1:])])
    metric = METRICS.build(dict(type='LVISMaskAP', ann_file=str(path)))
    with pytest.raises(ValueError, match="no `pred_instances`.*add 'instance' to the tasks"):
        metric.process({}, [DetDataSample(metainfo=dict(img_id=1)).to_dict()])
    path.write_text(json.dumps(dict(content, images=[dict(id=1, height=4, width=4)])))
    with pytest.raises(ValueError, match="read as an annotation file of LVIS v1: the key 'neg_category_ids' is"):
        evaluate(path, [])


def test_an_image_may_have_more_detections_than_8_bits_count():
    mask = coco_mask.encode(np.asfortranarray(np.ones((4, 4), np.uint8)))
    image = FederatedImage((4, 4), absent=frozenset({7}))
    found = match_image(image, np.full(300, 7), np.linspace(1, 0, 300), [mask] * 300)
    assert len(found.scores) == 300 and not found.correct.any()
