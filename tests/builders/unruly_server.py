"""A web server that misbehaves in a chosen way for each object, in a thread of the test process."""

import itertools
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_numbers = itertools.count()
LONG_AGO = "Wed, 01 Jan 2025 00:00:00 GMT"
PIECE = 16_384


@dataclass
class Unruly:
    """An object and how the server sends it. Iterables have an item per GET, None for no fault."""

    data: bytes
    etag: str | None = '"first"'
    modified: str | None = LONG_AGO
    ranges: bool = True  # whether it knows byte ranges
    shift: int = 0  # bytes by which its parts are off
    bare_parts: bool = False  # whether its parts come without ETag and Last-Modified
    conditions: bool = True  # whether it knows If-Match and If-Unmodified-Since
    busy: int = 0  # GETs answered by 503
    cuts: Iterable[int | None] = ()  # the byte of the object before which it hangs up
    stalls: Iterable[int | None] = ()  # the byte of the object before which it falls silent
    piece: int = PIECE  # bytes that it sends at once
    pause: float = 0.0  # seconds between pieces
    length: int | None = None  # the announced length, if not the true one
    tells_length: bool = True
    later: "Unruly | None" = None  # takes this one's place after the first GET
    refused: int | None = None  # a status for all requests
    seen: list[str] = field(default_factory=list)  # the requests, such as "GET bytes=3-"

    answers: list[int] = field(default_factory=list)  # the statuses of its GETs

    def __post_init__(self) -> None:
        self.next_cut, self.next_stall = iter(self.cuts), iter(self.stalls)


class UnrulyServer(ThreadingHTTPServer):
    """Objects by path; `silence` ends when the server does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, Unruly] = {}
        self.silence = threading.Event()

    def put(self, unruly: Unruly) -> str:
        """Serve an object in a folder of its own; gives its URL."""
        path = f"/{next(_numbers)}/a.tar"
        self.objects[path] = unruly
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is nothing to print."""


class Handler(BaseHTTPRequestHandler):
    server: UnrulyServer
    unruly: Unruly | None
    protocol_version = "HTTP/1.1"

    def send_response(self, code: int, message: str | None = None) -> None:
        if self.command == "GET" and self.unruly is not None:
            self.unruly.answers.append(code)
        super().send_response(code, message)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        if (unruly := self.find()) is not None:
            self.send_response(200)
            self.describe(unruly, None)

    def do_GET(self) -> None:
        if (unruly := self.find()) is None:
            return
        if unruly.later is not None:
            self.server.objects[self.path] = unruly.later
        self.answer(unruly)

    def answer(self, unruly: Unruly) -> None:
        cut, stall = next(unruly.next_cut, None), next(unruly.next_stall, None)
        if unruly.busy:
            unruly.busy -= 1
            return self.refuse(503)
        if unruly.conditions and not self.holds(unruly):
            return self.refuse(412)
        part = self.part(unruly) if unruly.ranges else None
        if part is not None and part.start >= len(unruly.data):
            return self.refuse(416)
        self.send_response(200 if part is None else 206)
        self.describe(unruly, part)
        self.give(unruly, part or range(len(unruly.data)), cut, stall)
        return None

    def find(self) -> Unruly | None:
        unruly = self.unruly = self.server.objects.get(self.path)
        if unruly is None:
            self.refuse(404)
            return None
        unruly.seen.append(f"{self.command} {self.headers.get('Range', '')}".strip())
        if unruly.refused is not None:
            self.refuse(unruly.refused)
            return None
        return unruly

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def holds(self, unruly: Unruly) -> bool:
        match, since = self.headers.get("If-Match"), self.headers.get("If-Unmodified-Since")
        return (match is None or (match == unruly.etag and not match.startswith("W/"))) and (
            match is not None or since is None or since == unruly.modified
        )

    def part(self, unruly: Unruly) -> range | None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None:
            return None
        return range(int(match[1]) + unruly.shift, min(int(match[2]) + 1, len(unruly.data)))

    def describe(self, unruly: Unruly, part: range | None) -> None:
        size = len(unruly.data) if unruly.length is None else unruly.length
        if part is not None:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
        bare = part is not None and unruly.bare_parts
        if unruly.etag is not None and not bare:
            self.send_header("ETag", unruly.etag)
        if unruly.modified is not None and not bare:
            self.send_header("Last-Modified", unruly.modified)
        if unruly.tells_length:
            self.send_header("Content-Length", str(size if part is None else len(part)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()

    def give(self, unruly: Unruly, part: range, cut: int | None, stall: int | None) -> None:
        end = min(at for at in (part.stop, cut, stall) if at is not None)
        for at in range(part.start, end, unruly.piece):
            self.wfile.write(unruly.data[at : min(at + unruly.piece, end)])
            self.server.silence.wait(unruly.pause)
        if stall is not None:
            self.server.silence.wait()
        if end < part.stop or not unruly.tells_length or unruly.length is not None:
            self.close_connection = True


@contextmanager
def unruly_server() -> Iterator[UnrulyServer]:
    with UnrulyServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.silence.set()
            server.shutdown()
            thread.join()
