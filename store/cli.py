"""The command `relabel-store`: open, describe, print."""

import json
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import RenderableType

from store.command import Commands
from store.reader import LabelStore
from store.view.describe import Description, describe_group, describe_row, describe_store
from store.view.render import make_console, render_group, render_row, render_store


@click.group(cls=Commands)
def main() -> None:
    """Inspect a label store, as `relabel-annotate` writes it."""


@main.command()
@click.argument("labels", type=click.Path(path_type=Path))
@click.argument("what", required=False, metavar="[GROUP|KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def show(labels: Path, what: str | None, as_json: bool) -> None:
    """Show a store, one of its groups, or the label map of one image.

    LABELS is the store. GROUP is the name of an image shard without .tar; KEY is a sample's key, the name of its
    files up to the first dot.
    """
    store = LabelStore.open(labels)
    description: Description
    render: Callable[[Description], RenderableType]
    if what is None:
        description, render = describe_store(store), render_store
    elif what in store:
        description, render = describe_group(store.group(what)), render_group
    else:
        description, render = describe_row(store.schema, *store.find(what)), render_row
    if as_json:
        click.echo(json.dumps(description))
    else:
        make_console().print(render(description))


if __name__ == "__main__":
    main()
