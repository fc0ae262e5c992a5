"""Errors of a disk or a server, while a shard is read, as errors of the shard."""

from collections.abc import Iterator
from contextlib import contextmanager

from store.errors import RelabelError, ShardError
from store.shards.remote import Shard


@contextmanager
def shard_errors(shard: Shard | None = None, detail: str = "") -> Iterator[None]:
    """Turn an OSError of a disk or a server into a ShardError that names the shard.

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
        name = str(shard or error.filename)
        other = "" if error.filename in (None, name) else str(error.filename)
        where = f" ({detail or other})" if detail or other else ""
        raise ShardError(f"{name}: cannot be read: {error.strerror or error}{where}") from error
