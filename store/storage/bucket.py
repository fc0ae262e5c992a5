"""Opening of URLs with obstore, for stores and image shards, and obstore's errors as an OSError of one line."""

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
from store.foreign import ASKED_FOR_CREDENTIALS, NO_HEAD_REQUESTS, says
from store.text import first_line

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Bucket

REQUESTS = 16  # in flight at the same time
RETRIES: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
NO_CREDENTIALS = "no credentials in the environment, nor from this machine: "
CREDENTIALS = (  # what obstore reads for S3, apart from a machine's role
    "AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def check_url(url: str, error: type[RelabelError], example: str) -> None:
    """Raise `error` for a URL that obstore cannot open, that may hold credentials, or that it would misread."""
    scheme, _, rest = url.partition("://")
    # Before it is parsed, and without the URL in the message: it may hold a password.
    if "@" in re.split("[/?#]", rest, maxsplit=1)[0]:
        raise error(f"{scheme}:// URL with credentials: give them in the environment instead")
    if "?" in rest:
        raise error(f"{scheme}:// URL with a query, which may hold credentials: give them in the environment instead")
    if "#" in rest:  # obstore would ignore it and the rest
        raise error(f"{url}: a URL cannot hold a #; write %23")
    try:
        known = parse_scheme(url)
    except (BaseError, ValueError) as unknown:
        shown = url if "@" not in rest else f"{scheme}://..."
        raise error(f"{shown}: not a URL of an object store, such as {example}") from unknown
    if known in ("local", "memory"):
        raise error(f"{url}: give a path instead of a URL")


def open_bucket(url: str, *, retries: "RetryConfig | None" = None, client: "ClientConfig | None" = None) -> "Bucket":
    """The objects below a URL, without a request yet. obstore reads the credentials from the environment.

    Callers that keep the result call `refuse_fork` before each use.

    Args:
        url: a URL that `check_url` accepts.
        retries: obstore's settings for its own retries.
        client: obstore's settings for its HTTP client.

    Raises:
        OSError: obstore cannot open it, for example because an account's name is missing, or would ignore AWS_PROFILE.
    """
    _refuse_profile(url)
    plain = url.startswith("http://") or any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS)
    try:
        return from_url(url, client_options={"allow_http": plain, **(client or {})}, retry_config=retries or RETRIES)
    except (BaseError, ValueError) as error:
        raise OSError(errno.EINVAL, first_line(error), url) from error


def _refuse_profile(url: str) -> None:
    """Refuse AWS_PROFILE alone: obstore reads no profiles, and would use the machine's role or nothing."""
    is_alone = bool(os.environ.get("AWS_PROFILE")) and not any(os.environ.get(name) for name in CREDENTIALS)
    if is_alone and parse_scheme(url) == "s3":
        raise OSError(
            errno.EINVAL,
            'AWS_PROFILE is not read; run eval "$(aws configure export-credentials --format env)" first, or unset it',
            url,
        )


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Turn obstore's errors, many lines long, into an OSError of one."""
    try:
        yield
    except FileNotFoundError as error:
        if says(error, NO_HEAD_REQUESTS):
            raise OSError(errno.EIO, "the web server refuses HEAD requests; copy it from there first", url) from error
        raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from error
    except BaseError as error:
        hint = NO_CREDENTIALS if says(error, ASKED_FOR_CREDENTIALS) else ""
        raise OSError(errno.EIO, hint + first_line(error), url) from error


_user: list[int] = []  # the process that first used obstore


def refuse_fork() -> None:
    """Raise an error in a forked process, where obstore would wait for ever for threads that do not exist there.

    Raises:
        StoreReadError: obstore was used before this process was forked.
    """
    if not _user:
        _user.append(os.getpid())
    if _user[0] != os.getpid():
        raise StoreReadError(
            "an object store was opened before this process was forked; start workers with forkserver or spawn"
        )
