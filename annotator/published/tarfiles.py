"""The files of a tar with their places, in constant memory."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from store.errors import ShardError

BLOCK = 512


def tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size in bytes of every file in an uncompressed tar, in constant memory.

    Raises:
        ShardError: not a tar, compressed, damaged, truncated, or with links.
    """
    end = 0
    try:
        whole = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header, about 1 KB each
                if not end <= member.offset_data <= member.offset_data + member.size <= whole:
                    raise ShardError(f"{path}: damaged tar header near byte {end}")
                if not (member.isdir() or member.isreg()) or member.issparse():
                    raise ShardError(f"{path}: member {member.name!r} is not a regular file")
                end = member.offset_data
                if member.isreg():
                    end += -(-member.size // BLOCK) * BLOCK
                    yield member.name, member.offset_data, member.size
        _check_end(path, end)
    except ShardError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # what hostile headers raise
        raise ShardError(f"{path}: not an uncompressed tar, or damaged near byte {end}: {error}") from error
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_end(path: Path, end: int) -> None:
    """Nothing but zeros, and two blocks of them: tarfile itself takes any damage for the end."""
    with path.open("rb") as file:
        left = file.seek(0, os.SEEK_END) - end
        file.seek(end)
        whole = left >= 2 * BLOCK
        while whole and (block := file.read(1 << 20)):
            whole = not any(block)
    if not whole:
        raise ShardError(f"{path}: damaged or truncated near byte {end}: no end-of-archive blocks there")
