"""Counts the requests to a store in a bucket: for a commit, for opening, verifying, searching and training.

Run with `python -m benchmarks.scale.requests --labels STORE`. A server of S3's protocol (moto) runs in this process and
counts the requests; nothing is timed. Groups have `--rows` rows, drawn from the given store's maps.
"""

import os
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import click
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from benchmarks.map_reads import MapReader, open_groups, read_table
from benchmarks.resample import Plan, write_resampled
from benchmarks.scale.epoch import Rank
from store.cli.base import Command
from store.errors import LabelNotFoundError
from store.maintenance import verify_group
from store.reader import LabelStore
from trainer.data.batches import order_of

T = TypeVar("T")
BATCH_SIZE = 64
COLUMNS = ("GET", "HEAD", "PUT")
URL = "s3://bucket/labels.zarr"


class Quiet(WSGIRequestHandler):
    """A handler that logs no requests."""

    def log(self, type: str, message: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def counting_server() -> Iterator[Counter[str]]:
    """Serve S3 in this process, point its environment there, and yield the counts of requests by method."""
    counts: Counter[str] = Counter()
    bucket = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401  (WSGI)
        counts[environ["REQUEST_METHOD"]] += 1
        body: Iterable[bytes] = bucket(environ, start_response)
        return body

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "*",
    }
    try:
        yield counts
    finally:
        server.shutdown()
        thread.join()


def make_bucket() -> None:
    """Create the bucket of `URL`."""
    address = os.environ["AWS_ENDPOINT_URL"]
    urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=10).read()


def verify(*, deep: bool) -> None:
    store = LabelStore.open(URL)
    for name in store.names():
        assert not verify_group(store, name, deep=deep)


def find_missing() -> None:
    with suppress(LabelNotFoundError):
        LabelStore.open(URL).find("missing")


def read_epoch(held: Rank) -> int:
    """Read all maps in the order of an epoch, as one worker does; returns the number of chunks decoded."""
    reader = MapReader(
        held.joined, held.table, cached_rows=held.order.num_streams * held.order.cached_rows
    )  # fmt: skip
    for rows_n in held.order.batches(0):
        for _ in reader.maps(rows_n):
            pass
    return reader.chunks


def count(given: str, plan: Plan, counts: Counter[str]) -> Iterator[tuple[str, Counter[str], int]]:
    """Yield a name for each operation, the requests that it made, and the number of groups to divide them by."""

    def counted(work: Callable[[], T]) -> tuple[T, Counter[str]]:
        counts.clear()
        done = work()
        return done, Counter(counts)

    yield "commit a group", counted(partial(write_resampled, given, URL, plan))[1], plan.groups
    yield "list the groups", counted(lambda: LabelStore.open(URL).names())[1], plan.groups
    yield "open all groups", counted(lambda: list(LabelStore.open(URL)))[1], plan.groups
    yield "verify", counted(partial(verify, deep=False))[1], plan.groups
    yield "verify --deep", counted(partial(verify, deep=True))[1], plan.groups
    yield "look for a key that is missing", counted(find_missing)[1], plan.groups
    joined, opening = counted(partial(open_groups, URL))
    yield "a rank lists, opens and joins all groups", opening, plan.groups
    table, reading = counted(partial(read_table, joined))
    yield "a rank reads the table of rows", reading, plan.groups
    held = Rank(joined=joined, table=table, order=order_of(joined, batch_size=BATCH_SIZE, seed=0))
    chunks, epoch = counted(partial(read_epoch, held))
    yield f"an epoch, {chunks} chunks decoded, a group", epoch, plan.groups


@click.command(cls=Command)
@click.option("--labels", required=True, help="A store of real label maps.")
@click.option("--groups", default=8, show_default=True, type=click.IntRange(1))
@click.option("--rows", default=1251, show_default=True, help="Of each group.", type=click.IntRange(64))
def main(labels: str, groups: int, rows: int) -> None:
    """Print the number of requests for each group."""
    plan = Plan(rows=rows * groups, groups=groups)
    with counting_server() as counts:
        make_bucket()
        print(f"| requests a group, of {groups} groups of {rows:,} rows | {' | '.join(COLUMNS)} | all |")
        print("|---" * (len(COLUMNS) + 2) + "|")
        for name, found, groups_read in count(labels, plan, counts):
            cells = [f"{found[column] / groups_read:.3g}" for column in COLUMNS]
            print(f"| {name} | {' | '.join(cells)} | {found.total() / groups_read:.3g} |", flush=True)


if __name__ == "__main__":
    main()
