"""A running `relabel-store browse`, and the file by which it sorts."""

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from store.audit.index import AuditIndex, store_digest
from store.reader import LabelStore


def write_index(path: Path, labels: Path, *, digest: str | None = None) -> Path:
    """As `relabel-store audit --index` writes it: figures for every decodable row."""
    store = LabelStore.open(labels)
    rows = [np.flatnonzero(group.usable()) for group in store]
    count = sum(map(len, rows))
    disagreement = np.linspace(0, 1, count, dtype=np.float32)
    disagreement[-1] = np.nan
    index = AuditIndex(
        group=np.array(store.names()),
        rows=np.array([len(part) for part in rows], np.int32),
        row=np.concatenate(rows).astype(np.int32),
        disagreement=disagreement,
        entropy=(np.arange(count) % 5).astype(np.float32),
        classes=np.ones(count, np.int16),
        present=np.concatenate(
            [group.read_array("classes")[part, 0, 0, 0] for group, part in zip(store, rows, strict=True)]
        ),
        label=np.concatenate([group.labels[part] for group, part in zip(store, rows, strict=True)]),
        threshold=0.9,
        left_out=np.array([], np.str_),
        store_digest=digest or store_digest(store),
    )
    with path.open("wb") as file:
        index.write(file)
    return path


class Server:
    """A running `browse`."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port, self.process = port, process
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, *, host: str | None = None, method: str = "GET") -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers={"Host": host} if host is not None else {})
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}

    def page(self, path: str) -> str:
        status, body, _ = self.ask(path)
        assert status == 200, body
        return body


@contextmanager
def watched(page: Page, address: str, *, within: str) -> Iterator[list[str]]:
    """A page in a browser; the test fails if it asks for anything elsewhere or complains.

    Gives the addresses that it asks for.
    """
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(address)
    yield asked
    assert complaints == []
    assert [url for url in asked if not url.startswith(("data:", within))] == []


@contextmanager
def browse(*arguments: object) -> Iterator[Server]:
    command = [sys.executable, "-m", "store.cli.main", "browse", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)
        if match is None:
            process.kill()
            raise AssertionError(line + process.communicate()[1])
        yield Server(int(match[1]), process)
    finally:
        process.kill()
        process.communicate()
