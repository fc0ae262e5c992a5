"""What a service takes for complete, looked at from one pause to the next."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from annotator.watch import RETRY, Watch, annotate_forever
from store.patterns import expand_sources
from store.remote import Shard
from tests.build import make_members, write_tar


class Ended(Exception):
    """Stands for the signal that ends a service."""


def make_watch(folder: Path, told: list[str]) -> Watch:
    return Watch(lambda: sorted(folder.glob("*.tar")), told.append)


def test_shard_is_handed_out_once_it_has_stayed_as_it_is(tmp_path: Path) -> None:
    seen = make_watch(tmp_path, [])
    assert seen.look() == []
    shard = write_tar(tmp_path / "a.tar", make_members(1))
    assert [seen.look(), seen.look(), seen.look()] == [[], [shard], []]


def test_growing_copy_waits_until_it_is_whole(tmp_path: Path) -> None:
    told: list[str] = []
    seen, whole = make_watch(tmp_path, told), write_tar(tmp_path / "whole", make_members(2)).read_bytes()
    copy = tmp_path / "a.tar"
    copy.write_bytes(whole[:1500])
    assert [seen.look(), seen.look(), seen.look()] == [[], [], []]
    assert len(told) == 1
    assert "not complete yet, or damaged: " in told[0]
    assert f"{copy}: ends at byte 1500" in told[0]
    copy.write_bytes(whole)
    assert [seen.look(), seen.look()] == [[], [copy]]


def test_shard_that_was_replaced_is_handed_out_again(tmp_path: Path) -> None:
    seen, shard = make_watch(tmp_path, []), write_tar(tmp_path / "a.tar", make_members(1))
    assert [seen.look(), seen.look()] == [[], [shard]]
    os.utime(shard, (1, 1))
    assert [seen.look(), seen.look(), seen.look()] == [[], [shard], []]


def test_shard_that_vanishes_is_forgotten(tmp_path: Path) -> None:
    seen, shard = make_watch(tmp_path, []), write_tar(tmp_path / "a.tar", make_members(1))
    seen.look()
    shard.unlink()
    assert [seen.look(), seen.look()] == [[], []]
    write_tar(shard, make_members(1))
    assert [seen.look(), seen.look()] == [[], [shard]]


def test_name_that_cannot_be_a_shards_is_told_once_and_waited_for(tmp_path: Path) -> None:
    told: list[str] = []
    seen = Watch(lambda: expand_sources([str(tmp_path / "*.tar")], missing_ok=True), told.append)
    stray = write_tar(tmp_path / "bad name.tar", make_members(1))
    shard = write_tar(tmp_path / "a.tar", make_members(1))
    assert [seen.look(), seen.look()] == [[], []]
    assert len(told) == 1
    assert "waiting until this is mended: " in told[0]
    assert "bad name.tar" in told[0]
    stray.unlink()
    assert [seen.look(), seen.look()] == [[], [shard]]


def test_failed_shard_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("annotator.watch.time.monotonic", lambda: now[0])
    seen, shard = make_watch(tmp_path, []), write_tar(tmp_path / "a.tar", make_members(1))
    assert [seen.look(), seen.look()] == [[], [shard]]
    seen.failed([shard])
    assert seen.look() == []
    now[0] = RETRY
    assert [seen.look(), seen.look()] == [[shard], []]


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

    monkeypatch.setattr("annotator.watch.time.sleep", sleep)
    with pytest.raises(Ended):
        annotate_forever(make_watch(tmp_path, []), annotate, lambda: idle.append(len(pauses)))
    assert rounds == [[tmp_path / "a.tar"]]
    assert idle == [0, 2]  # at the start, and after the round; not at every pause
