"""A shard that is downloaded is the server's, byte for byte, or an error: against a server that misbehaves."""

import itertools
import os
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from obstore.store import from_url

from store.shards.remote import RemoteShard
from store.storage import fetch as fetching
from store.storage.base import RemoteStat
from tests.builders.unruly_server import LONG_AGO, PIECE, Unruly, UnrulyServer, unruly_server

SIZE = 300_000
DATA, OTHER = os.urandom(SIZE), os.urandom(SIZE)
STALLED = f"bytes came, then nothing in {fetching.ATTEMPTS} attempts; try again later"
REPLACED = "was replaced or changed while it was being downloaded; run again"
WEAK = 'W/"first"'


@pytest.fixture(scope="module")
def server() -> Iterator[UnrulyServer]:
    with unruly_server() as server:
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not waited for."""
    pauses: list[float] = []
    monkeypatch.setattr(
        fetching, "time", SimpleNamespace(sleep=pauses.append, time=time.time, monotonic=time.monotonic)
    )
    monkeypatch.setattr(fetching, "SILENCE", timedelta(seconds=5))
    return pauses


def fetch(server: UnrulyServer, unruly: Unruly, file: Path) -> RemoteStat:
    """Download what must arrive whole."""
    found = RemoteShard(server.put(unruly)).download(file)
    assert file.read_bytes() == unruly.data
    return found


def fail(server: UnrulyServer, unruly: Unruly, file: Path, message: str) -> OSError:
    """Download what must end in an error of one line, and without a file."""
    url = server.put(unruly)
    with pytest.raises(OSError, match=message) as info:
        RemoteShard(url).download(file)
    assert info.value.filename == url
    assert "\n" not in str(info.value)
    assert not file.exists()
    return info.value


def gets(unruly: Unruly) -> list[str]:
    return [request for request in unruly.seen if request != "HEAD"]


def test_download_says_what_was_downloaded(server: UnrulyServer, tmp_path: Path) -> None:
    unruly = Unruly(DATA)
    (tmp_path / "a").write_bytes(bytes(2 * SIZE))
    found = fetch(server, unruly, tmp_path / "a")
    assert found == RemoteStat(SIZE, int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * 10**9, '"first"')
    assert unruly.seen == ["GET", "HEAD"]


def test_body_that_is_cut_three_times_arrives_whole(server: UnrulyServer, tmp_path: Path, pauses: list[float]) -> None:
    unruly = Unruly(DATA, cuts=[100_000, 200_000, 250_001])
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET", *(f"GET bytes={start}-299999" for start in (100_000, 200_000, 250_001))]
    assert pauses == [fetching.PAUSE] * 3


def test_body_cut_more_often_than_attempts_are_made_arrives_whole_if_each_brings_something(
    server: UnrulyServer, tmp_path: Path
) -> None:
    fetch(server, Unruly(DATA, cuts=range(20_000, SIZE, 20_000)), tmp_path / "a")


def test_body_that_is_always_cut_at_one_byte_ends_in_an_error(
    server: UnrulyServer, tmp_path: Path, pauses: list[float]
) -> None:
    unruly = Unruly(DATA, cuts=itertools.repeat(100_000))
    fail(server, unruly, tmp_path / "a", rf"100,000 of 300,000 {STALLED} \(.+\)")
    assert len(gets(unruly)) == fetching.ATTEMPTS
    assert pauses == [1, 2, 4, 8]


def test_body_that_stalls_once_arrives_whole(
    server: UnrulyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SILENCE", timedelta(seconds=0.5))
    unruly = Unruly(DATA, stalls=[100_000])
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET", "GET bytes=100000-299999"]


def test_server_that_stalls_for_ever_ends_in_an_error(
    server: UnrulyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SILENCE", timedelta(seconds=0.2))
    fail(server, Unruly(DATA, stalls=itertools.repeat(100_000)), tmp_path / "a", f"100,000 of 300,000 {STALLED}")


def test_slow_body_that_takes_longer_than_any_silence_may_last_arrives_in_one(
    server: UnrulyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SILENCE", timedelta(seconds=1.5))
    unruly = Unruly(DATA, pause=0.1)  # 19 pieces
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET"]


def test_body_that_trickles_is_given_up(
    server: UnrulyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(fetching, "PATIENCE", 0.05)
    unruly = Unruly(DATA, piece=1, pause=0.01)
    fail(
        server, unruly, tmp_path / "a", r"bytes came, then fewer than 1,024 a second in 5 attempts; try again later \("
    )
    assert len(gets(unruly)) == fetching.ATTEMPTS
    assert len(pauses) == fetching.ATTEMPTS - 1


def test_slow_disk_is_no_slow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PATIENCE", 0.05)
    clock = itertools.count()
    answer = SimpleNamespace(stream=lambda **_: iter([b"a"] * 3))
    monkeypatch.setattr(fetching, "time", SimpleNamespace(monotonic=lambda: 0.001 * next(clock)))
    for piece in fetching._pieces(answer):  # type: ignore[arg-type]
        assert bytes(piece) == b"a"
        next(itertools.islice(clock, 1000, None))  # a second in which the disk takes the piece


@pytest.mark.slow
def test_body_that_takes_longer_than_obstores_own_limit_arrives_in_one(server: UnrulyServer, tmp_path: Path) -> None:
    unruly = Unruly(DATA * 5, pause=33 / (5 * SIZE // PIECE))  # seconds in all
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET"]


def test_limit_for_one_body_is_ours(server: UnrulyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert timedelta(hours=1) < fetching.BODY_TIMEOUT
    monkeypatch.setattr(fetching, "BODY_TIMEOUT", timedelta(seconds=0.4))
    unruly = Unruly(DATA, pause=0.05)
    fetch(server, unruly, tmp_path / "a")
    assert len(gets(unruly)) > 1


def test_server_that_is_busy_for_a_while_is_asked_again(
    server: UnrulyServer, tmp_path: Path, pauses: list[float]
) -> None:
    fetch(server, Unruly(DATA, busy=fetching.ATTEMPTS - 1), tmp_path / "a")
    assert pauses == [1, 2, 4, 8]


def test_server_that_is_always_busy_ends_in_an_error(server: UnrulyServer, tmp_path: Path) -> None:
    unruly = Unruly(DATA, busy=100)
    error = fail(server, unruly, tmp_path / "a", f"0 of unknown {STALLED}")
    assert "503" in str(error)
    assert len(gets(unruly)) == fetching.ATTEMPTS


@pytest.mark.parametrize("status", [400, 401, 403, 410])
def test_refusal_is_not_asked_again(server: UnrulyServer, tmp_path: Path, status: int) -> None:
    unruly = Unruly(DATA, refused=status)
    fail(server, unruly, tmp_path / "a", f"{status}")
    assert gets(unruly) == ["GET"]


@pytest.mark.parametrize("status", [408, 429])
def test_refusal_that_passes_is_asked_again(server: UnrulyServer, tmp_path: Path, status: int) -> None:
    unruly = Unruly(DATA, refused=status)
    fail(server, unruly, tmp_path / "a", f"{status}")
    assert len(gets(unruly)) == fetching.ATTEMPTS


def test_object_that_is_not_there_is_a_file_that_is_not_found(server: UnrulyServer, tmp_path: Path) -> None:
    error = fail(server, Unruly(DATA, refused=404), tmp_path / "a", "there is no such object")
    assert isinstance(error, FileNotFoundError)


def test_body_shorter_than_announced_ends_in_an_error(server: UnrulyServer, tmp_path: Path) -> None:
    fail(server, Unruly(DATA, length=SIZE + 1), tmp_path / "a", f"300,000 of 300,001 {STALLED}")


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[bytes]]:
    """Bodies that replace those of obstore's answers, by the number of the GET."""
    pieces: dict[int, list[bytes]] = {}
    numbers = itertools.count()

    def get(*args: Any, **options: Any) -> Any:
        answer, number = obstore.get(*args, **options), next(numbers)
        return (
            SimpleNamespace(meta=answer.meta, stream=lambda **_: iter(pieces[number])) if number in pieces else answer
        )

    monkeypatch.setattr(fetching, "obstore", SimpleNamespace(get=get, head=obstore.head))
    return pieces


