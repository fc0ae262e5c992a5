"""From a server into a local file: all bytes of one version of an object, or an error.

obstore can resume a body that was cut, but trusts any equal ETag, a weak one too, and counts its retries however much
came between them. They are off here: what is asked again, and on what condition, is decided in this file.
"""

import errno
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import HTTPStore

from store.errors import ShardError
from store.storage.base import RemoteStat
from store.storage.bucket import REQUESTS, one_line_errors, open_bucket, refuse_fork
from store.text import first_line

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore as Bucket


ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 1.0  # seconds after the first of them, then twice as long each time
SILENCE = timedelta(seconds=30)  # after which a server that sends nothing is given up
WHOLE = timedelta(days=1)  # for one body; obstore's own 30 s would cut every large one
SETTLED = 60.0  # seconds until a Last-Modified, which counts whole ones, can stand for one version alone
BUSY = (408, 425, 429)  # the refusals that pass
FAILED_CONDITION, NO_SUCH_RANGE = 412, 416


def download(url: str, file: Path) -> RemoteStat:
    """Write an object into a file; errors as in `RemoteShard.download`."""
    with file.open("wb") as out:
        try:
            found = _Download(url, out).run()
            out.flush()
            if differ(found, stat(url)):  # a web server gives away what is in the file, even while that is rewritten
                raise _replaced(url)
        except BaseException as error:
            with suppress(OSError):
                file.unlink()
            if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk does not say which
                error.filename = os.fspath(file)
            raise
    return found


class _ShortBodyError(Exception):
    """A body that ended early although nobody said so."""


class _Download:
    """One object on its way into a file, by as many requests as it takes."""

    def __init__(self, url: str, out: BinaryIO) -> None:
        self.url, self.out = url, out
        self.found: RemoteStat | None = None  # the version that the first answer was of
        self.ranges = True  # until the server turns out not to know them
        self.furthest = 0  # bytes that some attempt has got to

    def run(self) -> RemoteStat:
        """Ask until every byte is there, with a pause after each failure."""
        barren = 0
        while True:
            before = self.furthest
            try:
                return self._attempt()
            except FileNotFoundError as error:
                raise FileNotFoundError(errno.ENOENT, "there is no such object", self.url) from error
            except (BaseError, _ShortBodyError) as error:
                barren = 1 if self.furthest > before else barren + 1
                if final := self._final(error, barren):
                    raise final from error
            time.sleep(PAUSE * 2 ** (barren - 1))

    def _attempt(self) -> RemoteStat:
        """Write what one more answer brings."""
        answer, start = self._ask()
        self.found = self.found or stat_of(answer.meta)
        self.out.seek(start)
        self.out.truncate()
        for piece in answer.stream(min_chunk_size=1):  # of a larger one, what had come would be lost with the rest
            self.out.write(piece)
            self.furthest = max(self.furthest, self.out.tell())
        if self.out.tell() != self.found.st_size:
            raise _ShortBodyError(f"the body ended after {self.out.tell():,} bytes")
        return self.found

    def _ask(self) -> "tuple[GetResult, int]":
        """An answer with the missing bytes, or else with all of them, and the byte at which it starts."""
        refuse_fork()
        folder, _, name = self.url.rpartition("/")
        bucket, start = _opened(folder), self.out.tell()
        if self.found and self.ranges and start and (condition := _condition(self.found)):
            try:
                answer = obstore.get(bucket, name, options={**condition, "range": (start, self.found.st_size)})
                now = self._check(answer)
                if now.etag if "if_match" in condition else now.st_mtime_ns:
                    return answer, start
            except BaseError as error:
                if "Error performing" in str(error) and status_of(error) != NO_SUCH_RANGE:
                    raise
            self.ranges = False  # what came was all of it, another part, or a part of who knows what
        answer = obstore.get(bucket, name)
        self._check(answer)
        return answer, 0

    def _check(self, answer: "GetResult") -> RemoteStat:
        """What an answer says of the object: servers need not heed a condition."""
        now = stat_of(answer.meta)
        if self.found and differ(self.found, now):
            raise _replaced(self.url)
        return now

    def _final(self, error: Exception, barren: int) -> OSError | None:
        """What to give up with, if it is of no use to ask again."""
        status = status_of(error)
        if self.found and status == FAILED_CONDITION:
            return _replaced(self.url)
        if "Content-Length Header missing" in str(error):
            reason = "the server does not say how long it is, so nobody could tell a part from the whole; copy it"
        elif 400 <= status < 500 and status not in BUSY:
            reason = first_line(error)
        elif barren == ATTEMPTS:
            size = f"{self.found.st_size:,}" if self.found else "unknown"
            reason = (
                f"{self.furthest:,} of {size} bytes came, then nothing in {barren} attempts; try again later "
                f"({first_line(error)})"
            )
        else:
            return None
        return OSError(errno.EIO, reason, self.url)


