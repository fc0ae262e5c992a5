"""The command `relabel-store browse`: starts the server of a store's pages."""

from pathlib import Path

import click

from store.cli.base import examples
from store.cli.options import LocalPath, labels_argument, shards_option


@click.command(epilog=examples("relabel-store browse labels.zarr --shards 'train-{0000..1023}.tar'"))
@labels_argument
@shards_option("The image shards", required=True)
@click.option(
    "--audit",
    "index",
    type=LocalPath(),
    metavar="FILE",
    help="The file that `relabel-store audit --index` wrote, to sort the images by its figures.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8000,
    show_default=True,
    metavar="PORT",
    help="Port on 127.0.0.1 to serve the pages at; 0 takes a free one.",
)
def browse(labels: str, patterns: tuple[str, ...], index: Path | None, port: int) -> None:
    """Browse images and label maps in a web browser on this machine.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. The address is printed; Ctrl-C ends the
    server.
    """
    from store.browse.server import serve

    serve(labels, patterns, index, port, lambda address: click.echo(f"{address} (Ctrl-C ends it)"))
