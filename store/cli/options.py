"""Module."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from store.view.describe import Description
from store.view.terminal import make_console

labels_argument = click.argument("labels", metavar="LABELS")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class OutputFile(click.Path):
    """The path of a file to write."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """A Path."""
        if not value:
            self.fail("expected the name of a file", param, ctx)
        return super().convert(value, param, ctx)


OUTPUT = OutputFile(path_type=Path, dir_okay=False)


class Numbers(click.ParamType[tuple[Any, ...]]):
    """Numbers with commas between them, such as `0.1,0.2,0.5,1`."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], names: str) -> None:
        self.kind, self.names = kind, names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:  # noqa: ANN401
        """A tuple of them."""
        pattern = r"\d{1,9}" if self.kind is int else r"\d{0,9}\.?\d{0,20}"
        parts = [part.strip() for part in value.split(",")]
        if len(parts) != self.names.count(",") + 1 or not all(re.fullmatch(pattern, part) for part in parts):
            self.fail(f"{value!r}: expected {self.names}", param, ctx)
        try:
            return tuple(self.kind(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r}: expected {self.names}", param, ctx)


def print_description(as_json: bool, description: Description | Sequence[Description], *parts: RenderableType) -> None:
    """Print a description as JSON, or drawn part by part."""
    if as_json:
        click.echo(json.dumps(description))
        return
    console = make_console()
    for i, part in enumerate(parts):
        if i:
            console.print()
        console.print(part)
