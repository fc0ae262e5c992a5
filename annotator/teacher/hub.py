"""The hub from which timm downloads weights: whether it answers, asked once before its client tries for minutes."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # where all its versions have it

from store.text import first_line

ANSWER_SECONDS = 10.0  # in which the hub has to answer the first question


def hub_problem() -> str | None:
    """Why the hub cannot be reached, None if it answers or its client is offline by HF_HUB_OFFLINE."""
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
    except Exception as error:  # of whichever HTTP library this version of the client is built on
        return f"{constants.ENDPOINT} does not answer: {first_line(error)}"
    return None


@contextmanager
def cached_only() -> Iterator[None]:
    """Let the hub's client take what it has downloaded before, and ask no server."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
