import itertools
import signal
from collections.abc import Iterator

import pytest

from tests.builders.servers import make_bucket, s3_environment, s3_server

_numbers = itertools.count()

# A shell that starts pytest in the background lets it ignore Ctrl-C, and whatever the tests start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    pytest.importorskip("obstore")
    with s3_server() as url:
        make_bucket(url, "bucket")
        yield url


@pytest.fixture
def s3_store(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A location in a bucket where nothing lies yet."""
    for name, value in s3_environment(s3_url).items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/test-{next(_numbers)}/labels.zarr"
