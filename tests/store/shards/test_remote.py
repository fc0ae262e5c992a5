"""Image shards behind URLs: how they are named and found, in moto's S3 server and on a web server."""

import multiprocessing
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from obstore.store import from_url

from store.errors import ShardError, StoreReadError
from store.shards.index import shard_name
from store.shards.patterns import expand_sources, find_sources
from store.shards.remote import RemoteShard
from store.storage import fetch as transfer
from store.storage.bucket import one_line_errors
from tests.builders.servers import web_server
from tests.builders.unruly_server import Unruly, unruly_server


@pytest.fixture
def bucket(s3_store: str) -> str:
    """A folder in a bucket that holds a few shards and other objects."""
    store = from_url(s3_store, client_options={"allow_http": True})
    for path in ("t-00.tar", "t-01.tar", "t-02.tar", "t-100.tar", "list.txt", ".t-03.tar", "deeper/t-04.tar"):
        obstore.put(store, path, b"0123456789")
    return s3_store


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A folder of a web server with two shards."""
    for name in ("w-0.tar", "w-1.tar"):
        (tmp_path / name).write_bytes(b"0123456789")
    with web_server(tmp_path) as url:
        yield url


def names(patterns: Sequence[str]) -> list[str]:
    return [shard.name for shard in expand_sources(patterns)]


def test_remote_shard_is_named_and_shown_like_a_path() -> None:
    shard = RemoteShard("s3://bucket/deep/train-0000.tar")
    assert (shard.name, str(shard), shard_name(shard)) == ("train-0000.tar", shard.url, "train-0000")
    assert pickle.loads(pickle.dumps(shard)) == shard
    assert RemoteShard("s3://bucket.tar").name == ""


def test_stat_of_a_remote_shard_is_like_that_of_a_file(web: str, tmp_path: Path, bucket: str) -> None:
    now, file = RemoteShard(f"{web}/w-0.tar").stat(), (tmp_path / "w-0.tar").stat()
    assert (now.st_size, now.st_mtime_ns // 10**9) == (file.st_size, file.st_mtime_ns // 10**9)
    etag = RemoteShard(f"{bucket}/t-00.tar").stat().etag
    assert etag is not None
    assert etag.startswith('"')


def test_stat_of_what_is_not_there_is_a_file_that_is_not_found(web: str, bucket: str) -> None:
    for url in (f"{web}/nothing.tar", f"{bucket}/nothing.tar", "s3://nobody/nothing.tar"):
        with pytest.raises(FileNotFoundError, match="there is no such object") as info:
            RemoteShard(url).stat()
        assert info.value.filename == url


def test_stat_without_an_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.storage.bucket.RETRIES", {"max_retries": 0})
    with pytest.raises(OSError, match="error sending request") as info:
        RemoteShard("http://127.0.0.1:1/a.tar").stat()
    assert "\n" not in str(info.value)
    with pytest.raises(ShardError, match=r"^http://127\.0\.0\.1:1/b\.tar: cannot be read: .*error sending request$"):
        find_sources(["http://127.0.0.1:1/b.tar"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://me:secret@example.org/a.tar", "https:// URL with credentials: give them in the environment"),
        ("https://me:secret@example.org/{0..1/a.tar", "https://...: not a valid brace pattern"),
        ("ftp://x/y@secret", r"ftp://...: not a URL of an object store, such as s3://bucket/train-0000\.tar"),
        ("https://x/a.tar?X-Amz-Signature=secret/*", "https:// URL with a query, which may hold credentials"),
        ("https://x/secret-?.tar", "https:// URL with a query, which may hold credentials"),
        ("s3://bucket/a.tar?X-Amz-Signature=secret", "s3:// URL with a query, which may hold credentials"),
        ("s3://bucket/secret?/a.tar", "s3:// URL with a query, which may hold credentials"),
        ("s3://bucket/run#1/a.tar", "a URL cannot hold a #; write %23"),
        ("file:///a.tar", "give a path instead of a URL"),
        ("s3://", "not a URL of an object store"),
        ("s3://*.tar", r"named \*\.tar"),
        ("s3://bucket/*/a.tar", r"\* and \? are for the last part of a bucket's URL; use braces"),
        ("s3://bucket/*/a-?.tar", r"\* and \? are for the last part of a bucket's URL; use braces"),
        ("https://example.org/a-*.tar", "a web server cannot list its shards; name them"),
        ("s3://bucket/a.tar.gz", "a shard is an uncompressed tar"),
        ("https://example.org/a%20b.tar", "the name must match"),
    ],
)
def test_url_that_cannot_be_one_of_shards_is_one_clear_line(url: str, message: str) -> None:
    with pytest.raises(ShardError, match=message) as info:
        expand_sources([url])
    assert "\n" not in str(info.value)
    assert "secret" not in str(info.value)


def test_sources_expand_in_the_order_given(bucket: str, web: str, tmp_path: Path) -> None:
    (tmp_path / "l-0.tar").touch()
    patterns = [f"{web}/w-{{1..0}}.tar", f"{bucket}/t-{{02..01}}.tar", str(tmp_path / "l-*.tar"), f"{bucket}/t-?00.tar"]
    assert names(patterns) == ["w-1.tar", "w-0.tar", "t-02.tar", "t-01.tar", "l-0.tar", "t-100.tar"]
    found = expand_sources([f"{bucket}/t-0*.tar", str(tmp_path / "l-0.tar")])
    assert found == [*(RemoteShard(f"{bucket}/t-0{n}.tar") for n in range(3)), tmp_path / "l-0.tar"]


def test_globs_in_a_bucket_match_names_directly_below(bucket: str) -> None:
    assert names([f"{bucket}/*.tar"]) == ["t-00.tar", "t-01.tar", "t-02.tar", "t-100.tar"]
    assert names([f"{bucket}/t-0?.tar"]) == ["t-00.tar", "t-01.tar", "t-02.tar"]
    assert names([f"{bucket}/{{,deeper/}}t-0[14]*"]) == ["t-01.tar", "t-04.tar"]


def test_globs_give_names_in_order_whatever_the_bucket_does(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_reversed(store: Any) -> Any:
        return {"objects": list(reversed(obstore.list_with_delimiter(store)["objects"]))}

    monkeypatch.setattr(transfer, "obstore", SimpleNamespace(list_with_delimiter=list_reversed))
    assert names([f"{bucket}/t-0*.tar"]) == ["t-00.tar", "t-01.tar", "t-02.tar"]


def test_missing_shards_are_named_whether_local_or_remote(bucket: str, web: str, tmp_path: Path) -> None:
    patterns = [f"{bucket}/t-0{{2..3}}.tar", f"{web}/w-{{1..2}}.tar", str(tmp_path / "gone.tar")]
    with pytest.raises(ShardError, match=r"3 of 5 shards are missing .*/t-03\.tar', .*/w-2\.tar', .*/gone\.tar'"):
        expand_sources(patterns)
    shards, problems = find_sources(patterns)
    assert ([shard.name for shard in shards], problems) == (["t-02.tar", "w-1.tar"], [])


@pytest.mark.parametrize("pattern", ["BUCKET/x-*.tar", "BUCKET/nothing/*.tar", "x-*.tar"])
def test_pattern_without_a_match_is_an_error_unless_it_may_be_missing(bucket: str, pattern: str) -> None:
    pattern = pattern.replace("BUCKET", bucket)
    with pytest.raises(ShardError, match="the pattern matches no file"):
        expand_sources([pattern])
    assert find_sources([pattern]) == ([], [])


def test_names_are_unique_across_local_and_remote_shards(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "t-01.tar").touch()
    patterns = [f"{bucket}/t-*.tar", str(tmp_path / "t-01.tar")]
    with pytest.raises(ShardError, match="given twice: 't-01'"):
        expand_sources(patterns)
    shards, problems = find_sources(patterns)
    assert [shard.name for shard in shards] == ["t-00.tar", "t-02.tar", "t-100.tar"]
    assert len(problems) == 1
    assert re.search(r"must be unique.*; left out: 's3://.*/t-01\.tar', '.*/t-01\.tar'", problems[0])


def test_bucket_that_cannot_be_listed_is_named(bucket: str) -> None:
    for look in (expand_sources, find_sources):
        with pytest.raises(ShardError, match=r"^s3://nobody: cannot be read: .*404"):
            look(["s3://nobody/*.tar"])


def test_shard_that_may_not_be_read_is_not_taken_for_a_missing_one() -> None:
    with unruly_server() as server:
        url = server.put(Unruly(b"", refused=403))
        with pytest.raises(ShardError, match=r"a\.tar: cannot be read: .*403"):
            find_sources([url])


def test_web_server_that_refuses_to_say_is_not_one_without_the_shard() -> None:
    with unruly_server() as server:
        url = server.put(Unruly(b"", refused=405))
        with pytest.raises(ShardError, match=r"a\.tar: cannot be read: the web server refuses HEAD requests"):
            expand_sources([url])


def test_missing_credentials_are_called_so() -> None:
    refused = obstore.exceptions.GenericError("Error performing PUT http://169.254.169.254/latest/api/token: no route")
    with (
        pytest.raises(OSError, match=r"no credentials in the environment, .*169\.254"),
        one_line_errors("s3://b/a.tar"),
    ):
        raise refused


WITHOUT_OBSTORE = """
import sys
from pathlib import Path
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "obstore":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from store.errors import RelabelError
from store.storage.open import open_backend
from store.shards.patterns import expand_sources, find_sources
from store.shards.remote import RemoteShard
def tell(action, *args):
    try:
        print(action(*args))
    except RelabelError as error:
        print(error)