def test_body_that_ends_early_without_an_error_is_not_taken_for_whole(
    server: UnrulyServer, tmp_path: Path, pieces: dict[int, list[bytes]]
) -> None:
    pieces.update((number, []) for number in range(fetching.ATTEMPTS))
    pieces[0] = [DATA[:100_000]]
    fail(
        server,
        Unruly(DATA),
        tmp_path / "a",
        rf"100,000 of 300,000 {STALLED} \(the body ended after 100,000 bytes\)",
    )


def test_body_with_more_than_was_announced_leaves_nothing_behind(
    server: UnrulyServer, tmp_path: Path, pieces: dict[int, list[bytes]]
) -> None:
    pieces[0] = [DATA, b"more"]
    fetch(server, Unruly(DATA), tmp_path / "a")


def test_body_of_unknown_length_is_refused(server: UnrulyServer, tmp_path: Path) -> None:
    unruly = Unruly(DATA, tells_length=False)
    fail(server, unruly, tmp_path / "a", "does not announce its length")
    assert gets(unruly) == ["GET"]


def test_server_without_ranges_is_asked_for_the_whole_again(server: UnrulyServer, tmp_path: Path) -> None:
    unruly = Unruly(DATA, ranges=False, cuts=[100_000, None, 50_000])  # the second answers the range, and is dropped
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET", "GET bytes=100000-299999", "GET", "GET"]


def test_server_without_ranges_that_never_gets_further_ends_in_an_error(server: UnrulyServer, tmp_path: Path) -> None:
    fail(server, Unruly(DATA, ranges=False, cuts=itertools.repeat(100_000)), tmp_path / "a", f"100,000 .*{STALLED}")


