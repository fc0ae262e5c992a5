"""From a server into a local file: all bytes of one version of an object, or an error.

obstore can resume a body that was cut, but trusts any equal ETag, a weak one too, and counts its retries however much
came between them. They are off here: what is asked again, and on what condition, is decided in this file.
"""

import errno
import os
import re
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError

from store.bucket import open_bucket, refuse_fork
from store.remote import RemoteStat
from store.text import first_line
from store.transfer import differ, stat, stat_of

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
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
