"""Real servers for tests, each in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 server; gives its URL."""
    with _serving([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p"], "/moto-api/") as url:
        yield url


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """A web server of a folder that knows byte ranges; gives its URL."""
    with _serving([sys.executable, "-m", "tests.builders.web_server", str(folder)], "/") as url:
        yield url


def s3_environment(url: str) -> dict[str, str]:
    """What a client needs to know of the server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


def make_bucket(url: str, name: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT"), timeout=10).read()


@contextmanager
def _serving(command: list[str], path: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"NO_PROXY": "*"}
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url + path)
        yield url
    finally:
        server.kill()
        server.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).read()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
