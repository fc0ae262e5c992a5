"""Output of commands that outlive their terminal: a job that ignores SIGHUP goes on when its window is closed."""

import errno
import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Terminal(io.FileIO):
    """A terminal; what is written once it has gone is lost, as it is on any closed window."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write bytes and return their number."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(data).nbytes


def outlive_terminal() -> None:
    """Let no output to a terminal raise an error once the terminal has gone, for the rest of this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.flush()
            raw = _Terminal(stream.fileno(), "w", closefd=False)
            lines = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=True)
            setattr(sys, name, lines)
