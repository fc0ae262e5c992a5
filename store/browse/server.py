"""The server of `relabel-store browse`: serves a store's pages to this machine alone. Needs the extra `web`.

It answers requests for its own host names only, so that a page on the web cannot reach it by DNS rebinding.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from store.audit.index import read_index
from store.browse.connections import CONNECTIONS, Connection
from store.browse.orders import Ordering, Sorting
from store.browse.pages import Listing, list_address
from store.browse.rows import Groups
from store.errors import LabelNotFoundError, RelabelError, SettingsError
from store.group import GroupRow
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.text import printable
from store.view.images import ShardImages
from store.view.page import Link, Links, sample_page, small_jpeg

HOSTS = ["127.0.0.1", "localhost"]
ADDRESS = "127.0.0.1"  # never another: images and labels are private
DECODED = 2  # images held at a time, each of up to 1 GiB
THUMB_SIDE = 192  # pixels
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",  # another store may be served at this address next
}


class Browser:
    """Answers the server's requests."""

    def __init__(self, groups: Groups, images: ShardImages, sorting: Sorting | None) -> None:
        self.groups, self.images = groups, images
        self.listing = Listing(groups, images, sorting)
        self._decoding = threading.Semaphore(DECODED)

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [Route("/", self.list), Route("/sample", self.sample), Route("/thumb", self.thumb)]
        return Starlette(
            routes=routes,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
            exception_handlers={RelabelError: _failed},
        )

    def list(self, request: Request) -> Response:
        """A page of thumbnails, or a redirect to the image whose whole key was searched for."""
        if (exact := self.listing.exact(request.query_params)) is not None:
            return RedirectResponse(exact, status_code=303, headers=HEADERS)
        return HTMLResponse(self.listing.page(request.query_params), headers=HEADERS)

    def sample(self, request: Request) -> Response:
        """A row's own page."""
        ordering = self.listing.ordering(request.query_params)
        at = request.query_params.get("at", "")
        spot = ordering.spot(at)
        links = Links(
            list=list_address(self.listing.asked(request.query_params) | {"at": at}),
            previous=self._link(ordering, ordering.before(at, 1)),
            next=self._link(ordering, next(iter(ordering.after(at, 2)[1:]), None)),
        )
        try:
            row = self.groups.open(spot.group).row(spot.row)
        except LabelNotFoundError:
            raise
        except RelabelError as error:
            self.groups.forget(spot.group)
            return HTMLResponse(
                self.listing.problem_page(request.query_params, error, links), status_code=500, headers=HEADERS
            )
        with self._decoding:
            image, problem = self._image(row)
            page = sample_page(row, image, problem=problem, links=links)
        return HTMLResponse(page, headers=HEADERS)

    def _image(self, row: GroupRow) -> tuple[NDArray[np.uint8] | None, str | None]:
        """A row's image, or the reason why there is none."""
        if row.undecodable is not None:
            return None, None
        try:
            return decode_image(self.images.read(row.group, row.number)), None
        except RelabelError as error:
            return None, str(error)

    def _link(self, ordering: Ordering, at: str | None) -> Link | None:
        if at is None:
            return None
        spot = ordering.spot(at)
        try:
            key = printable(self.groups.open(spot.group).keys[spot.row])
        except (RelabelError, IndexError):
            key = at
        return Link(href=ordering.href(at), key=key)

    def thumb(self, request: Request) -> Response:
        """A row's image, small."""
        spot = self.listing.in_store.spot(f"{request.query_params.get('group')}:{request.query_params.get('row')}")
        group = self.groups.open(spot.group)
        if spot.row >= len(group):
            raise LabelNotFoundError(f"{group.name}: no row {spot.row}")
        with self._decoding:
            data = small_jpeg(decode_image(self.images.read(group, spot.row)), THUMB_SIDE)
        return Response(data, media_type="image/jpeg", headers=HEADERS)


def _failed(_: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, LabelNotFoundError) else 500
    return PlainTextResponse(printable(str(error)), status_code=status, headers=HEADERS)


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Log no errors of requests that end with the server."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def serve(
    labels: str, patterns: Sequence[str], index: Path | None, port: int, listening: Callable[[str], object]
) -> None:
    """Serve a store's pages until Ctrl-C.

    Args:
        labels: the store.
        patterns: of its image shards.
        index: a file of `relabel-store audit --index`, to sort by; None for the store's order only.
        port: to listen on; 0 for any free one.
        listening: called with the address, as soon as a browser can connect.

    Raises:
        RelabelError: the store, a shard or the index cannot be read.
        SettingsError: the port is taken.
    """
    store = LabelStore.open(labels)
    images = ShardImages(patterns)
    groups = Groups(store)
    sorting = None if index is None else Sorting(read_index(index, store), groups)
    app = Browser(groups, images, sorting).app()
    with _listen(port) as listener:
        listening(f"http://{ADDRESS}:{listener.getsockname()[1]}/")
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level="warning",
            server_header=False,
            http=Connection,
            limit_concurrency=CONNECTIONS + 1,  # where all of them are being answered
            timeout_graceful_shutdown=1,
        )
        with contextlib.suppress(KeyboardInterrupt):
            _Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # Python's own text repeats the address
        raise SettingsError(f"port {port}: {reason}; choose another with --port, 0 for any free one") from error
