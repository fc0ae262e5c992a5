"""The command `relabel-store audit`: reads the store once and fills every output that is asked for."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from store.audit.figures import PRESENT_PROBABILITY, AuditSettings, audit_group
from store.audit.findings import Audit
from store.audit.index import CsvAudit, IndexParts, store_digest
from store.audit.maps import read_maps
from store.audit.page import audit_page, refuse_without_extra
from store.audit.report import render_audit
from store.cli.base import examples, refuse_nan
from store.cli.options import (
    json_option,
    labels_argument,
    output_option,
    print_result,
    say_written,
    shards_option,
    temperature_option,
)
from store.cli.progress import track
from store.errors import DamagedStoreError, StoreReadError
from store.files import check_outputs, open_output
from store.maintenance import changed_shards
from store.reader import LabelStore
from store.text import printable
from store.view.images import ShardImages


@click.command(
    epilog=examples(
        "relabel-store audit labels.zarr --csv findings.csv",
        "relabel-store audit labels.zarr --html audit.html --shards 'train-*.tar'",
    )
)
@labels_argument
@click.option(
    "--top",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Rows of each table that is printed.",
)
@temperature_option
@click.option(
    "--threshold",
    metavar="P",
    type=click.FloatRange(0, 1),
    callback=refuse_nan,
    default=PRESENT_PROBABILITY,
    show_default=True,
    help="A class counts as present in an image if it is top-1 with at least this probability in 2 % of the cells.",
)
@json_option
@output_option("--csv", "csv_file", "Write a line for every image that could be decoded.")
@output_option("--html", "html_file", "Write the tables as a page.")
@shards_option("The image shards, to compare their labels with the store's, and for pictures in the page of --html")
@output_option("--index", "index_file", "Write an index (.npz) for `relabel-store browse --audit`.")
def audit(
    labels: str,
    top: int,
    temperature: float,
    threshold: float,
    as_json: bool,
    csv_file: Path | None,
    html_file: Path | None,
    patterns: tuple[str, ...],
    index_file: Path | None,
) -> None:
    """Find images whose label map contradicts their label.

    Also images with several classes, pairs of classes that are confused, undecodable images, and statistics of the
    training targets: classes seen and never seen, entropy, labels that are top-1 in no cell.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. Every label map is read; nothing in the
    store is changed.

    Exit status: 0 the audit is complete, with or without findings; 1 groups are damaged; 2 wrong usage.
    """
    store = LabelStore.open(labels)
    images = ShardImages(patterns) if patterns else None
    outputs = [file for file in (csv_file, html_file, index_file) if file is not None]
    check_outputs(outputs, inputs=[] if images is None else images.files)
    for line in changed_shards(store, [] if images is None else track(images.files, "image shards")):
        click.echo(printable(f"note: the audit has the labels of the store: {line}"), err=True)
    audit = Audit(schema=store.schema, settings=AuditSettings(temperature=temperature, threshold=threshold, top=top))
    found = _write_files(store, audit, images, csv_file=csv_file, html_file=html_file, index_file=index_file)
    print_result(as_json, found, render_audit(found, top))
    say_written(outputs)
    if audit.damaged:
        raise DamagedStoreError(
            f"damaged groups, which were not audited: {len(audit.damaged)}; the first: {audit.damaged[0]['problem']}"
        )


def _write_files(
    store: LabelStore,
    audit: Audit,
    images: ShardImages | None,
    *,
    csv_file: Path | None,
    html_file: Path | None,
    index_file: Path | None,
) -> dict[str, Any]:
    """Audit every group and write the files that are asked for; gives the audit as plain values."""
    with ExitStack() as outputs:
        # Opened before the work begins, so that a missing folder costs no time.
        page = None if html_file is None else outputs.enter_context(_page(html_file))
        csv = None if csv_file is None else outputs.enter_context(_csv(csv_file, store))
        index = None if index_file is None else outputs.enter_context(_index(index_file, store, audit))
        _audit_groups(store, audit, [output for output in (csv, index) if output is not None])
        found = {"store": str(store), **audit.to_json()}
        if page is not None:
            maps, problems = read_maps(store, images, found, audit.settings)
            page.write(audit_page(found, audit.settings.top, maps, problems).encode())
    return found


def _audit_groups(store: LabelStore, audit: Audit, outputs: list[CsvAudit | IndexParts]) -> None:
    """Add every group to the audit and the outputs; damaged ones are listed and left out."""
    for name in track(store.names(), "audit"):
        try:
            group = store.group(name)
            audited = audit_group(group, audit.settings)
        except (DamagedStoreError, StoreReadError) as fault:
            audit.add_damaged(name, fault)
            continue
        audit.add(audited, group)
        for output in outputs:
            output.add(audited)


@contextmanager
def _page(file: Path) -> Iterator[BinaryIO]:
    refuse_without_extra()
    with open_output(file) as handle:
        yield handle


@contextmanager
def _csv(file: Path, store: LabelStore) -> Iterator[CsvAudit]:
    with open_output(file) as handle:
        lines = CsvAudit(handle, store.schema)
        yield lines
        lines.close()


@contextmanager
def _index(file: Path, store: LabelStore, audit: Audit) -> Iterator[IndexParts]:
    with open_output(file) as handle:
        # Taken first: a group that is replaced during the audit makes the index stale.
        digest, parts = store_digest(store), IndexParts()
        yield parts
        left_out = [bad["group"] for bad in audit.damaged]
        parts.write(handle, digest=digest, left_out=left_out, threshold=audit.settings.threshold)
