"""Arguments and options that several commands of `relabel-store` share, and their output: JSON or tables."""

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import RenderableType

from store.cli.base import refuse_nan
from store.text import printable
from store.view.describe import Description
from store.view.terminal import make_console

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class LocalPath(click.Path):
    """A file or folder, given to the command as a `Path`; a leading `~` is the home folder.

    A shell replaces `~` only where a word begins, and not in `--out=~/run`.

    Args:
        checks: as of `click.Path`.
    """

    def __init__(self, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """The path; an empty name, which would be the current folder, is refused."""
        if not str(value):
            self.fail("expected a path", param, ctx)
        return super().convert(_expand_home(value, self, param, ctx), param, ctx)


class Location(click.ParamType[str]):
    """A path, a pattern of paths or a URL, given to the command as text; a leading `~` is the home folder."""

    name = "location"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text with the home folder in place of `~`."""
        return _expand_home(value, self, param, ctx)


def _expand_home(
    value: str | Path, kind: click.ParamType[Any], param: click.Parameter | None, ctx: click.Context | None
) -> str:
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        kind.fail(f"{str(value)!r}: there is no such user; write ./{value} for that name", param, ctx)
    return expanded


labels_argument = click.argument("labels", metavar="LABELS", type=Location())
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def shards_option(purpose: str, *, required: bool = False) -> Callable[[Decorated], Decorated]:
    """`--shards PATTERN`, repeatable; the command's argument is `patterns`.

    Args:
        purpose: begins the help text.
        required: whether the command needs it.
    """
    return click.option(
        "--shards",
        "patterns",
        metavar="PATTERN",
        type=Location(),
        multiple=True,
        required=required,
        help=f"{purpose}: local paths with braces ({{0000..1023}}) or globs (*, **), in quotes. Repeatable.",
    )


temperature_option = click.option(
    "--temperature",
    metavar="T",
    type=click.FloatRange(0, min_open=True),
    callback=refuse_nan,
    default=1.0,
    show_default=True,
    help="Divide pooled logits by T before softmax; best as in training.",
)


def output_option(flag: str, name: str, help_text: str) -> Callable[[Decorated], Decorated]:
    """An option that names a file to write."""
    return click.option(flag, name, type=LocalPath(dir_okay=False), metavar="FILE", help=help_text)


class Numbers(click.ParamType[tuple[Any, ...]]):
    """Numbers with commas between them, such as `0.1,0.2,0.5,1`."""

    name = "numbers"

    def __init__(self, number: type[int] | type[float], names: str) -> None:
        self.number, self.names = number, names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:  # noqa: ANN401
        """The numbers as a tuple."""
        pattern = r"\d{1,9}" if self.number is int else r"\d{0,9}\.?\d{0,20}"
        parts = [part.strip() for part in value.split(",")]
        if len(parts) != self.names.count(",") + 1 or not all(re.fullmatch(pattern, part) for part in parts):
            self.fail(f"{value!r}: expected {self.names}", param, ctx)
        try:
            return tuple(self.number(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r}: expected {self.names}", param, ctx)


def say_written(files: Iterable[Path]) -> None:
    """Name the files that a command has written, on standard error."""
    for file in files:
        click.echo(f"wrote {printable(str(file))}", err=True)


def print_result(as_json: bool, result: Description | Sequence[Description], parts: Iterable[RenderableType]) -> None:
    """Print a command's result as JSON, or its parts as tables with an empty line between them."""
    if as_json:
        click.echo(json.dumps(result))
        return
    console = make_console()
    for i, part in enumerate(parts):
        if i:
            console.print()
        console.print(part)
