"""What the environment says of credentials, before the first request."""

import pytest

pytest.importorskip("obstore")

from store.storage.bucket import CREDENTIALS, open_bucket


@pytest.fixture(autouse=True)
def profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", "research")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def test_profile_alone_is_refused_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("s3://bucket/labels.zarr", "https://bucket.s3.us-east-1.amazonaws.com/a.tar"):
        with pytest.raises(OSError, match=r"AWS_PROFILE is not read; run eval .*aws configure export-credentials"):
            open_bucket(url)
    open_bucket("https://example.com/shards")
    monkeypatch.delenv("AWS_PROFILE")
    open_bucket("s3://bucket/labels.zarr")


@pytest.mark.parametrize("name", CREDENTIALS)
def test_profile_beside_credentials_of_the_environment_is_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    if name == "AWS_ACCESS_KEY_ID":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    open_bucket("s3://bucket/labels.zarr")
