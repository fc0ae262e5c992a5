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

from store.reader import LabelStore
from store.view.sorting import store_state


def write_index(path: Path, labels: Path, *, digest: str | None = None) -> Path:
    """As `relabel-store audit --index` writes it: a figure for every row that is not quarantined."""
    store = LabelStore.open(labels)
    entries = [(group.name, row, group.keys[row]) for group in store for row in np.flatnonzero(group.usable())]
    count = len(entries)
    disagreement = np.linspace(0, 1, count, dtype=np.float32)
    disagreement[-1] = np.nan
    np.savez(
        path,
        group=np.array([name for name, _, _ in entries]),
        row=np.array([row for _, row, _ in entries], np.int32),
        key=np.array([key for _, _, key in entries]),
        disagreement=disagreement,
        entropy=(np.arange(count) % 5).astype(np.float32),
        classes=np.ones(count, np.int16),
        store_digest=np.array(digest or store_state(store)),
    )
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
def browse(*arguments: object) -> Iterator[Server]:
    command = [sys.executable, "-m", "store.cli", "browse", *map(str, arguments), "--port", "0"]
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
