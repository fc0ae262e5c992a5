"""The command `relabel-store browse`."""

from pathlib import Path

import click

from store.view.commands import labels_argument


@click.command()
@labels_argument
@click.option("--shards", "patterns", metavar="PATTERN", multiple=True, required=True,
              help="The image shards: local paths, braces and globs. Repeatable.")  # fmt: skip
@click.option("--audit", "index", type=click.Path(path_type=Path), metavar="FILE",
              help="What `relabel-store audit --index` wrote, to sort by.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True,
              help="Where to listen on 127.0.0.1; 0 for any free one.")  # fmt: skip
def browse(labels: str, patterns: tuple[str, ...], index: Path | None, port: int) -> None:
    """Browse images and label maps in a web browser on this machine."""
    from store.browse.serve import serve  # the base installation has no server

    serve(labels, patterns, index, port)
