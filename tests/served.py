"""A server of one file that can misbehave in every way that a network does."""
from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `content` under every address.

    Attributes:
        manner: how; a key of `Handler.MANNERS`, or empty for as it should be.
        asked: the `Range` of every request.
        tag: of the content.
    """

    content: bytes
    manner = ''
    tag = '"first"'
    location = ''

    @property
    def address(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        manner = getattr(self, f'_{self.server.manner}', None)
        wanted = self.headers.get('Range') or ''
        self.server.asked.append(wanted)
        if manner is not None:
            manner()
            return
        start = int(re.findall(r'\d+', wanted)[0]) if wanted else 0
        if self.headers.get('If-Range', self.server.tag) != self.server.tag:
            start = 0
        self._send(start)

    def _send(self, start: int, *, said: int | None = None, length: int | None = None, cut: int | None = None) -> None:
        content = self.server.content
        if start >= len(content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(content)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            said = start if said is None else said
            self.send_header('Content-Range', f'bytes {said}-{len(content) - 1}/{len(content)}')
        self.send_header('ETag', self.server.tag)
        self.send_header('Content-Length', str(length or len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:cut])

    def _cut(self) -> None:
        self._send(0, cut=len(self.server.content) // 2)

    def _wrong_range(self) -> None:
        start = int((re.findall(r'\d+', self.headers.get('Range') or '') or ['0'])[0])
        self._send(start, said=start + 7)

    def _no_http(self) -> None:
        self.wfile.write(b'\x00\xff this is no answer\r\n\r\n')

    def _empty(self) -> None:
        self.close_connection = True

    def _bad_chunks(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc')

    def _cut_chunks(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nabc')

    def _long_header(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nX: ' + b'a' * 70_000 + b'\r\n\r\n')

    def _bad_length(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n<html>')

    def _trickle(self) -> None:
        self.send_response(200)
        self.send_header('Content-Length', '100000')
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b'.')
            time.sleep(0.1)

    def _trickled_header(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\n')
        for number in range(100):
            self.wfile.write(b'X-%d: 1\r\n' % number)
            time.sleep(0.1)

    def _redirect(self) -> None:
        self.send_response(302)
        self.send_header('Location', self.server.location)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """No lines in the output of the tests."""


@contextmanager
def serving(content: bytes, manner: str = '') -> Iterator[Server]:
    """A running server."""
    server = Server(('127.0.0.1', 0), Handler)
    server.content, server.manner, server.asked = content, manner, []
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients go away in the middle of an answer, as they should
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
