"""Name, inspect and fetch image shards in a bucket (`s3://`, `gs://`, `az://`) or on a web server.

A RemoteShard can be used like a `Path` for `name`, `str` and `stat`. obstore, an extra, is imported on first use.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.errors import ShardError, not_installed
from store.storage.base import RemoteStat

EXAMPLE = "s3://bucket/train-0000.tar"


@dataclass(frozen=True, slots=True)
class RemoteShard:
    """An image shard with a URL.

    Raises:
        ShardError: not the URL of an object store or web server, a URL with credentials or a query, or no obstore.
    """

    url: str

    def __post_init__(self) -> None:
        with needing_obstore():
            from store.storage.bucket import check_url
        check_url(self.url, ShardError, EXAMPLE)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the path, such as `train-0000.tar`; empty if there is no path."""
        path = self.url.partition("://")[2].partition("/")[2]
        return path.rpartition("/")[2]

    def stat(self) -> RemoteStat:
        """Size, modification time and ETag of the shard now.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the server does not answer, or refuses.
        """
        with needing_obstore():
            from store.storage.fetch import stat
        return stat(self.url)

    def download(self, file: Path) -> RemoteStat:
        """Write the shard to a local file, replacing it, and return what was downloaded.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the shard could not be downloaded completely and unchanged, or the disk refused; the file is
                removed.
        """
        with needing_obstore():
            from store.storage.fetch import download
        return download(self.url, file)

    def read_range(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on; fewer or none where the shard is shorter.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the server refuses, or all attempts failed.
        """
        with needing_obstore():
            from store.storage.fetch import read_range
        return read_range(self.url, start, count)


Shard = Path | RemoteShard


@contextmanager
def needing_obstore() -> Iterator[None]:
    """Turn the failed import of a file that needs obstore into a ShardError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ShardError(not_installed(error.name, "cloud", use="shards behind URLs need it")) from error
