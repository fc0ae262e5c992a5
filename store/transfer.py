"""What is asked of the servers that hold image shards: whether one is there, what it looks like, which there are."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import obstore
from obstore.store import HTTPStore

from store.bucket import REQUESTS, one_line_errors, open_bucket, refuse_fork
from store.errors import ShardError
from store.remote import RemoteStat

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore as Bucket


def stat(url: str) -> RemoteStat:
    """What the server says of an object; errors as in `RemoteShard.stat`."""
    folder, _, name = url.rpartition("/")
    refuse_fork()
    with one_line_errors(url):
        return stat_of(obstore.head(_opened(folder), name))


def find_absent(urls: Sequence[str]) -> set[str]:
    """The URLs where no object is, many asked for at a time; OSError where one gives no answer."""
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="request") as threads:
        return {url for url, there in zip(urls, threads.map(_is_there, urls), strict=True) if not there}


def _is_there(url: str) -> bool:
    try:
        stat(url)
    except FileNotFoundError:
        return False
    return True


def stat_of(info: "ObjectMeta") -> RemoteStat:
    """The same out of an answer's headers."""
    # Whole seconds, as every server gives them; obstore has 1970 where there is no Last-Modified.
    return RemoteStat(info["size"], int(info["last_modified"].timestamp()) * 1_000_000_000, info["e_tag"])


def differ(one: RemoteStat, other: RemoteStat) -> bool:
    """Whether two answers are of different versions of an object, by all that both of them tell."""
    times, etags = (one.st_mtime_ns, other.st_mtime_ns), (one.etag, other.etag)
    return (
        one.st_size != other.st_size
        or (all(times) and times[0] != times[1])
        or (None not in etags and etags[0] != etags[1])
    )


def list_names(folder: str) -> list[str]:
    """Names of the objects directly below a URL, sorted.

    Raises:
        ShardError: a web server, which cannot list.
        OSError: no answer, or a refusal.
    """
    refuse_fork()
    bucket = _opened(folder)
    if isinstance(bucket, HTTPStore):
        raise ShardError(f"{folder}: a web server cannot list its shards; name them, such as train-{{0000..0099}}.tar")
    with one_line_errors(folder):
        paths = [info["path"] for info in obstore.list_with_delimiter(bucket)["objects"]]
    return sorted(path.rpartition("/")[2] for path in paths)


@lru_cache(maxsize=256)
def _opened(folder: str) -> "Bucket":
    """Shared by the shards of a folder, and with it their connections."""
    return open_bucket(folder)
