"""Other libraries' errors still have the texts by which they are recognised."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import from_url

from store.foreign import ASKED_FOR_CREDENTIALS, NO_HEAD_REQUESTS, NO_LENGTH, NO_SERVER_ANSWER, http_status, says
from tests.builders.unruly_server import Unruly, unruly_server

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

ONCE: "RetryConfig" = {"max_retries": 0}
CLIENT: "ClientConfig" = {"allow_http": True, "timeout": timedelta(seconds=5), "read_timeout": timedelta(seconds=0.5)}


def failing(method: str, unruly: Unruly, **options: Any) -> BaseException:
    with unruly_server() as server:
        folder, _, name = server.put(unruly).rpartition("/")
        store = from_url(folder, client_options=CLIENT, retry_config=ONCE)
        with pytest.raises((BaseError, FileNotFoundError)) as info:
            getattr(obstore, method)(store, name, **options)
    return info.value


@pytest.mark.parametrize("status", [401, 403, 412, 416, 429, 503])
def test_status_of_an_answer_is_in_the_text(status: int) -> None:
    error = failing("get", Unruly(b"a", refused=status))
    assert (http_status(error), says(error, NO_SERVER_ANSWER)) == (status, True)


def test_answer_that_cannot_be_used_has_no_status() -> None:
    error = failing("get", Unruly(bytes(100), ranges=False), options={"range": (3, 9)})
    assert (http_status(error), says(error, NO_SERVER_ANSWER)) == (0, False)


def test_server_that_refuses_head_requests_is_no_missing_object() -> None:
    error = failing("head", Unruly(b"a", refused=405))
    assert (isinstance(error, FileNotFoundError), says(error, NO_HEAD_REQUESTS)) == (True, True)
    assert not says(failing("head", Unruly(b"a", refused=404)), NO_HEAD_REQUESTS)


def test_missing_length_is_named() -> None:
    assert says(failing("get", Unruly(b"a", tells_length=False)), NO_LENGTH)


def test_missing_credentials_lead_to_the_metadata_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    store = from_url("s3://bucket/labels", region="us-east-1", client_options=CLIENT, retry_config=ONCE)
    with pytest.raises(BaseError) as info:
        obstore.head(store, "zarr.json")
    assert says(info.value, ASKED_FOR_CREDENTIALS)
