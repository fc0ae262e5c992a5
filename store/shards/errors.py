"""Errors of a disk or a server, while a shard is read, as errors of the shard."""

from collections.abc import Iterator
from contextlib import contextmanager

from store.errors import RelabelError, ShardError
from store.shards.remote import Shard
from store.system.limits import OF_PROCESS


@contextmanager
def shard_errors(shard: Shard | None = None, detail: str = "") -> Iterator[None]:
    """Turn an OSError of a disk or a server into a ShardError that names the shard.

    A lack of memory or open files passes as it is: the shard is sound.

    Args:
        shard: what is read; None for the file that the error names.
        detail: ends the message; by default the file that the error names, such as one in a full TMPDIR.

    Raises:
        ShardError: instead of an OSError.
    """
    try:
        yield
    except RelabelError:
        raise
    except OSError as error:
        if error.errno in OF_PROCESS:
            raise
        name = str(shard or error.filename)
        other = "" if error.filename in (None, name) else str(error.filename)
        where = f" ({detail or other})" if detail or other else ""
        raise ShardError(f"{name}: cannot be read: {error.strerror or error}{where}") from error
