"""How many requests a store in a bucket answers: for a commit, for opening, verifying, searching, training.

Run with `python -m benchmarks.scale.requests --labels STORE`. A server of S3's protocol (moto) runs in this
process and counts what reaches it; nothing is timed. Groups have `--rows` rows of the given store's maps, so
that nothing but their number and that of their chunks matters.
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

from benchmarks.scale.data import PROVENANCE, Plan, draw_groups, read_maps
from benchmarks.scale.epoch import CountingReader, Rank, open_groups, read_table
from store.cli.base import Command
from store.errors import LabelNotFoundError
from store.maintenance import verify_group
from store.reader import LabelStore
from store.writer import StoreWriter
from trainer.data.batches import order_of
from trainer.data.order import MAX_STREAMS
from trainer.data.samples import CACHED_ROWS_PER_STREAM

T = TypeVar("T")
COLUMNS = ("GET", "HEAD", "PUT")
URL = "s3://bucket/labels.zarr"


class Quiet(WSGIRequestHandler):
    """Writes no line for each request."""

    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def counting_server() -> Iterator[Counter[str]]:
    """A bucket, as the environment of this process names it from now on, and the requests that it has answered."""
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
    """The bucket of `URL`."""
    address = os.environ["AWS_ENDPOINT_URL"]
    urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=10).read()


def write(given: str, plan: Plan) -> None:
    maps, schema = read_maps(given), LabelStore.open(given).schema
    writer = StoreWriter.open(URL, schema)
    for name, labels, tar in draw_groups(maps, schema, plan):
        writer.write(name, labels, tar=tar, provenance=PROVENANCE)


def verify(*, deep: bool) -> None:
    store = LabelStore.open(URL)
    for name in store.names():
        assert not verify_group(store, name, deep=deep)


def find_last() -> None:
    store = LabelStore.open(URL)
    name = store.names()[-1]
    key = store.group(name).keys[-1]
    assert LabelStore.open(URL).find(key)[0].name == name


def find_nowhere() -> None:
    with suppress(LabelNotFoundError):
        LabelStore.open(URL).find("nowhere")


def read_epoch(held: Rank) -> int:
    """All maps in the order of an epoch, as one worker reads them; gives how many chunks were decoded."""
    streams = held.order.streams(0)
    reader = CountingReader(
        held.joined, held.table, cached_rows=len(streams) * CACHED_ROWS_PER_STREAM, with_tail=False
    )  # fmt: skip
    for step in range(held.order.steps):
        for _ in reader.maps(held.order.batch(streams, step).reshape(-1)):
            pass
    return reader.chunks


def count(given: str, plan: Plan, counts: Counter[str]) -> Iterator[tuple[str, Counter[str], int]]:
    """What was done, the requests it took, and by how many groups or chunks they are to be divided."""

    def asked(work: Callable[[], T]) -> tuple[T, Counter[str]]:
        counts.clear()
        done = work()
        return done, Counter(counts)

    yield "commit a group", asked(partial(write, given, plan))[1], plan.groups
    yield "list the groups", asked(lambda: LabelStore.open(URL).names())[1], plan.groups
    yield "open all groups", asked(lambda: list(LabelStore.open(URL)))[1], plan.groups
    yield "verify", asked(partial(verify, deep=False))[1], plan.groups
    yield "verify --deep", asked(partial(verify, deep=True))[1], plan.groups
    yield "look for a key that is nowhere", asked(find_nowhere)[1], plan.groups
    joined, opening = asked(partial(open_groups, URL))
    yield "a rank lists, opens and joins all groups", opening, plan.groups
    table, reading = asked(partial(read_table, joined))
    yield "a rank reads the table of rows", reading, plan.groups
    held = Rank(joined=joined, table=table, order=order_of(joined, batch_size=MAX_STREAMS, seed=0))
    chunks, epoch = asked(partial(read_epoch, held))
    yield f"an epoch, {chunks} chunks decoded, a group", epoch, plan.groups


@click.command(cls=Command)
@click.option("--labels", required=True, help="A store of real label maps.")
@click.option("--groups", default=8, show_default=True, type=click.IntRange(1))
@click.option("--rows", default=1251, show_default=True, help="Of each group.", type=click.IntRange(64))
def main(labels: str, groups: int, rows: int) -> None:
    """Print requests a group."""
    plan = Plan(rows=rows * groups, groups=groups)
    with counting_server() as counts:
        make_bucket()
        print(f"| requests a group, of {groups} groups of {rows:,} rows | {' | '.join(COLUMNS)} | all |")
        print("|---" * (len(COLUMNS) + 2) + "|")
        for what, found, among in count(labels, plan, counts):
            cells = [f"{found[column] / among:.3g}" for column in COLUMNS]
            print(f"| {what} | {' | '.join(cells)} | {found.total() / among:.3g} |", flush=True)


if __name__ == "__main__":
    main()
