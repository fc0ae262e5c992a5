"""What `relabel-store browse` bounds: connections, and images that are decoded at a time."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from store.browse.connections import CONNECTIONS
from store.browse.rows import Groups
from store.browse.server import DECODED, Browser
from store.reader import LabelStore
from store.view.images import ShardImages
from tests.builders.browse_server import Server, browse
from tests.builders.view_store import write_view_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("browse"), 1)


@pytest.fixture(scope="module")
def server(made: tuple[Path, str]) -> Iterator[Server]:
    with browse(made[0], "--shards", made[1]) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_silent_connections_keep_no_one_out(server: Server, sent: bytes) -> None:
    """Those that ask for nothing, and those that never end their request."""
    with ExitStack() as stack:
        for _ in range(3 * CONNECTIONS):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            silent.sendall(sent)
        for _ in range(3):
            assert server.ask("/")[0] == 200


def test_the_connection_that_was_silent_the_longest_is_closed_first(server: Server) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(2))
        for connection in (first, second):
            time.sleep(0.05)
            connection.sendall(b"GET /")
        first.sendall(b"sample HTTP/1.1\r\n")
        time.sleep(0.05)
        for _ in range(CONNECTIONS - 1):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        second.settimeout(10)
        with suppress(ConnectionResetError):
            assert second.recv(1) == b""
        first.sendall(b"Host: 127.0.0.1\r\n\r\n")
        first.settimeout(10)
        assert first.recv(12) == b"HTTP/1.1 404"


def test_few_images_are_held_at_a_time(made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of 50 megapixels takes a gigabyte, and eight requests may come at once."""
    held, most, lock = 0, 0, threading.Lock()

    def decode(_: bytes) -> None:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)

    def make_page(*_: Any, **__: Any) -> str:
        nonlocal held
        time.sleep(0.02)
        with lock:
            held -= 1
        return ""

    monkeypatch.setattr("store.browse.server.decode_image", decode)
    monkeypatch.setattr("store.browse.server.sample_page", make_page)
    browser = Browser(Groups(LabelStore.open(made[0])), ShardImages([made[1]]), None)
    request = Request({"type": "http", "query_string": b"at=train-0:0", "headers": []})
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(browser.sample, [request] * 8))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert (held, most) == (0, DECODED)