tell(expand_sources, [sys.argv[1]])
tell(RemoteShard, "s3://bucket/a.tar")
tell(expand_sources, ["s3://bucket/a-*.tar"])
tell(open_backend, "s3://bucket/labels.zarr")
"""


def test_without_obstore_local_shards_are_found_and_urls_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_OBSTORE, str(tmp_path / "a.tar")], capture_output=True, text=True, check=True
    )
    local, *lines = run.stdout.splitlines()
    assert "a.tar" in local
    assert len(lines) == 3
    assert all("obstore is not installed" in line and "pip install -e '.[cloud]'" in line for line in lines)


def use_in_fork(url: str, file: Path | None) -> None:
    try:
        RemoteShard(url).stat() if file is None else RemoteShard(url).download(file)
    except StoreReadError as error:
        raise SystemExit(3 if "start workers with forkserver or spawn" in str(error) else 4) from None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads, which is the point
@pytest.mark.parametrize("name", [None, "file"])
def test_fork_after_a_shard_was_asked_for_is_an_error_instead_of_a_hang(
    bucket: str, tmp_path: Path, name: str | None
) -> None:
    file = None if name is None else tmp_path / name
    use_in_fork(f"{bucket}/t-00.tar", file)
    child = multiprocessing.get_context("fork").Process(target=use_in_fork, args=(f"{bucket}/t-00.tar", file))
    child.start()
    child.join(30)
    assert child.exitcode == 3
