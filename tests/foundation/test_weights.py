from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.state_match import load_strictly, recognise
from frozenmm.foundation.weights import (
    WeightFile,
    build_network,
    download,
    locate,
    random_seed,
    weights_key,
    weights_note,
)


def _content() -> bytes:
    stream = io.BytesIO()
    torch.save(dict(weight=torch.arange(320_000, dtype=torch.float32)), stream)
    return stream.getvalue()


CONTENT = _content()


class Server(ThreadingHTTPServer):
    """Serves `CONTENT` with ranges; `limit` cuts each answer short."""

    limit: int | None = None
    ranges: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get('Range', '')
        self.server.ranges.append(wanted)
        start = int(re.findall(r'\d+', wanted)[0]) if wanted else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header('Content-Range', f'bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}')
        self.send_header('ETag', '"one"')
        self.send_header('Content-Length', str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][:self.server.limit])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(('127.0.0.1', 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def online(weights_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv('FROZENMM_OFFLINE')
    return weights_home


def _file(server: Server, sha256: str = '') -> WeightFile:
    return WeightFile(f'http://127.0.0.1:{server.server_port}/net.pth', 1, 'MIT', sha256)


def test_a_file_is_fetched_once_and_then_found_in_the_cache(server: Server, online: Path) -> None:
    file = _file(server, hashlib.sha256(CONTENT).hexdigest()[:8])
    path = locate(None, file, name='net')
    assert path == online / 'net.pth' and path.read_bytes() == CONTENT
    assert locate(None, file, name='net') == path and len(server.ranges) == 1
    assert [entry.name for entry in online.iterdir() if entry.suffix not in ('.lock', '.sha256')] == ['net.pth']


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, online: Path) -> None:
    server.limit = 700_000
    file = _file(server, hashlib.sha256(CONTENT).hexdigest())
    with pytest.raises(FileNotFoundError, match='ended after 700000 of [0-9]+ bytes; call again to go on'):
        locate(None, file, name='net')
    assert not (online / 'net.pth').exists()
    assert locate(None, file, name='net').read_bytes() == CONTENT
    assert server.ranges == ['', 'bytes=700000-']


def test_a_part_that_is_complete_is_taken_as_it_is(server: Server, online: Path) -> None:
    online.mkdir(parents=True)
    (online / 'net.pth.part').write_bytes(CONTENT)
    (online / 'net.pth.part.etag').write_text('"one"')
    assert locate(None, _file(server), name='net').read_bytes() == CONTENT


def test_a_file_with_another_hash_is_deleted_and_refused(server: Server, online: Path) -> None:
    with pytest.raises(ValueError, match='gave a file with SHA-256 .* but 0123 *... is published; it was deleted'):
        locate(None, _file(server, '0123'), name='net')
    assert [entry.name for entry in online.iterdir()] == ['net.pth.lock']


def test_without_network_the_error_says_what_where_and_how_large(weights_home: Path) -> None:
    file = WeightFile('https://example.org/a/net.pth', 123, 'MIT')
    with pytest.raises(FileNotFoundError) as error:
        locate(None, file, name='CLIP X')
    for part in ('weights of CLIP X', 'net.pth (about 123 MB', 'licence: MIT', 'https://example.org/a/net.pth',
                 str(weights_home / 'net.pth'), 'FROZENMM_OFFLINE'):
        assert part in str(error.value)


def test_an_address_that_cannot_be_reached_gives_the_same_help(online: Path) -> None:
    file = WeightFile('http://127.0.0.1:1/net.pth', 123, 'MIT')
    with pytest.raises(FileNotFoundError, match='put it at .*, or give its path as `weights` .fetching it failed'):
        download(file, online / 'net.pth', name='net')


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='weights of net: .*nothing.pth is no file; give the path'):
        locate(tmp_path / 'nothing.pth', None, name='net')


def test_a_model_without_published_weights_says_so() -> None:
    with pytest.raises(ValueError, match="net has no published weights; give weights='path/to/file'"):
        locate(None, None, name='net')


@pytest.mark.parametrize('weights, seed', [('random', 0), ('random:7', 7), (None, None), ('random.pth', None),
                                           (Path('random'), None)])
def test_random_weights_are_named_with_their_seed(weights: str | Path | None, seed: int | None) -> None:
    assert random_seed(weights) == seed


def test_random_weights_are_the_same_draw_and_leave_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second, other = (build_network(lambda: nn.Linear(3, 2), weights, None, name='net')
                            for weights in ('random', 'random:0', 'random:1'))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.weight, second.weight) and not torch.equal(first.weight, other.weight)


