"""Archives are found, fetched, checked and unpacked, and every failure says what to do."""
from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile

import pytest
from served import serving

from frozenmm.datasets.prepare import PREPARATIONS, listing, prepare
from frozenmm.datasets.prepare.sources import SourceFile, obtain, unpack

CONTENT = {'images/a.jpg': b'picture a' * 500, 'images/b.jpg': b'picture b', 'list.txt': b'a b'}


def zipped(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def tarred(path, content=CONTENT, link=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w:gz' if path.suffix == '.gz' else 'w') as file:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo('images/link')
            info.type, info.linkname = tarfile.SYMTYPE, '/etc'
            file.addfile(info)
    return path


def source(path, **changes):
    return SourceFile(**{**dict(name=path.name, size='1 MB', page='https://example.org/data', gives=('images', ),
                                digest=f'md5:{hashlib.md5(path.read_bytes()).hexdigest()}' if path.is_file() else ''),
                         **changes})


def get(files, folder, archives, **changes):
    obtain(files, folder, **{**dict(splits=['val'], archives=[archives], download=False,
                                    command='python tools/prepare_data.py x'), **changes})


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('name', ['x.zip', 'x.tar', 'x.tar.gz'])
def test_an_archive_is_unpacked_once(tmp_path, name):
    archive = (zipped if name.endswith('zip') else tarred)(tmp_path / 'downloads' / name)
    file = source(archive)
    get([file], tmp_path / 'x', tmp_path / 'downloads')
    assert contents(tmp_path / 'x') == CONTENT
    archive.unlink()  # what is unpacked needs no archive
    get([file], tmp_path / 'x', tmp_path / 'downloads')


def test_files_of_the_publisher_s_operating_system_are_left_out(tmp_path):
    archive = zipped(tmp_path / 'x.zip', {'images/a.jpg': b'a', '__MACOSX/._a.jpg': b'b'})
    unpack(archive, tmp_path / 'x')
    assert contents(tmp_path / 'x') == {'images/a.jpg': b'a'}


def test_an_interrupted_unpacking_is_noticed_and_completed(tmp_path, monkeypatch):
    from frozenmm.datasets.prepare import sources
    archive = zipped(tmp_path / 'downloads/x.zip')
    file, write, written = source(archive), sources._write, []

    def once(path, opened):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, opened)
    monkeypatch.setattr(sources, '_write', once)
    with pytest.raises(KeyboardInterrupt):
        get([file], tmp_path / 'x', tmp_path / 'downloads')
    assert (tmp_path / 'x/images').is_dir()  # what it gives seems to be there, but is not complete
    before = written[0].stat().st_mtime_ns
    monkeypatch.setattr(sources, '_write', write)
    get([file], tmp_path / 'x', tmp_path / 'downloads')
    assert contents(tmp_path / 'x') == CONTENT and written[0].stat().st_mtime_ns == before


def test_a_file_is_fetched_where_its_address_is_known(tmp_path, monkeypatch):
    monkeypatch.delenv('FROZENMM_OFFLINE', raising=False)
    archive = zipped(tmp_path / 'server/x.zip')
    with serving(archive.read_bytes()) as server:
        file = source(archive, url=f'{server.address}/x.zip')
        get([file], tmp_path / 'x', tmp_path / 'downloads', download=True)
    assert contents(tmp_path / 'x') == CONTENT
    assert [path.name for path in (tmp_path / 'downloads').iterdir()] == ['x.zip']


def test_missing_files_are_all_named_with_size_origin_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv('FROZENMM_OFFLINE', '0')
    files = [source(tmp_path / 'x.zip'), source(tmp_path / 'y.zip', url=(tmp_path / 'no.zip').as_uri(), size='2 GB'),
             source(tmp_path / 'z.zip', split='train')]
    with pytest.raises(FileNotFoundError) as error:
        get(files, tmp_path / 'x', tmp_path / 'downloads', download=True)
    text = str(error.value)
    assert 'x.zip (1 MB) from https://example.org/data (registration is needed' in text
    assert 'y.zip (2 GB) from https://example.org/data (file:' in text and 'fetching it failed' in text
    assert 'z.zip' not in text and 'run: python tools/prepare_data.py x' in text
    assert f'Put what is missing into {tmp_path / "downloads"}' in text
    with pytest.raises(FileNotFoundError, match='fetching is switched off'):
        get(files, tmp_path / 'x', tmp_path / 'downloads')


def test_another_file_than_the_published_one_is_refused(tmp_path):
    archive = zipped(tmp_path / 'x.zip')
    with pytest.raises(ValueError, match='x.zip has the SHA1 .* but 00 is published .* Delete it and get it again'):
        get([source(archive, digest='sha1:00')], tmp_path / 'x', tmp_path)


@pytest.mark.parametrize('name', ['x.zip', 'x.tar', 'x.tar.gz'])
def test_half_an_archive_is_refused(tmp_path, name):
    archive = (zipped if name.endswith('zip') else tarred)(tmp_path / name)
    archive.write_bytes(archive.read_bytes()[:600 if name == 'x.tar' else 60])
    with pytest.raises(ValueError, match=f'{name} cannot be read as an archive: .*; delete it and get it again'):
        unpack(archive, tmp_path / 'x')


def test_a_changed_byte_in_a_zip_is_noticed(tmp_path):
    archive = zipped(tmp_path / 'x.zip', {'images/a.jpg': bytes(range(256)) * 8})
    content = bytearray(archive.read_bytes())
    content[80] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match='x.zip cannot be read as an archive'):
        unpack(archive, tmp_path / 'x')
    assert not (tmp_path / 'x/images/a.jpg').exists()


@pytest.mark.parametrize('name', ['../evil.txt', '/evil.txt', 'images/../../evil.txt'])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path, name):
    for archive in zipped(tmp_path / 'x.zip', {name: b'x'}), tarred(tmp_path / 'x.tar', {name: b'x'}):
        with pytest.raises(ValueError, match='lies outside of the folder'):
            unpack(archive, tmp_path / 'in' / 'x')
    assert not list(tmp_path.rglob('evil.txt'))


def test_links_in_an_archive_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds 'images/link', which is neither a file nor a folder"):
        unpack(tarred(tmp_path / 'x.tar', link=True), tmp_path / 'x')


def test_an_archive_with_other_content_is_noticed(tmp_path):
    archive = zipped(tmp_path / 'x.zip', {'readme.txt': b'x'})
    with pytest.raises(ValueError, match=r'x.zip was unpacked, but .*images is still missing; is it x.zip from https'):
        get([source(archive)], tmp_path / 'x', tmp_path)


def test_unknown_names_and_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown data set 'ade20'; did you mean one of \['ade20k'"):
        prepare('ade20', tmp_path)
    with pytest.raises(ValueError, match=r"splits must be some of \['train', 'val'\], got \['test'\]"):
        prepare('ade20k', tmp_path, splits=['test'])


def test_the_listing_tells_terms_sizes_and_origins():
    text = listing()
    for name, preparation in PREPARATIONS.items():
        assert f'{name}: {preparation.title}' in text and preparation.licence in text
        for file in preparation.files:
            assert file.name in text and file.size in text and file.page in text
            assert not file.digest or len(file.digest.split(':')[1]) == dict(md5=32, sha1=40, sha256=64)[
                file.digest.split(':')[0]]
