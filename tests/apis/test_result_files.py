"""The files of a run, read by the readers of their formats."""
from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation.metrics import coco_metric
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frozenmm.apis import inferencer
from frozenmm.apis.base import Inferencer, RunOptions
from frozenmm.apis.coco_entries import AnnotationIds, named_classes, with_ids
from frozenmm.apis.results import Result
from frozenmm.datasets.panoptic_files import read_panoptic_file, read_panoptic_map
from frozenmm.errors import UnreadableFile, UserError
from frozenmm.evaluation.panoptic_quality import PanopticQuality
from frozenmm.evaluation.split_coco import SplitCocoMetric
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass

PICTURES = 10


class Known(Inferencer):
    """Finds the same two boxes in every picture, one of them under two names."""

    classes = named_classes(['cat', 'cup', 'sky'])

    def predict(self, images):
        found = InstanceData(bboxes=torch.tensor([[1.0, 2, 5, 6], [1, 2, 5, 6], [0, 0, 9, 7]]),
                             labels=torch.tensor([0, 1, 1]), scores=torch.tensor([0.9, 0.5, 0.2]))
        return [Result.of(BaseDataElement(pred_instances=found), image, self.classes) for image in images]


def picture(value=0, size=(12, 16)):
    return np.full((*size, 3), value, np.uint8)


@pytest.fixture(scope='module')
def run(shared_dir, tmp_path_factory):
    """The demonstration model on some of coco_mini's validation pictures: results, files, annotation files."""
    root, out = shared_dir / 'data/coco_mini', tmp_path_factory.mktemp('run')
    truth = {}
    for kind in ('instances', 'panoptic'):
        content = json.loads((root / f'annotations/{kind}_val.json').read_text())
        areas = {entry['id']: [other['area'] for other in content['annotations'] if other.get('area', 0) and
                               other['image_id'] == entry['id']] for entry in content['images']}
        if kind == 'instances':  # a small model finds large things
            largest = sorted(areas, key=lambda number: -np.mean(areas[number] or 0))[:PICTURES]
        content['images'] = [entry for entry in content['images'] if entry['id'] in largest]
        kept = {entry['id'] for entry in content['images']}
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] in kept]
        truth[kind] = out / f'{kind}.json'
        truth[kind].write_text(json.dumps(content))
    paths = [root / 'images/val' / entry['file_name'] for entry in content['images']]
    model = inferencer('open-vocabulary-mini', 'coco_panoptic_133')
    results = model(paths, out_dir=out / 'out', min_score=0,
                    options=RunOptions(several_labels=True, annotations=truth['instances']))
    return results, out / 'out', truth


class Recorded(COCOeval):
    """Keeps what the metric of mmdet rounds."""

    stats_of: dict = {}

    def summarize(self):
        super().summarize()
        self.stats_of[self.params.iouType] = self.stats.copy()


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_loadres_of_our_file_gives_the_ap_of_the_metric(run, monkeypatch, kind):
    results, out, truth = run
    monkeypatch.setattr(coco_metric, 'COCOeval', Recorded)
    words = Vocabulary.named('coco_panoptic_133')
    metric = SplitCocoMetric(words, words, ann_file=str(truth['instances']), metric=kind)
    metric.dataset_meta = words.metainfo() | dict(category_ids=words.ids)
    metric.process({}, [result.to_dict() | dict(img_id=int(result.image.name)) for result in results])
    reported = metric.compute_metrics(metric.results)
    coco = COCO(str(truth['instances']))
    ours = COCOeval(coco, coco.loadRes(str(out / 'coco_results.json')), kind)
    ours.evaluate()
    ours.accumulate()
    ours.summarize()
    assert ours.stats[0] > 0.01  # there is something to compare
    assert ours.stats[:3] == pytest.approx(Recorded.stats_of[kind][:3], abs=1e-6)
    assert reported[f'{kind}_mAP'] == pytest.approx(ours.stats[0], abs=1e-3)