@pytest.mark.parametrize("recent", [False, True])
@pytest.mark.parametrize("etag", [None, WEAK])
def test_object_without_proof_of_its_version_is_never_pieced_together(
    server: UnrulyServer, tmp_path: Path, etag: str | None, recent: bool
) -> None:
    modified = format_datetime(datetime.now(UTC), usegmt=True) if recent else None
    unruly = Unruly(DATA, etag=etag, modified=modified, cuts=[100_000])
    found = fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET", "GET"]
    assert found.etag == etag
    assert (found.st_mtime_ns == 0) == (not recent)


@pytest.mark.parametrize("etag", [None, WEAK])
def test_old_last_modified_is_proof_where_there_is_no_strong_etag(
    server: UnrulyServer, tmp_path: Path, etag: str | None
) -> None:
    unruly = Unruly(DATA, etag=etag, cuts=[100_000])
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET", "GET bytes=100000-299999"]


@pytest.mark.parametrize("etag", ['"first"', None])
def test_part_that_does_not_say_its_version_is_not_used(server: UnrulyServer, tmp_path: Path, etag: str | None) -> None:
    unruly = Unruly(DATA, etag=etag, cuts=[100_000], bare_parts=True)
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET", "GET bytes=100000-299999", "GET"]


@pytest.mark.parametrize("shift", [-1, 1])
def test_part_that_was_not_asked_for_is_not_used(server: UnrulyServer, tmp_path: Path, shift: int) -> None:
    unruly = Unruly(DATA, cuts=[100_000], shift=shift)
    fetch(server, unruly, tmp_path / "a")
    assert gets(unruly) == ["GET", "GET bytes=100000-299999", "GET"]


LATER = "Thu, 02 Jan 2025 00:00:00 GMT"


@pytest.mark.parametrize("etag", ['"first"', None])
def test_object_replaced_is_not_sent_by_a_server_that_knows_conditions(
    server: UnrulyServer, tmp_path: Path, etag: str | None
) -> None:
    later = Unruly(OTHER, etag=etag and '"second"', modified=LATER)
    fail(server, Unruly(DATA, etag=etag, cuts=[100_000], later=later), tmp_path / "a", REPLACED)
    assert later.answers == [412]


@pytest.mark.parametrize(
    "later",
    [
        Unruly(OTHER, etag=None, modified=LATER, conditions=False),
        Unruly(OTHER, etag='"second"', conditions=False),
        Unruly(OTHER, modified=LATER, conditions=False),
        Unruly(OTHER, etag='"second"', ranges=False, conditions=False),
        Unruly(OTHER + b"more", conditions=False),
        Unruly(OTHER[:200_000], conditions=False),
        Unruly(OTHER[:50_000], conditions=False),
    ],
)
def test_object_replaced_between_two_requests_is_an_error(server: UnrulyServer, tmp_path: Path, later: Unruly) -> None:
    fail(server, Unruly(DATA, cuts=[100_000], later=later), tmp_path / "a", REPLACED)
    assert later.seen[0] == "GET bytes=100000-299999"
    assert "HEAD" not in later.seen


def test_object_that_is_changed_while_it_is_sent_is_an_error(server: UnrulyServer, tmp_path: Path) -> None:
    fail(server, Unruly(DATA, later=Unruly(OTHER, modified=LATER)), tmp_path / "a", REPLACED)


def test_object_that_vanishes_between_two_requests_is_not_found(server: UnrulyServer, tmp_path: Path) -> None:
    gone = Unruly(DATA, cuts=[100_000], later=Unruly(b"", refused=404))
    assert isinstance(fail(server, gone, tmp_path / "a", "there is no such object"), FileNotFoundError)


def test_disk_that_is_full_is_named_and_left_without_the_file(server: UnrulyServer, tmp_path: Path) -> None:
    url, file = server.put(Unruly(DATA)), tmp_path / "a"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as info:
            RemoteShard(url).download(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert info.value.filename == str(file)
    assert not file.exists()


def test_file_that_cannot_be_opened_is_left_alone(server: UnrulyServer, tmp_path: Path) -> None:
    url = server.put(Unruly(DATA))
    with pytest.raises(IsADirectoryError):
        RemoteShard(url).download(tmp_path)
    assert tmp_path.is_dir()


def test_empty_object_is_an_empty_file(server: UnrulyServer, tmp_path: Path) -> None:
    assert fetch(server, Unruly(b"", modified=LONG_AGO), tmp_path / "a").st_size == 0


def test_object_in_a_bucket_arrives_whole(s3_store: str, tmp_path: Path) -> None:
    obstore.put(from_url(s3_store, client_options={"allow_http": True}), "a.tar", DATA)
    shard = RemoteShard(f"{s3_store}/a.tar")
    assert shard.download(tmp_path / "a") == shard.stat()
    assert (tmp_path / "a").read_bytes() == DATA
    assert shard.stat().st_size == SIZE
    with pytest.raises(FileNotFoundError, match="there is no such object"):
        RemoteShard(f"{s3_store}/b.tar").download(tmp_path / "b")
    assert not (tmp_path / "b").exists()
