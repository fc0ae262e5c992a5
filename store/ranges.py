"""A range of bytes of an object behind a URL: all that it holds there, or an error, after a bounded number of attempts.

obstore's own retries are off, as in `store.download`: a body that it resumes may be of two versions of an object.
"""

import errno
import time
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from store.bucket import open_bucket, refuse_fork
from store.download import ATTEMPTS, BUSY, NO_SUCH_RANGE, PAUSE, status_of
from store.text import first_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

SILENCE = timedelta(seconds=20)  # after which a server that sends nothing is given up
WHOLE = timedelta(minutes=5)  # for one range; obstore's own 30 s would cut large ones
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
    answer = obstore.get(_opened(folder), name, options={"range": (start, stop)})
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
def _opened(folder: str) -> "Bucket":
    return open_bucket(folder, retries={"max_retries": 0}, client={"timeout": WHOLE, "read_timeout": SILENCE})