def test_the_tables_of_a_run_open_without_other_files(run):
    _, out, truth = run
    own = COCO(str(out / 'coco_images.json'))
    found = own.loadRes(str(out / 'coco_results.json'))
    assert set(own.getImgIds()) == set(COCO(str(truth['instances'])).getImgIds()) and found.getAnnIds()
    ids = {entry['id'] for entry in json.loads(truth['instances'].read_text())['categories']}
    assert ids == {entry['id'] for entry in own.dataset['categories'] if entry['isthing']}


def test_results_are_annotations_that_a_data_set_trains_on(run, shared_dir):
    _, out, _ = run
    results = json.loads((out / 'coco_results.json').read_text())
    own = COCO(str(out / 'coco_annotations.json'))
    assert [entry['id'] for entry in own.dataset['annotations']] == list(range(1, len(results) + 1))
    for entry, annotation in zip(results, own.dataset['annotations']):
        assert {key: annotation[key] for key in entry} == entry
        assert annotation['area'] == own.annToMask(annotation).sum()
    data = CocoDataset(ann_file=str(out / 'coco_annotations.json'), data_prefix=dict(img=str(out)), pipeline=[],
                       metainfo=dict(classes=[entry['name'] for entry in own.dataset['categories']]))
    read = [instance for record in map(data.get_data_info, range(len(data))) for instance in record['instances']]
    assert len(data) == PICTURES and len(read) == sum(entry['area'] > 0 for entry in own.dataset['annotations'])


def test_annotations_of_boxes_have_their_area_and_no_polygon(tmp_path):
    Known()(picture(), out_dir=tmp_path)
    content = json.loads((tmp_path / 'coco_annotations.json').read_text())
    (entry, ) = content['annotations']
    assert (entry['id'], entry['area'], entry['bbox'], entry['segmentation']) == (1, 16, [1, 2, 4, 4], [])
    # category 0 would be the background to labelling tools
    assert [(one['id'], one['name']) for one in content['categories']] == [(1, 'cat'), (2, 'cup'), (3, 'sky')]
    assert entry['category_id'] == 1 and entry['category'] == 'cat'


def test_a_panoptic_file_has_a_quality_of_one_against_itself(run):
    results, out, _ = run
    content = read_panoptic_file(out / 'panoptic.json')
    assert len(content.images) == PICTURES and sum(len(image.segments) for image in content.images) > PICTURES
    for image in content.images:  # the layout that panopticapi asks for: what is in the map is listed, and the reverse
        ids = read_panoptic_map(out / 'panoptic' / image.map_name)
        assert set(np.unique(ids).tolist()) - {0} == {segment.id for segment in image.segments}
        assert ids.shape == (image.height, image.width)
        assert all((ids == segment.id).sum() == segment.area for segment in image.segments)
    metric = PanopticQuality(str(out / 'panoptic.json'), str(out / 'panoptic'), vocabulary=[
        category.name for category in content.categories])
    for result in results:
        sample = result.to_dict()
        sample['img_id'] = int(result.image.name)
        metric.process(None, [sample])
    found = metric.compute_metrics(metric.results)
    assert (found['PQ'], found['SQ'], found['RQ']) == (100, 100, 100)


def test_label_maps_have_a_palette_and_a_legend(run):
    results, out, _ = run
    rows = list(csv.DictReader((out / 'semantic_classes.csv').open()))
    assert [row['name'] for row in rows] == Vocabulary.named('coco_panoptic_133').names
    for result in results[:2]:
        with Image.open(out / 'semantic' / f'{result.image.name}.png') as stored:
            assert stored.mode == 'P'
            values, colours = np.asarray(stored), np.asarray(stored.convert('RGB'))
        np.testing.assert_array_equal(values, result.pred_sem_seg.sem_seg[0].numpy())
        row = rows[values[0, 0]]
        assert '#{:02x}{:02x}{:02x}'.format(*colours[0, 0]) == row['color']


def test_every_picture_has_a_line(run):
    results, out, _ = run
    lines = [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]
    assert [line['image_id'] for line in lines] == [int(result.image.name) for result in results]
    for line, result in zip(lines, results):
        assert (line['height'], line['width']) == result.ori_shape
        assert len(line['segments']) == len(result.segments_info) and len(line['objects']) == len(result)


