"""Whatever bytes a data set's files hold: they are read, or one sentence names the file; no bare sentence of Python."""
from __future__ import annotations

import gc
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hardening_budget import FACTOR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from frozenmm.datasets.annotation_pictures import read_picture
from frozenmm.datasets.episodes import EpisodicSegDataset, read_label_map
from frozenmm.datasets.panoptic_files import read_panoptic_file, read_panoptic_map
from frozenmm.datasets.prepare import lvis, pascal_context, pascal_voc
from frozenmm.datasets.prepare.sources import unpack
from frozenmm.datasets.rgbd import read_sequence
from frozenmm.datasets.semantic_maps import write_semantic_maps
from frozenmm.errors import UnreadableFile, UserError

BUDGET = settings(max_examples=200 * FACTOR, deadline=None, derandomize=True, database=None,
                  suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
PANOPTIC = dict(images=[dict(id=1, file_name='1.jpg', height=4, width=5)],
                categories=[dict(id=1, name='cat', isthing=1), dict(id=2, name='sky', isthing=0)],
                annotations=[dict(image_id=1, file_name='1.png', segments_info=[
                    dict(id=7, category_id=1, area=3, bbox=[0, 1, 2, 3], iscrowd=0)])])
INSTANCES = dict(PANOPTIC, annotations=[dict(id=1, image_id=1, category_id=1, area=4, iscrowd=0, bbox=[0, 0, 2, 2],
                                             segmentation=[[0, 0, 2, 0, 2, 2, 0, 2]])])
LVIS = dict(images=[dict(id=1, height=4, width=5, coco_url='http://x/val2017/1.jpg')],
            categories=[dict(id=1, name='cat', synonyms=['cat', 'kitty_cat'])], annotations=[])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(
    st.integers(-2, 2), max_size=3) | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)


@pytest.fixture(scope='module', autouse=True)
def _collections_look_at_new_things_only():
    """mmengine collects for every data set, which takes half a second after all the tests before."""
    gc.collect()
    gc.freeze()


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, 'PNG')
    return buffer.getvalue()


