"""What a service takes for complete, looked at from one pause to the next."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from annotator.run.watch import RETRY, Watch, annotate_forever
from store.errors import ShardError
from store.shards.patterns import find_sources
from store.shards.remote import RemoteShard, Shard
from tests.builders.stores import make_members, write_tar


class Ended(Exception):
    """Stands for the signal that ends a service."""


def make_watch(folder: Path, told: list[str]) -> Watch:
    return Watch(lambda: find_sources([f"{folder}/*.tar"]), told.append)


def test_shard_is_handed_out_once_it_has_stayed_as_it_is(tmp_path: Path) -> None:
    seen = make_watch(tmp_path, [])
    assert seen.scan() == []
    shard = write_tar(tmp_path / "a.tar", make_members(1))
    assert [seen.scan(), seen.scan(), seen.scan()] == [[], [shard], []]


def test_growing_copy_waits_until_it_is_whole(tmp_path: Path) -> None:
    told: list[str] = []
    seen, whole = make_watch(tmp_path, told), write_tar(tmp_path / "whole", make_members(2)).read_bytes()
    copy = tmp_path / "a.tar"
    copy.write_bytes(whole[:1500])
    assert [seen.scan(), seen.scan(), seen.scan()] == [[], [], []]
    assert len(told) == 1
    assert "not complete yet, or damaged: " in told[0]
    assert f"{copy}: ends at byte 1500" in told[0]
    copy.write_bytes(whole)
    assert [seen.scan(), seen.scan()] == [[], [copy]]


def test_shard_that_was_replaced_is_handed_out_again(tmp_path: Path) -> None:
    seen, shard = make_watch(tmp_path, []), write_tar(tmp_path / "a.tar", make_members(1))
    assert [seen.scan(), seen.scan()] == [[], [shard]]
    os.utime(shard, (1, 1))
    assert [seen.scan(), seen.scan(), seen.scan()] == [[], [shard], []]


def test_shard_that_vanishes_is_forgotten(tmp_path: Path) -> None:
    seen, shard = make_watch(tmp_path, []), write_tar(tmp_path / "a.tar", make_members(1))
    seen.scan()
    shard.unlink()
    assert [seen.scan(), seen.scan()] == [[], []]
    write_tar(shard, make_members(1))
    assert [seen.scan(), seen.scan()] == [[], [shard]]


def test_names_that_cannot_be_used_are_told_once_and_keep_no_other_waiting(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "in").mkdir()
    (tmp_path / "twin").mkdir()
    seen = Watch(lambda: find_sources([f"{tmp_path}/*/*.tar", f"{tmp_path}/later/{{a..b}}.tar"]), told.append)
    stray = write_tar(tmp_path / "in" / "bad name.tar", make_members(1))
    shard, twin = (write_tar(tmp_path / folder / "a.tar", make_members(1)) for folder in ("in", "twin"))
    other = write_tar(tmp_path / "in" / "b.tar", make_members(1))
    assert [seen.scan(), seen.scan()] == [[], [other]]
    assert ["waiting until this is repaired: " in line for line in told] == [True] * 3
    assert "later: there is no such folder" in told[0]
    assert "bad name.tar" in told[1]
    assert "in/a.tar" in told[2]
    assert "twin/a.tar" in told[2]
    stray.unlink()
    twin.unlink()
    assert [seen.scan(), seen.scan()] == [[], [shard]]
    assert len(told) == 3


def test_server_that_is_away_ends_no_service_and_is_told_once_a_time(tmp_path: Path) -> None:
    told: list[str] = []
    shard = write_tar(tmp_path / "a.tar", make_members(1))
    answers: list[list[Shard] | None] = [None, None, [shard], [shard], None]

    def find() -> tuple[list[Shard], list[str]]:
        if (answer := answers.pop(0)) is None:
            raise ShardError("the server is away")
        return answer, []

    seen = Watch(find, told.append)
    assert [seen.scan() for _ in range(5)] == [[], [], [], [shard], []]
    assert told == ["waiting until this is repaired: the server is away"] * 2


def test_shard_that_could_not_be_read_once_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("annotator.run.watch.time.monotonic", lambda: now[0])
    seen, shard = make_watch(tmp_path, []), write_tar(tmp_path / "a.tar", make_members(1))

    def refuse(path: Path) -> None:
        raise ShardError(f"{path}: cannot be read: Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("annotator.run.watch.index_shard", refuse)
        assert [seen.scan(), seen.scan(), seen.scan()] == [[], [], []]
    now[0] = RETRY
    assert [seen.scan(), seen.scan()] == [[shard], []]


def test_objects_are_asked_for_once_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = RemoteShard("http://127.0.0.1:1/a.tar")  # where nobody answers
    seen = Watch(lambda: ([shard], []), lambda _: None)
    assert [seen.scan(), seen.scan(), seen.scan()] == [[], [shard], []]


def test_failed_shard_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("annotator.run.watch.time.monotonic", lambda: now[0])
    seen, shard = make_watch(tmp_path, []), write_tar(tmp_path / "a.tar", make_members(1))
    assert [seen.scan(), seen.scan()] == [[], [shard]]
    seen.failed([shard])
    assert seen.scan() == []
    now[0] = RETRY
    assert [seen.scan(), seen.scan()] == [[shard], []]


def test_rounds_go_on_until_something_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[list[Shard]] = []
    pauses: list[float] = []
    idle: list[int] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            write_tar(tmp_path / "a.tar", make_members(1))
        if len(pauses) == 5:
            raise Ended

    def annotate(shards: Sequence[Shard]) -> list[Shard]:
        rounds.append(list(shards))
        return []

    monkeypatch.setattr("annotator.run.watch.time.sleep", sleep)
    with pytest.raises(Ended):
        annotate_forever(make_watch(tmp_path, []), annotate, lambda: idle.append(len(pauses)))
    assert rounds == [[tmp_path / "a.tar"]]
    assert idle == [0, 2]  # at the start, and after the round; not at every pause