def test_the_name_of_a_tower_says_where_its_weights_come_from() -> None:
    assert weights_note(None) == '' and weights_note('random') == ' (random weights)'
    assert weights_note('/some/where/net.pth') == ' (net.pth)'
    assert weights_key('a/../net.pth') == weights_key('net.pth') != weights_key(None)


def test_a_network_takes_its_weights_from_a_file_as_float32(tmp_path: Path) -> None:
    reference = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    reference[1].running_mean.normal_()
    state = {f'net.{key}': value.half() if value.is_floating_point() else value
             for key, value in reference.state_dict().items() if not key.endswith('num_batches_tracked')}
    torch.save(state, tmp_path / 'net.pth')
    network = build_network(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), tmp_path / 'net.pth', None,
                            name='net', select=lambda state: {key[4:]: value for key, value in state.items()})
    assert network[0].weight.dtype == torch.float32 and network[0].weight.device.type == 'cpu'
    assert torch.equal(network[1].running_mean, reference[1].running_mean.half().float())
    assert network[1].num_batches_tracked.item() == 0


def test_a_file_of_another_architecture_names_keys_and_shapes() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    state = {'0.weight': torch.zeros(5, 3), '0.bias': torch.zeros(2), 'extra': torch.zeros(1)}
    with pytest.raises(ValueError, match=r'file.pth does not fit net: wrong shape: 0.weight is \(5, 3\), not \(2, 3\); '
                       r'missing: 1.weight, 1.bias; not used: extra'):
        load_strictly(network, state, name='net', source='file.pth')


def test_a_long_list_of_keys_is_cut() -> None:
    network = nn.Sequential(*(nn.Linear(1, 1) for _ in range(5)))
    with pytest.raises(ValueError, match='missing: 0.weight, .*2.weight and 5 more'):
        load_strictly(network, {'0.weights': torch.zeros(1)}, name='net', source='file')


def test_nothing_is_recognised_in_an_unknown_file() -> None:
    assert recognise({'a': torch.zeros(1)}) == ''


def test_names_are_found_whatever_their_case_and_punctuation() -> None:
    known = ['ViT-B/32', 'ViT-L/14@336px']
    assert lookup('vit_b_32', known, 'model') == 'ViT-B/32'
    assert lookup('ViT-L/14@336px', known, 'model') == 'ViT-L/14@336px'


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown CLIP model 'ViT-B/33'; did you mean one of \['ViT-B/32'"):
        lookup('ViT-B/33', ['RN50', 'ViT-B/32'], 'CLIP model')
    with pytest.raises(ValueError, match=r"did you mean one of \['RN50', 'ViT-B/32'\]"):
        lookup('zzz', ['RN50', 'ViT-B/32'], 'CLIP model')


def test_a_mirror_is_asked_first_and_the_official_address_after_it(server: Server, online: Path, monkeypatch) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    nowhere = WeightFile('http://127.0.0.1:1/official/net.pth', 1, 'MIT', digest)
    monkeypatch.setenv('FROZENMM_MIRROR', f'http://127.0.0.1:{server.server_port}/mirror/')
    assert locate(None, nowhere, name='net').read_bytes() == CONTENT
    (online / 'net.pth').unlink()
    monkeypatch.setenv('FROZENMM_MIRROR', 'http://127.0.0.1:1')
    assert locate(None, _file(server, digest), name='net').read_bytes() == CONTENT
    (online / 'net.pth').unlink()
    with pytest.raises(FileNotFoundError, match='http://127.0.0.1:1/net.pth: .*;'):
        locate(None, nowhere, name='net')
