"""Reading of objects behind URLs: download into a file, byte ranges, existence and listing.

A download or a range is all bytes of one version of an object, or an error in bounded time. obstore's own retries
cannot promise that and are off for both: they continue a body after a weak ETag and ignore a changed Last-Modified
(test_fetch: test_object_without_proof_of_its_version..., test_object_replaced_between_two_requests...), give up after
a number of interruptions although each attempt brought bytes (test_body_cut_more_often_than_attempts...), and never
start again where a server sends no ETag or knows no ranges (test_server_without_ranges...).
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import HTTPStore

from store.errors import ShardError
from store.foreign import NO_LENGTH, NO_SERVER_ANSWER, http_status, says
from store.storage.base import RemoteStat
from store.storage.bucket import REQUESTS, one_line_errors, open_bucket, refuse_fork
from store.text import first_line

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore as Bucket

ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 1.0  # seconds after the first of them, then twice as long each time
SILENCE = timedelta(seconds=30)  # after which a request is given up
PATIENCE = 60.0  # seconds of waiting after which a body is given up that came at less than this rate
LEAST_RATE = 1024  # bytes a second
BODY_TIMEOUT = timedelta(days=1)  # for one body; obstore's own 30 s would cut large ones
RANGE_TIMEOUT = timedelta(minutes=5)  # for one range
SETTLED = 60.0  # seconds after which a Last-Modified, counted in whole seconds, identifies a version
BUSY = (408, 425, 429)  # refusals that pass
NO_SUCH_RANGE = 416
LAST = 1 << 62  # no object is longer


def download(url: str, file: Path) -> RemoteStat:
    """Write an object into a file, replacing it; on an error the file is removed.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: no complete and unchanged body came, or the disk refused it.
    """
    with file.open("wb") as out:
        try:
            found = _Download(url, out).run()
            out.flush()
            if differ(found, stat(url)):  # a web server sends what is in a file even while that is rewritten
                raise _replaced(url)
        except BaseException as error:
            with suppress(OSError):
                file.unlink()
            if isinstance(error, OSError) and error.errno and error.filename is None:  # the error of a full disk
                error.filename = os.fspath(file)
            raise
    return found


class _IncompleteError(Exception):
    """An answer with fewer bytes than announced, or other bytes than were asked for."""


class _TooSlowError(_IncompleteError):
    """A body that comes so slowly that it would take days."""


class _Download:
    """The download of one object by as many requests as it takes."""

    def __init__(self, url: str, out: BinaryIO) -> None:
        self.url, self.out = url, out
        self.found: RemoteStat | None = None  # the version of the first answer
        self.ranges = True  # whether the server may know byte ranges
        self.furthest = 0  # bytes reached by any attempt

    def run(self) -> RemoteStat:
        """Ask until every byte is there, with a pause after each failure."""
        failures = 0
        while True:
            before = self.furthest
            try:
                return self._attempt()
            except FileNotFoundError as error:
                raise FileNotFoundError(errno.ENOENT, "there is no such object", self.url) from error
            except (BaseError, _IncompleteError) as error:
                progress = self.furthest > before and not isinstance(error, _TooSlowError)
                failures = 1 if progress else failures + 1
                if final := self._final(error, failures):
                    raise final from error
            time.sleep(PAUSE * 2 ** (failures - 1))

    def _attempt(self) -> RemoteStat:
        """Write the body of one more answer."""
        answer, start = self._ask()
        self.found = self.found or stat_of(answer.meta)
        self.out.seek(start)
        self.out.truncate()
        for piece in _pieces(answer):
            self.out.write(piece)
            self.furthest = max(self.furthest, self.out.tell())
        if self.out.tell() != self.found.st_size:
            raise _IncompleteError(f"the body ended after {self.out.tell():,} bytes")
        return self.found

    def _ask(self) -> "tuple[GetResult, int]":
        """An answer with the missing bytes, or else with all of them, and the byte at which it starts."""
        refuse_fork()
        folder, _, name = self.url.rpartition("/")
        bucket, start = _bucket(folder, BODY_TIMEOUT), self.out.tell()
        if self.found and self.ranges and start and (condition := _condition(self.found)):
            try:
                answer = obstore.get(bucket, name, options={**condition, "range": (start, self.found.st_size)})
                now = self._check(answer)
                if now.etag if "if_match" in condition else now.st_mtime_ns:
                    return answer, start
            except BaseError as error:
                if says(error, NO_SERVER_ANSWER) and http_status(error) != NO_SUCH_RANGE:
                    raise
            self.ranges = False  # the answer was the whole object, another range, or without a version
        answer = obstore.get(bucket, name)
        self._check(answer)
        return answer, 0

    def _check(self, answer: "GetResult") -> RemoteStat:
        """The version in an answer, which must be that of the first: servers may ignore conditions."""
        now = stat_of(answer.meta)
        if self.found and differ(self.found, now):
            raise _replaced(self.url)
        return now

    def _final(self, error: Exception, failures: int) -> OSError | None:
        """The error to end with; None where another attempt may help."""
        if self.found and isinstance(error, PreconditionError):
            return _replaced(self.url)
        if says(error, NO_LENGTH):
            reason = "the server does not announce its length, so a part could be taken for the whole; copy it first"
        elif _is_refusal(error):
            reason = first_line(error)
        elif failures == ATTEMPTS:
            size = f"{self.found.st_size:,}" if self.found else "unknown"
            then = f"fewer than {LEAST_RATE:,} a second" if isinstance(error, _TooSlowError) else "nothing"
            reason = (
                f"{self.furthest:,} of {size} bytes came, then {then} in {failures} attempts; try again later "
                f"({first_line(error)})"
            )
        else:
            return None
        return OSError(errno.EIO, reason, self.url)


def _pieces(answer: "GetResult") -> Iterator[memoryview]:
    """A body as it comes, so that an interruption loses at most one piece; waiting for the server is measured."""
    pieces = iter(answer.stream(min_chunk_size=1))
    waited, count = 0.0, 0
    while True:
        start = time.monotonic()
        piece = next(pieces, None)
        waited += time.monotonic() - start
        if piece is None:
            return
        yield memoryview(piece)
        count += len(piece)
        if waited > PATIENCE:
            if count < LEAST_RATE * waited:
                raise _TooSlowError(f"{count:,} bytes in {waited:.0f} s")
            waited, count = 0.0, 0


def _condition(found: RemoteStat) -> "GetOptions | None":
    """The condition for a further request to get the same version; None where the server sends no proof of one."""
    if found.etag and not found.etag.startswith("W/"):  # a weak ETag is not of the same bytes
        return {"if_match": found.etag}
    seconds = found.st_mtime_ns / 1e9
    if seconds and time.time() - seconds > SETTLED:
        return {"if_unmodified_since": datetime.fromtimestamp(seconds, UTC)}
    return None


def _replaced(url: str) -> OSError:
    return OSError(errno.EIO, "was replaced or changed while it was being downloaded; run again", url)


def stat(url: str) -> RemoteStat:
    """Size, time and ETag of an object.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: no answer, or a refusal.
    """
    folder, _, name = url.rpartition("/")
    refuse_fork()
    with one_line_errors(url):
        return stat_of(obstore.head(_bucket(folder), name))


def find_absent(urls: Sequence[str]) -> set[str]:
    """The URLs without an object, asked for at the same time; OSError where there is no answer."""
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="request") as threads:
        return {url for url, there in zip(urls, threads.map(_is_there, urls), strict=True) if not there}


def _is_there(url: str) -> bool:
    try:
        stat(url)
    except FileNotFoundError:
        return False
    return True


def stat_of(info: "ObjectMeta") -> RemoteStat:
    """Size, time and ETag in an answer's headers."""
    # Last-Modified is in whole seconds; obstore has 1970 where there is none.
    return RemoteStat(info["size"], int(info["last_modified"].timestamp()) * 1_000_000_000, info["e_tag"])


