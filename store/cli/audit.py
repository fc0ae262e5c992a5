"""The command `relabel-store audit`: go through the store once, fill every output asked for."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, get_args

import click

from store.audit.figures import PRESENT_PROBABILITY, AuditSettings, audit_group
from store.audit.findings import Audit
from store.audit.index import CsvAudit, IndexParts, store_digest
from store.audit.report import audit_page, read_pictures, refuse_without_extra, render_audit
from store.cli.base import examples, refuse_nan
from store.cli.options import OUTPUT
from store.cli.progress import track
from store.errors import DamagedStoreError, StoreReadError
from store.files import check_outputs, write_atomically
from store.maps.types import Fill
from store.reader import LabelStore
from store.view.images import ShardImages
from store.view.terminal import make_console


@click.command(
    epilog=examples(
        "relabel-store audit labels.zarr --csv findings.csv",
        "relabel-store audit labels.zarr --html audit.html --shards 'train-*.tar'",
    )
)
@click.argument("labels", metavar="LABELS")
@click.option(
    "--top",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Rows of each table that is printed.",
)
@click.option(
    "--fill",
    type=click.Choice(get_args(Fill)),
    default="zero",
    show_default=True,
    help="Logit of the classes that a cell did not keep: 0, the tail spread evenly, or the lowest kept score; "
    "best as in training.",
)
@click.option(
    "--threshold",
    metavar="P",
    type=click.FloatRange(0, 1),
    callback=refuse_nan,
    default=PRESENT_PROBABILITY,
    show_default=True,
    help="A class counts as present in an image if it leads with at least this probability in 2 % of the cells.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs: all pairs and all classes.")
@click.option(
    "--csv", "csv_file", type=OUTPUT, metavar="FILE", help="Write a line for every image, except the quarantined."
)
@click.option("--html", "html_file", type=OUTPUT, metavar="FILE", help="Write the tables as a page.")
@click.option("--shards", "patterns", metavar="PATTERN", multiple=True,
              help="The image shards, for pictures in the page of --html: local paths with braces ({0000..1023}) or "
              "globs (*), in quotes. Repeatable.")  # fmt: skip
@click.option(
    "--index",
    "index_file",
    type=OUTPUT,
    metavar="FILE",
    help="Write an index (.npz) for `relabel-store browse --audit`.",
)
def audit(
    labels: str,
    top: int,
    fill: Fill,
    threshold: float,
    as_json: bool,
    csv_file: Path | None,
    html_file: Path | None,
    patterns: tuple[str, ...],
    index_file: Path | None,
) -> None:
    """Find images whose label map contradicts their original label.

    Also images with several classes, pairs of classes that are confused, and quarantined images (those that could not
    be decoded when they were annotated).

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. Every label map is read; nothing in the
    store is changed.

    Exit status: 0 whatever is found; 1 if groups are damaged; 2 wrong usage.
    """
    store = LabelStore.open(labels)
    if patterns and html_file is None:
        raise click.UsageError("--shards needs --html, the page for which images are read")
    photos = ShardImages(patterns) if patterns else None
    check_outputs(
        [file for file in (csv_file, html_file, index_file) if file is not None],
        inputs=[] if photos is None else photos.files,
    )
    audit = Audit(schema=store.schema, settings=AuditSettings(fill=fill, threshold=threshold, top=top))
    with ExitStack() as outputs:
        # Opened before the work begins, so that a folder that is missing costs no time.
        page = None if html_file is None else outputs.enter_context(_page(html_file))
        lines = None if csv_file is None else outputs.enter_context(_lines(csv_file, store))
        index = None if index_file is None else outputs.enter_context(_index(index_file, store, audit))
        _go_through(store, audit, [sink for sink in (lines, index) if sink is not None])
        found = {"store": str(store), **audit.to_json()}
        if page is not None:
            pictures, problems = read_pictures(store, photos, found) if photos is not None else ({}, [])
            page.write(audit_page(found, top, pictures, problems).encode())
    _print(found, top, as_json=as_json)
    if audit.damaged:
        raise DamagedStoreError(
            f"damaged groups, which were not audited: {len(audit.damaged)}; the first: {audit.damaged[0]['problem']}"
        )


def _go_through(store: LabelStore, audit: Audit, sinks: list[CsvAudit | IndexParts]) -> None:
    """Add every group to the audit and the files; a damaged one is named and adds nothing."""
    for name in track(store.names(), "audit"):
        try:
            group = store.group(name)
            audited = audit_group(group, audit.settings)
        except (DamagedStoreError, StoreReadError) as fault:
            audit.add_damaged(name, fault)
            continue
        audit.add(audited, group)
        for sink in sinks:
            sink.add(audited)


def _print(found: dict[str, Any], top: int, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found))
        return
    console = make_console()
    for i, part in enumerate(render_audit(found, top)):
        if i:
            console.print()
        console.print(part)


@contextmanager
def _page(file: Path) -> Iterator[BinaryIO]:
    refuse_without_extra()
    with write_atomically(file.resolve()) as handle:
        yield handle


@contextmanager
def _lines(file: Path, store: LabelStore) -> Iterator[CsvAudit]:
    with write_atomically(file.resolve()) as handle:
        lines = CsvAudit(handle, store.schema)
        yield lines
        lines.close()


@contextmanager
def _index(file: Path, store: LabelStore, audit: Audit) -> Iterator[IndexParts]:
    with write_atomically(file.resolve()) as handle:
        digest, parts = store_digest(store), IndexParts()  # a group that is replaced meanwhile makes it stale
        yield parts
        parts.write(handle, digest=digest, left_out=[bad["group"] for bad in audit.damaged])
