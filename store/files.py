"""Files that a command writes where its user says: there whole or not at all, and never in place of something else."""

import os
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from store.errors import StoreWriteError

ENDING = (signal.SIGTERM, signal.SIGHUP)


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Refuse files that would overwrite one another, a label store, or what is read; before any work is done.

    Args:
        outputs: files that may be there already.
        inputs: files that are read.

    Raises:
        StoreWriteError: names the file and says why.
    """
    taken = {path.resolve() for path in inputs}
    for file in outputs:
        target = file.resolve()
        if target in taken:
            raise StoreWriteError(f"{file}: is an image shard or another output too; give each file a place of its own")
        taken.add(target)
        if file.exists() and not file.is_file():
            raise StoreWriteError(f"{file}: is not a regular file; name one")
        if not target.parent.is_dir():
            raise StoreWriteError(f"{file}: there is no folder {target.parent}; make it first")
        if any((folder / "zarr.json").exists() for folder in target.parents):
            raise StoreWriteError(f"{file}: lies in a label store; choose a place outside of it")


@contextmanager
def written_aside(file: Path) -> Iterator[BinaryIO]:
    """A file to write beside the named one, which it replaces at the end unless there was an error or a signal.

    Raises:
        StoreWriteError: the disk refused; the old file is as it was.
    """
    target = file.resolve()  # a link stays one
    aside = target.with_name(f".{target.name[:100]}.{os.getpid()}.partial")
    try:
        with _ending_on_signals(), aside.open("xb") as handle:
            yield handle
            if target.exists():
                aside.chmod(stat.S_IMODE(target.stat().st_mode))
        aside.replace(target)
    except OSError as error:
        if isinstance(error, StoreWriteError) or (error.filename is not None and Path(error.filename) != aside):
            raise
        raise StoreWriteError(f"{file}: cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """A signal ends the process by way of its `finally` blocks."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
