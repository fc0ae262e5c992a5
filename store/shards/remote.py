"""An image shard that lies in a bucket (`s3://`, `gs://`, `az://`) or on a web server, as one can be named and fetched.

Usable like a `Path` where only `name`, `str` and `stat` are needed. obstore, an extra, is loaded at the first use.
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
    """An image shard behind a URL.

    Raises:
        ShardError: not a URL of an object store or web server, one with credentials or a query, or no obstore.
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
        """The last part of the path, such as `train-0000.tar`; empty where there is no path."""
        path = self.url.partition("://")[2].partition("/")[2]
        return path.rpartition("/")[2]

    def stat(self) -> RemoteStat:
        """What the server says of the shard now.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: no answer, or a refusal.
        """
        with needing_obstore():
            from store.storage.fetch import stat
        return stat(self.url)

    def download(self, file: Path) -> RemoteStat:
        """Write the shard into a local file, replacing what is there, and say what was downloaded.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: no whole and unchanged body could be had, or the disk refused it; the file is removed.
        """
        with needing_obstore():
            from store.storage.fetch import download
        return download(self.url, file)

    def read_range(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on; fewer or none where the shard does not hold so many there.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: a refusal, or attempts that all failed.
        """
        with needing_obstore():
            from store.storage.fetch import read_range
        return read_range(self.url, start, count)


Shard = Path | RemoteShard


@contextmanager
def needing_obstore() -> Iterator[None]:
    """Turn the import of a file that needs obstore into a ShardError where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ShardError(not_installed(error.name, "cloud", use="shards behind URLs need it")) from error