@pytest.mark.parametrize(('count', 'dtype'), [(3, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_label_maps_hold_any_number_of_classes(tmp_path, count, dtype):
    labels = torch.arange(count).repeat(2)[None, :].reshape(1, 2, count).clone()
    labels[0, 0, 0] = -1
    sample = BaseDataElement(pred_sem_seg=PixelData(sem_seg=labels))
    from frozenmm.compat.image_sources import NamedImage
    image = NamedImage('a', np.zeros((2, count, 3), np.uint8))
    Result.of(sample, image, named_classes([f'c{number}' for number in range(count)])).save(tmp_path)
    stored = np.asarray(Image.open(tmp_path / 'semantic/a.png'))
    assert stored.dtype == dtype and stored[0, 0] == np.iinfo(dtype).max
    np.testing.assert_array_equal(stored[1], np.arange(count))


def test_files_and_drawings_leave_out_what_scores_too_low(tmp_path):
    def entries(**options):
        Known()([picture()], out_dir=tmp_path, **options)
        return [(entry['category'], entry['score']) for entry in json.loads(
            (tmp_path / 'coco_results.json').read_text())]
    assert entries() == [('cat', pytest.approx(0.9))]
    drawn = (tmp_path / 'image_0000_overlay.png').read_bytes()
    low = pytest.approx(0.2)
    assert entries(min_score=0.1) == [('cat', pytest.approx(0.9)), ('cup', low)]
    assert (tmp_path / 'image_0000_overlay.png').read_bytes() != drawn
    assert entries(min_score=0, options=RunOptions(several_labels=True)) == [
        ('cat', pytest.approx(0.9)), ('cup', 0.5), ('cup', low)]
    assert entries(min_score=0.95) == []
    assert Known().summary(Known()([picture()])[0]) == 'cat 0.90 (1 box below 0.3)'


def test_arrays_in_a_loop_do_not_overwrite_each_other(tmp_path):
    model = Known()
    for value in (0, 100, 200):
        model(picture(value), out_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.glob('*.png')) == [f'image_000{n}_overlay.png' for n in range(3)]
    lines = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert [line['name'] for line in lines] == ['image_0000', 'image_0001', 'image_0002']
    assert len({line['image_id'] for line in lines}) == 3
    own = COCO(str(tmp_path / 'coco_images.json'))
    assert len(own.loadRes(str(tmp_path / 'coco_results.json')).getAnnIds()) == len(own.getImgIds()) == 3


def test_a_picture_that_comes_again_replaces_its_results(tmp_path):
    for name in ('a', 'b'):
        Image.fromarray(picture()).save(tmp_path / f'{name}.png')
    (tmp_path / 'other').mkdir()
    Image.fromarray(picture(9)).save(tmp_path / 'other/a.png')
    model, out = Known(), tmp_path / 'out'
    for name in ('a.png', 'b.png', 'a.png', 'other/a.png'):
        model(tmp_path / name, out_dir=out)
    lines = [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]
    assert [line['name'] for line in lines] == ['b', 'a', 'a_2']
    assert len(json.loads((out / 'coco_results.json').read_text())) == 3


def test_other_classes_begin_the_files_anew(tmp_path):
    model = Known()
    model(picture(), out_dir=tmp_path)
    model.classes = named_classes(['dog', 'cup', 'sky'])
    model(picture(), out_dir=tmp_path)
    assert [entry['category'] for entry in json.loads((tmp_path / 'coco_results.json').read_text())] == ['dog']

    def changing():
        yield picture()
        model.classes = named_classes(['cow', 'cup', 'sky'])
        yield picture()
    with pytest.raises(UserError, match="'cow' has the category id of another class.*folder of its own"):
        list(model.stream(changing(), out_dir=tmp_path))


def test_a_run_that_ends_early_leaves_whole_files(tmp_path):
    results = Known().stream((picture(value) for value in range(9)), out_dir=tmp_path)
    for number, _ in enumerate(results):
        if number == 2:
            break
    results.close()
    assert len((tmp_path / 'results.jsonl').read_text().splitlines()) == 3
    assert len(json.loads((tmp_path / 'coco_results.json').read_text())) == 3
    assert not [path for path in tmp_path.iterdir() if '.part' in path.name]


def test_pictures_get_their_number_as_id_and_others_a_free_one(tmp_path):
    for name in ('1', '000000000139', 'cat', '2'):
        Image.fromarray(picture()).save(tmp_path / f'{name}.png')
    Known()(tmp_path, out_dir=tmp_path / 'out')
    lines = [json.loads(line) for line in (tmp_path / 'out/results.jsonl').read_text().splitlines()]
    ids = {line['name']: line['image_id'] for line in lines}
    assert (ids['1'], ids['2'], ids['000000000139']) == (1, 2, 139) and ids['cat'] not in (1, 2, 139)


def annotations(folder, images, categories):
    path = folder / 'gt.json'
    path.write_text(json.dumps(dict(images=[dict(id=number, file_name=name) for name, number in images.items()],
                                    categories=[dict(id=number, name=name) for name, number in categories.items()])))
    return path


def test_ids_are_those_of_the_annotation_file(tmp_path):
    (tmp_path / 'val').mkdir()
    Image.fromarray(picture()).save(tmp_path / 'val/7.png')
    path = annotations(tmp_path, {'val/7.png': 'seven', 'train/7.png': 3}, {'cup': 41, 'cat': 17})
    Known()(tmp_path / 'val/7.png', out_dir=tmp_path / 'out', options=RunOptions(annotations=path))
    (entry, ) = json.loads((tmp_path / 'out/coco_results.json').read_text())
    assert (entry['image_id'], entry['category_id'], entry['category']) == ('seven', 17, 'cat')
    table = json.loads((tmp_path / 'out/coco_images.json').read_text())
    assert {category['name']: category['id'] for category in table['categories']} == dict(cat=17, cup=41, sky=42)
    Image.fromarray(picture()).save(tmp_path / 'new.png')
    with pytest.raises(UserError, match='new.png: no such picture in .*gt.json'):
        Known()(tmp_path / 'new.png', out_dir=tmp_path / 'out', options=RunOptions(annotations=path))
    path.write_text('[1]')
    with pytest.raises(UnreadableFile, match='gt.json cannot be read as a COCO annotation file'):
        AnnotationIds.read(path)


def test_category_ids_of_packaged_words_stay_where_the_file_calls_them_otherwise():
    words = [VocabularyClass('sky', id=187), VocabularyClass('cat', id=17)]
    assert [entry.id for entry in with_ids(words, {'sky-other-merged': 187, 'cat': 17})] == [187, 17]
    assert [entry.id for entry in with_ids(words, {'cat': 187})] == [188, 187]
    assert named_classes([entry.name for entry in Vocabulary.named('coco_panoptic_133') if entry.isthing])[-1].id == 90


def test_a_generator_streams_and_keeps_nothing():
    import gc
    import weakref
    alive, read = [], []

    def frames():
        for value in range(40):
            frame = picture(value)
            read.append(value)
            alive.append(weakref.ref(frame))
            yield frame
    results = Known()(frames())
    assert not isinstance(results, list) and read == []
    for number, result in enumerate(results):
        assert len(read) == number + 1 and len(result) == 3
        del result
        gc.collect()
        assert sum(reference() is not None for reference in alive) <= 2


def test_names_of_a_generator_are_numbers():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        names = [image.name for image, _ in Known().stream(picture(value) for value in range(3))]
    assert names == ['image_0000', 'image_0001', 'image_0002']


def test_threads_that_share_an_inferencer_share_its_folder(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    model = Known()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda value: model(picture(value), out_dir=tmp_path), range(12)))
    lines = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert sorted(line['name'] for line in lines) == [f'image_{number:04d}' for number in range(12)]
    assert {entry['image_id'] for entry in json.loads((tmp_path / 'coco_results.json').read_text())} == {
        line['image_id'] for line in lines} == {entry['id'] for entry in json.loads(
            (tmp_path / 'coco_images.json').read_text())['images']}
