"""What stores and image shards behind URLs share: opening them with obstore, and its errors in one line."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore import parse_scheme
from obstore.exceptions import BaseError
from obstore.store import from_url

from store.errors import RelabelError, StoreReadError
from store.text import first_line

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Bucket

REQUESTS = 16  # at the same time
RETRIES: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
METADATA = "http://169.254.169.254/"  # where clouds give their own machines credentials; asked last
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def check_url(url: str, error: type[RelabelError], example: str) -> None:
    """Raise `error` for what is no URL that obstore opens, or one whose text must not be shown or is misread."""
    scheme, _, rest = url.partition("://")
    # The text is looked at before it is parsed, and not repeated in the message: it may hold a password.
    if "@" in re.split("[/?#]", rest, maxsplit=1)[0]:
        raise error(f"{scheme}:// URL with credentials: give them in the environment instead")
    if "?" in rest:
        raise error(f"{scheme}:// URL with a query, which may hold credentials: give them in the environment instead")
    if "#" in rest:  # obstore would open what is before it
        raise error(f"{url}: a URL cannot hold a #; write %23")
    try:
        known = parse_scheme(url)
    except (BaseError, ValueError) as unknown:
        shown = url if "@" not in rest else f"{scheme}://..."
        raise error(f"{shown}: not a URL of an object store, such as {example}") from unknown
    if known in ("local", "memory"):
        raise error(f"{url}: give a path instead of a URL")


def open_bucket(url: str, *, retries: "RetryConfig | None" = None, client: "ClientConfig | None" = None) -> "Bucket":
    """The objects below a URL; nothing is asked yet. Credentials come from the environment, as obstore reads them.

    Whoever keeps it calls `refuse_fork` before each use.

    Raises:
        OSError: obstore cannot open it, such as for want of an account's name.
    """
    plain = url.startswith("http://") or any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS)
    try:
        return from_url(url, client_options={"allow_http": plain, **(client or {})}, retry_config=retries or RETRIES)
    except (BaseError, ValueError) as error:
        raise OSError(errno.EINVAL, first_line(error), url) from error


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Turn obstore's errors, many lines long, into an OSError of one."""
    try:
        yield
    except FileNotFoundError as error:
        if "405 Method Not Allowed" in str(error):  # which obstore takes for an object that is not there
            raise OSError(errno.EIO, "the web server refuses HEAD requests; copy it from there first", url) from error
        raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from error
    except BaseError as error:
        hint = "no credentials in the environment, nor from this machine: " if METADATA in str(error) else ""
        raise OSError(errno.EIO, hint + first_line(error), url) from error


_user: list[int] = []  # the process that first used obstore


def refuse_fork() -> None:
    """Obstore's threads do not live on in a forked process, which would wait for them for ever."""
    if not _user:
        _user.append(os.getpid())
    if _user[0] != os.getpid():
        raise StoreReadError(
            "an object store was opened before this process was forked; start workers with forkserver or spawn"
        )
