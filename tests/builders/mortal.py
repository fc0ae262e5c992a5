"""A writer that dies at a chosen write: from then on nothing it tries has any effect, as after SIGKILL."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from store.storage import commit, local
from store.storage.cloud import CloudBackend
from store.storage.rename import UnsupportedError

WRITES: tuple[tuple[object, str], ...] = (
    (Path, "mkdir"), (os, "rename"), (os, "link"), (commit, "exchange"), (shutil, "rmtree"),
    (local, "write_synced"), (local, "sync_folder"), (local, "remove_if_empty"),
    (CloudBackend, "_put"), (CloudBackend, "_delete"),
)  # fmt: skip


class Killed(BaseException):
    """No `except Exception` may see it."""


@dataclass
class Death:
    """Before or after which write, counted from 0; None means never."""

    at: int | None
    after: bool = False
    writes: int = 0
    dead: bool = False


@contextmanager
def mortal(death: Death) -> Iterator[Death]:
    """Within, writes of stores are counted and the fatal one kills; the error ends here."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WRITES:
            patch.setattr(owner, name, _mortal(getattr(owner, name), death))
        # One after the other, so that the number of a put says which it is.
        patch.setattr(CloudBackend, "map", lambda _, function, items: map(function, items))
        with suppress(Killed):
            yield death


def _mortal(write: Callable[..., Any], death: Death) -> Callable[..., Any]:
    def wrapped(*args: object, **options: object) -> object:
        if death.dead:
            raise Killed
        is_last = death.writes == death.at
        death.writes += 1
        death.dead = is_last and not death.after
        if death.dead:
            raise Killed
        result = write(*args, **options)
        death.dead = is_last
        if death.dead:
            raise Killed
        return result

    return wrapped


def without_exchange(patch: pytest.MonkeyPatch) -> None:
    """A disk that cannot exchange folders, such as one of NFS."""
    patch.setattr(commit, "exchange", unsupported)


def unsupported(path: Path, folder: int, name: str) -> None:
    """A rename that the disk does not know."""
    raise UnsupportedError(errno.EINVAL, "Invalid argument", str(path))