def _condition(found: RemoteStat) -> "GetOptions | None":
    """What ties a further request to the same bytes; None where the server tells nothing that does."""
    if found.etag and not found.etag.startswith("W/"):  # which stands for the same meaning, not for the same bytes
        return {"if_match": found.etag}
    seconds = found.st_mtime_ns / 1e9
    if seconds and time.time() - seconds > SETTLED:
        return {"if_unmodified_since": datetime.fromtimestamp(seconds, UTC)}
    return None


def status_of(error: Exception) -> int:
    """The server's answer, which obstore has in its text alone; 0 where there was none, or one that obstore refused."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else 0


def _replaced(url: str) -> OSError:
    return OSError(errno.EIO, "was replaced or changed while it was being downloaded; run again", url)


@lru_cache(maxsize=256)
def _opened(folder: str) -> "Bucket":
    return open_bucket(folder, retries={"max_retries": 0}, client={"timeout": WHOLE, "read_timeout": SILENCE})


# What is asked of the servers that hold image shards: whether one is there, what it looks like, which there are.


def stat(url: str) -> RemoteStat:
    """What the server says of an object; errors as in `RemoteShard.stat`."""
    folder, _, name = url.rpartition("/")
    refuse_fork()
    with one_line_errors(url):
        return stat_of(obstore.head(_asking_bucket(folder), name))


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
    bucket = _asking_bucket(folder)
    if isinstance(bucket, HTTPStore):
        raise ShardError(f"{folder}: a web server cannot list its shards; name them, such as train-{{0000..0099}}.tar")
    with one_line_errors(folder):
        paths = [info["path"] for info in obstore.list_with_delimiter(bucket)["objects"]]
    return sorted(path.rpartition("/")[2] for path in paths)


@lru_cache(maxsize=256)
def _asking_bucket(folder: str) -> "Bucket":
    """Shared by the shards of a folder, and with it their connections."""
    return open_bucket(folder)


# A range of bytes of an object behind a URL: all that it holds there, or an error, after a bounded number of attempts.
#
# obstore's own retries are off: a body that it resumes may be of two versions of an object.


RANGE_SILENCE = timedelta(seconds=20)  # after which a server that sends nothing is given up
RANGE_TIMEOUT = timedelta(minutes=5)  # for one range; obstore's own 30 s would cut large ones
LAST = 1 << 62  # no object is longer


class _WrongPartError(Exception):
    """An answer with other bytes than were asked for, or fewer."""


def read_range(url: str, start: int, count: int) -> bytes:
    """`count` bytes from `start` on; fewer or none where the object does not hold so many there.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: a refusal, or attempts that all failed.
    """
    if start < 0 or start >= LAST or count < 1:
        return b""
    attempt = 1
    while True:
        try:
            return _ask(url, start, min(start + count, LAST))
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from error
        except (BaseError, _WrongPartError) as error:
            status = status_of(error)
            if status == NO_SUCH_RANGE:
                return b""
            if (400 <= status < 500 and status not in BUSY) or attempt == ATTEMPTS:
                tries = f" (attempt {attempt} of {ATTEMPTS})" if attempt > 1 else ""
                raise OSError(errno.EIO, first_line(error) + tries, url) from error
        time.sleep(PAUSE * 2 ** (attempt - 1))
        attempt += 1


def _ask(url: str, start: int, stop: int) -> bytes:
    refuse_fork()
    folder, _, name = url.rpartition("/")
    answer = obstore.get(_range_bucket(folder), name, options={"range": (start, stop)})
    expected = start, min(stop, answer.meta["size"])
    if answer.range != expected:
        raise _WrongPartError(
            f"the server gave bytes {answer.range[0]:,} to {answer.range[1]:,} for {start:,} to {stop:,}"
        )
    data = bytes(answer.bytes())
    if len(data) != expected[1] - start:
        raise _WrongPartError(f"{len(data):,} of {expected[1] - start:,} bytes came")
    return data


@lru_cache(maxsize=256)
def _range_bucket(folder: str) -> "Bucket":
    return open_bucket(
        folder, retries={"max_retries": 0}, client={"timeout": RANGE_TIMEOUT, "read_timeout": RANGE_SILENCE}
    )
