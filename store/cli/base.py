"""Base classes of all commands of the project: a typed error becomes one line on standard error, exit status 1."""

import errno
import io
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from store.cli.terminal import outlive_terminal
from store.errors import RelabelError, not_installed
from store.system.limits import exhausted
from store.system.signals import ended_by_signals
from store.text import printable

EXTRAS = {  # the smallest extra that installs a module
    "obstore": "cloud",
    "ray": "ray",
    "jinja2": "web",
    "markupsafe": "web",
    "starlette": "web",
    "uvicorn": "web",
    "matplotlib": "view",
    "PIL": "view",
    "simplejpeg": "view",
}

LESS = "use fewer workers or a smaller batch"  # where memory or open files are lacking

CONTEXT = {"help_option_names": ["-h", "--help"]}  # of every group


def examples(*commands: str) -> str:
    """An epilog of commands to copy; click does not wrap a paragraph that starts with a backspace."""
    lines = "\n".join(f"  {line}" for command in commands for line in command.splitlines())
    return f"\b\nExample{'s' if len(commands) > 1 else ''}:\n{lines}"


class Command(click.Command):
    """A command that never shows a traceback for a user's mistake."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it and translate its errors."""
        with _one_line_errors():
            return super().invoke(ctx)


class Commands(click.Group):
    """A group of subcommands that never shows a traceback for a user's mistake."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The subcommands in the order in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand and translate its errors."""
        with _one_line_errors():
            return super().invoke(ctx)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    if sys.stdout is None:
        raise OneLineError("standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters outside its encoding are escaped, no error
            stream.reconfigure(errors="backslashreplace")
    outlive_terminal()
    try:
        with ended_by_signals():
            yield
    except RelabelError as error:
        raise OneLineError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if lacking := exhausted(error):
            raise OneLineError(lacking + LESS) from error
        raise
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "annotate,train,view")
        raise OneLineError(not_installed(error.name, extra)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe has ended; click exits quietly
            raise
        if lacking := exhausted(error):
            raise OneLineError(lacking + LESS) from error
        where = f"{error.filename}: " if error.filename else ""
        raise OneLineError(f"{where}{error.strerror or error}") from error


class OneLineError(click.ClickException):
    """An error as one printable line; click gives it exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to standard error."""
        click.echo(f"error: {printable(self.message)}", file=file or sys.stderr)


def refuse_nan(_: object, __: object, value: float | None) -> float | None:
    """Callback of a float option: refuses NaN, which click accepts in any range."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("expected a number")
    return value
