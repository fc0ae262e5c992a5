"""Runs the server of `browse` until Ctrl-C. Needs the extra `web`."""

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import click
import uvicorn

from store.audit.index import read_index
from store.browse.groups import Groups
from store.browse.server import Browser
from store.browse.sorting import Sorting
from store.command import OneLineError
from store.reader import LabelStore
from store.view.photos import Photos

ADDRESS = "127.0.0.1"  # never another: images and labels are nobody else's
CONNECTIONS = 32  # more are refused: a browser opens six


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Requests that are given up now are no errors."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def serve(labels: str, patterns: Sequence[str], index: Path | None, port: int) -> None:
    """Serve a store's pages.

    Args:
        labels: the store.
        patterns: of its image shards.
        index: the file that `relabel-store audit --index` wrote.
        port: to listen on; 0 for any free one.

    Raises:
        RelabelError: the store, a shard or the index cannot be read.
        OneLineError: the port is taken.
    """
    store = LabelStore.open(labels)
    photos = Photos(patterns)
    groups = Groups(store)
    sorting = None if index is None else Sorting(read_index(index, store), groups)
    app = Browser(groups, photos, sorting).app()
    with _listen(port) as listener:
        click.echo(f"http://{ADDRESS}:{listener.getsockname()[1]}/ (Ctrl-C ends it)")
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level="warning",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        with contextlib.suppress(KeyboardInterrupt):
            _Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # Python's own text repeats the address
        raise OneLineError(f"port {port}: {reason}; choose another with --port, 0 for any free one") from error