def mat() -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, dict(LabelMap=np.ones((4, 5), np.uint16)))
    return buffer.getvalue()


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == 'zip':
        with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as content:
            content.writestr('images/a.txt', 'some text ' * 20)
    else:
        with tarfile.open(fileobj=buffer, mode='w:gz') as content:
            info = tarfile.TarInfo('images/a.txt')
            info.size = 200
            content.addfile(info, io.BytesIO(b'some text ' * 20))
    return buffer.getvalue()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of another kind, or a good file cut short or with other bytes in it."""
    kind = draw(st.sampled_from(['foreign', 'cut', 'change', 'change']))
    if kind == 'foreign':
        return draw(st.binary(max_size=60))
    place = draw(st.integers(0, len(content) - 1))
    filling = draw(st.binary(min_size=1, max_size=6))
    return content[:place] if kind == 'cut' else content[:place] + filling + content[place + len(filling):]


@st.composite
def changed(draw: st.DrawFn, content: object) -> object:
    """A JSON structure with another value, or none, somewhere in it."""
    if isinstance(content, dict) and content and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(content)))
        if not draw(st.integers(0, 4)):
            return {name: value for name, value in content.items() if name != key}
        return {**content, key: draw(changed(content[key]))}
    if isinstance(content, list) and content and draw(st.integers(0, 9)):
        return [draw(changed(content[0])), *content[1:]]
    return draw(VALUES)


def documents(content: dict) -> st.SearchStrategy[bytes]:
    text = json.dumps(content).encode()
    return damaged(text) | changed(content).map(lambda value: json.dumps(value).encode())


def told(read: Callable[[], object], *names: str) -> None:
    """Run a reader; what it refuses names one of these files and is a sentence of ours."""
    try:
        read()
    except UserError as error:
        text = str(error)
        assert any(name in text for name in names), text
        for bare in ('object is not', 'indices must be', 'has no attribute', 'not subscriptable', 'values to unpack'):
            assert bare not in text, text


def test_what_is_not_damaged_is_read(tmp_path):
    """Else the damage below would never be reached."""
    (tmp_path / 'a.json').write_text(json.dumps(PANOPTIC))
    (tmp_path / 'a.png').write_bytes(png(np.full((6, 7, 3), 90, np.uint8)))
    (tmp_path / 'a.mat').write_bytes(mat())
    (tmp_path / 'val.txt').write_text('a\n')
    assert [len(image.segments) for image in read_panoptic_file(tmp_path / 'a.json').images] == [1]
    assert read_panoptic_map(tmp_path / 'a.png').shape == (6, 7)
    assert pascal_context.label_map(tmp_path / 'a.mat', 9).ndim == 2
    assert list(pascal_voc.listed(tmp_path / 'val.txt')) == ['a']


@BUDGET
@given(content=documents(PANOPTIC))
def test_panoptic_files(tmp_path, content):
    (tmp_path / 'a.json').write_bytes(content)
    told(lambda: read_panoptic_file(tmp_path / 'a.json'), 'a.json')


@BUDGET
@given(content=damaged(png(np.full((6, 7, 3), 90, np.uint8))))
def test_maps_and_pictures(tmp_path, content):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    for read in read_panoptic_map, read_picture, read_label_map:
        told(lambda read=read: read(path), 'a.png')


@BUDGET
@given(content=documents(PANOPTIC) | documents(INSTANCES), number=st.uuids())
def test_annotations_that_become_label_maps(tmp_path, content, number):
    (tmp_path / 'a.json').write_bytes(content)
    (tmp_path / '1.png').write_bytes(png(np.full((4, 5, 3), (7, 0, 0), np.uint8)))
    told(lambda: write_semantic_maps(tmp_path / 'a.json', tmp_path / str(number), classes=('cat', ),
                                     panoptic_folder=tmp_path), 'a.json', '.png', str(tmp_path))


@BUDGET
@given(content=documents(dict(classes=1, areas={'a': {'1': 6}})))
def test_records_of_what_label_maps_show(tmp_path, content):
    for name in 'images', 'maps':
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / 'maps' / 'a.png').write_bytes(png(np.ones((2, 3), np.uint8)))
    (tmp_path / 'maps' / 'presence.json').write_bytes(content)
    told(lambda: EpisodicSegDataset(['cat'], data_root=str(tmp_path), pipeline=[], data_prefix=dict(
        img_path='images', seg_map_path='maps')), 'presence.json', 'maps', 'images')


@BUDGET
@given(content=documents(LVIS))
def test_lvis_files(tmp_path, content):
    (tmp_path / 'lvis_v1_val.json').write_bytes(content)
    told(lambda: lvis.convert(tmp_path, 'val'), 'lvis_v1_val.json')


@BUDGET
@given(content=documents(LVIS))
def test_lvis_pictures(tmp_path, content):
    pytest.importorskip('mmdet')
    from frozenmm.datasets.lvis_images import LVISImages
    (tmp_path / 'lvis.json').write_bytes(content)
    told(lambda: LVISImages(str(tmp_path / 'lvis.json'), vocabulary=['cat'], pipeline=[]), 'lvis.json')


@BUDGET
@given(content=damaged(mat()))
def test_matlab_files(tmp_path, content):
    (tmp_path / 'a.mat').write_bytes(content)
    told(lambda: pascal_context.label_map(tmp_path / 'a.mat', 9), 'a.mat')


@BUDGET
@given(content=st.binary(max_size=50))
def test_lists_of_names(tmp_path, content):
    (tmp_path / 'val.txt').write_bytes(content)
    told(lambda: pascal_voc.listed(tmp_path / 'val.txt'), 'val.txt')


@pytest.mark.parametrize('kind', ['zip', 'tar.gz'])
@BUDGET
@given(data=st.data())
def test_archives(tmp_path, kind, data):
    path = tmp_path / f'x.{kind}'
    path.write_bytes(data.draw(damaged(archive(kind))))
    told(lambda: unpack(path, Path(tempfile.mkdtemp(dir=tmp_path))), f'x.{kind}')


def test_an_archive_that_points_before_its_own_begin(tmp_path):
    content = archive('zip')
    field = content.rindex(b'PK\x05\x06') + 16  # where the directory should begin: all offsets are taken from it
    begin = int.from_bytes(content[field:field + 4], 'little')
    path = tmp_path / 'x.zip'
    path.write_bytes(content[:field] + (begin + 60).to_bytes(4, 'little') + content[field + 4:])
    with pytest.raises(UnreadableFile, match='x.zip'):
        unpack(path, tmp_path / 'into')


@BUDGET
@given(data=st.data(), kind=st.sampled_from(['folder', 'nyu', 'tum', 'scannet', '7scenes', 'kitti']))
def test_sequences(tmp_path, data, kind):
    """Every file of a layout in turn, with numbers of a wrong count, words, or bytes."""
    pose = ' '.join(map(str, np.eye(4).ravel()))
    texts = {'poses.txt': f'0 {pose}\n' if kind == 'folder' else ' '.join(pose.split()[:12]), 'cam.txt': '5 5 2 2',
             'intrinsics.txt': '5 0 2\n0 5 2\n0 0 1', 'rgb.txt': '0.0 rgb/0.png', 'depth.txt': '0.0 depth/0.png',
             'groundtruth.txt': '0.0 0 0 0 0 0 0 1', 'pose/0.txt': pose, 'intrinsic_color.txt': pose,
             'frame-0.pose.txt': pose, 'oxts/data/0.txt': '1 2 3 0 0 0'}
    victim = data.draw(st.sampled_from(sorted(texts)))
    root = tmp_path / 'drive'
    for name, text in texts.items():
        content = data.draw(damaged(text.encode())) if name == victim else text.encode()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    picture = png(np.full((4, 5), 9, np.uint8))
    for name in ('color/0.png', 'rgb/0.png', 'depth/0.png', 'frame-0.color.png', 'frame-0.depth.png',
                 'image_02/data/0.png', 'proj_depth/groundtruth/image_02/0.png'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture)

    def read() -> None:
        sequence = read_sequence(root, kind)
        sequence.depth(0)

    told(read, str(tmp_path))


@BUDGET
@given(content=damaged(png(np.full((4, 5), 9, np.uint8))))
def test_images_of_a_sequence(tmp_path, content):
    from frozenmm.datasets.rgbd import RGBDSequence
    path = Path(tmp_path, 'a.png')
    path.write_bytes(content)
    sequence = RGBDSequence([path], [path], np.eye(4)[None], np.eye(3))
    told(lambda: (sequence.image(0), sequence.depth(0)), 'a.png')