def differ(one: RemoteStat, other: RemoteStat) -> bool:
    """Whether two answers are of different versions of an object, by the headers that both of them have."""
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
    bucket = _bucket(folder)
    if isinstance(bucket, HTTPStore):
        raise ShardError(f"{folder}: a web server cannot list its shards; name them, such as train-{{0000..0099}}.tar")
    with one_line_errors(folder):
        paths = [info["path"] for info in obstore.list_with_delimiter(bucket)["objects"]]
    return sorted(path.rpartition("/")[2] for path in paths)


def read_range(url: str, start: int, count: int) -> bytes:
    """`count` bytes from `start` on; fewer or none where the object ends before.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: a refusal, or attempts that all failed.
    """
    if start < 0 or start >= LAST or count < 1:
        return b""
    attempt = 1
    while True:
        try:
            return _get_range(url, start, min(start + count, LAST))
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from error
        except (BaseError, _IncompleteError) as error:
            if http_status(error) == NO_SUCH_RANGE:
                return b""
            if _is_refusal(error) or attempt == ATTEMPTS:
                tries = f" (attempt {attempt} of {ATTEMPTS})" if attempt > 1 else ""
                raise OSError(errno.EIO, first_line(error) + tries, url) from error
        time.sleep(PAUSE * 2 ** (attempt - 1))
        attempt += 1


def _get_range(url: str, start: int, stop: int) -> bytes:
    refuse_fork()
    folder, _, name = url.rpartition("/")
    answer = obstore.get(_bucket(folder, RANGE_TIMEOUT), name, options={"range": (start, stop)})
    expected = start, min(stop, answer.meta["size"])
    if answer.range != expected:
        raise _IncompleteError(
            f"the server gave bytes {answer.range[0]:,} to {answer.range[1]:,} for {start:,} to {stop:,}"
        )
    data = bytes(answer.bytes())
    if len(data) != expected[1] - start:
        raise _IncompleteError(f"{len(data):,} of {expected[1] - start:,} bytes came")
    return data


def _is_refusal(error: Exception) -> bool:
    """Whether the server's answer would be the same the next time."""
    status = http_status(error)
    return 400 <= status < 500 and status not in BUSY


@lru_cache(maxsize=256)
def _bucket(folder: str, timeout: timedelta | None = None) -> "Bucket":
    """A URL's objects, opened once for all shards of a folder and with them their connections.

    Args:
        folder: the URL.
        timeout: of one request, without obstore's retries; None for its own limits and retries.
    """
    if timeout is None:
        return open_bucket(folder)
    return open_bucket(folder, retries={"max_retries": 0}, client={"timeout": timeout, "read_timeout": SILENCE})
