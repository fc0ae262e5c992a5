"""Stores behind URLs, against moto's S3 server and a plain web server, each in a process of its own."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from click.testing import CliRunner
from obstore.store import from_url

from store.cli.main import main
from store.errors import (
    DamagedStoreError,
    GroupExistsError,
    RelabelError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreReadError,
    StoreWriteError,
)
from store.group import LabelGroup
from store.maintenance import clean, find_leftovers, verify_group
from store.reader import LabelStore
from store.storage.cloud import CloudBackend
from store.writer import StoreWriter, set_aside_other
from tests.builders.servers import web_server
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema

ROWS = 70
SCHEMA = make_schema()
PROCESSES = multiprocessing.get_context("spawn")


def write(location: Path | str, name: str, seed: int = 0, *, overwrite: bool = False) -> None:
    writer = StoreWriter.open(location, SCHEMA)
    labels = make_labels(SCHEMA, ROWS, seed)
    writer.write(name, labels, tar=TAR, provenance=PROVENANCE, overwrite=overwrite)


def check_group(location: Path | str, name: str, seed: int) -> None:
    expected, group = make_labels(SCHEMA, ROWS, seed), LabelStore.open(location).group(name)
    rows = group.read()
    assert np.array_equal(rows.classes, expected.classes)
    assert np.array_equal(rows.scores, expected.scores)
    assert tuple(group.keys) == expected.keys
    assert np.array_equal(group.digests, expected.digests)


def objects_of(location: str) -> set[str]:
    bucket = from_url(location, client_options={"allow_http": True})
    return {str(info["path"]) for page in obstore.list(bucket) for info in page}


def test_what_is_put_into_a_bucket_is_read_from_it(s3_store: str) -> None:
    write(s3_store, "a")
    write(s3_store, "b", 1)
    store = LabelStore.open(s3_store + "/")
    assert (store.names(), store.schema) == (["a", "b"], SCHEMA)
    check_group(s3_store, "a", 0)
    group, row = store.find("seed1/row0069")
    assert (group.name, row, group.row(row).key) == ("b", 69, "seed1/row0069")
    assert not verify_group(store, "a", deep=True)
    result = CliRunner().invoke(main, ["show", s3_store, "seed1/row0001"])
    assert result.exit_code == 0, result.output
    assert "b, row 1" in result.output


def test_group_in_a_bucket_is_replaced_only_when_asked_to(s3_store: str) -> None:
    write(s3_store, "a", 1)
    with pytest.raises(GroupExistsError, match="already there; use --overwrite"):
        write(s3_store, "a", 2)
    check_group(s3_store, "a", 1)
    write(s3_store, "a", 2, overwrite=True)
    check_group(s3_store, "a", 2)


def race(location: str, seed: int, barrier: Barrier) -> None:
    writer = StoreWriter.open(location, SCHEMA)
    labels = make_labels(SCHEMA, ROWS, seed)
    barrier.wait()
    try:
        writer.write("a", labels, tar=TAR, provenance={"seed": str(seed)})
    except GroupExistsError:
        raise SystemExit(3) from None


def test_of_several_writers_of_one_group_one_wins_whole(s3_store: str) -> None:
    barrier = PROCESSES.Barrier(3)
    writers = [PROCESSES.Process(target=race, args=(s3_store, seed, barrier)) for seed in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(writer.exitcode or 0 for writer in writers) == [0, 3, 3]
    group = LabelStore.open(s3_store).group("a")
    check_group(s3_store, "a", int(group.commit.provenance["seed"]))
    assert {path.split("/")[1] for path in objects_of(s3_store) if "/" in path} == {"zarr.json", group.commit.prefix}


def put_and_die(location: str, puts: int) -> None:
    """A writer that is killed before its put number `puts`, counted from 0."""
    put = CloudBackend._put
    done: list[str] = []

    def counting(backend: CloudBackend, path: str, data: bytes, *, mode: Any = "overwrite") -> None:
        if len(done) == puts:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(path)
        put(backend, path, data, mode=mode)

    StoreWriter.open(location, SCHEMA)
    CloudBackend._put = counting  # type: ignore[assignment,method-assign]
    CloudBackend.map = lambda _, function, items: map(function, items)  # type: ignore[assignment,method-assign]
    write(location, "a")


def test_writer_killed_between_puts_leaves_no_group_and_its_objects_to_gc(s3_store: str) -> None:
    for puts in (0, 1, 7, 15):  # the last is the record
        writer = PROCESSES.Process(target=put_and_die, args=(s3_store, puts))
        writer.start()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        assert LabelStore.open(s3_store).names() == []
    write(s3_store, "a")
    store = LabelStore.open(s3_store)
    with pytest.raises(RelabelError, match="attempts younger than 1 hours may be in use"):
        next(find_leftovers(store, min_age=0))
    assert list(find_leftovers(store, min_age=3600)) == []
    store.backend.min_age = 0  # as if an hour had gone by
    leftovers = list(find_leftovers(store, min_age=0))
    assert len(leftovers) == 3
    for leftover in leftovers:
        clean(store, leftover)
    assert list(find_leftovers(store, min_age=0)) == []
    check_group(s3_store, "a", 0)


@pytest.mark.parametrize("damage", [b'"attempt-', b'"relabel.commit"', b"{"])
def test_gc_spares_the_arrays_of_a_group_whose_record_is_damaged(s3_store: str, damage: bytes) -> None:
    write(s3_store, "a")
    bucket = from_url(s3_store, client_options={"allow_http": True})
    data = bytes(obstore.get(bucket, "a/zarr.json").bytes())
    obstore.put(bucket, "a/zarr.json", data.replace(damage, damage.swapcase() if len(damage) > 1 else b"", 1))
    store = LabelStore.open(s3_store)
    store.backend.min_age = 0
    assert list(find_leftovers(store, min_age=0)) == []
    result = CliRunner().invoke(main, ["verify", s3_store])
    assert (result.exit_code, "a: " in result.output) == (1, True)
    obstore.put(bucket, "a/zarr.json", data)
    check_group(s3_store, "a", 0)


def test_object_in_a_groups_place_that_is_no_record_stops_the_writer(s3_store: str) -> None:
    StoreWriter.open(s3_store, SCHEMA)
    bucket = from_url(s3_store, client_options={"allow_http": True})
    obstore.put(bucket, "a/zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(StoreWriteError, match=r"a/zarr\.json: not the record of a label group; delete it"):
        write(s3_store, "a")


def test_record_whose_answer_was_lost_keeps_its_arrays(s3_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = CloudBackend._put

    def losing(backend: CloudBackend, path: str, data: bytes, *, mode: Any = "overwrite") -> None:
        put(backend, path, data, mode=mode)
        if path == "a/zarr.json":
            raise OSError(5, "connection reset")

    StoreWriter.open(s3_store, SCHEMA)
    monkeypatch.setattr(CloudBackend, "_put", losing)
    with pytest.raises(StoreWriteError, match="no answer whether the group was written: connection reset; run again"):
        write(s3_store, "a")
    check_group(s3_store, "a", 0)


def test_put_whose_answer_was_lost_is_no_rival(s3_store: str) -> None:
    backend = CloudBackend(s3_store)
    backend._put("zarr.json", b"mine", mode="create")
    backend._put("zarr.json", b"mine", mode="create")
    with pytest.raises(FileExistsError):
        backend._put("zarr.json", b"other", mode="create")


def test_lost_and_changed_objects_in_a_bucket_are_named(s3_store: str) -> None:
    write(s3_store, "a")
    bucket = from_url(s3_store, client_options={"allow_http": True})
    path = next(path for path in objects_of(s3_store) if "/scores/c/" in path)
    data = bytes(obstore.get(bucket, path).bytes())
    obstore.put(bucket, path, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert [fault.array for fault in verify_group(LabelStore.open(s3_store), "a", deep=True)] == ["scores"]
    obstore.delete(bucket, path)
    with pytest.raises(DamagedStoreError, match=r"s3://bucket/.*/scores/c/.*: damaged \(missing\)"):
        LabelStore.open(s3_store).group("a")


def test_objects_that_vanish_after_opening_are_never_read_as_labels(s3_store: str) -> None:
    write(s3_store, "a")
    group = LabelStore.open(s3_store).group("a")
    group.read(0, 1)
    bucket = from_url(s3_store, client_options={"allow_http": True})
    obstore.delete(bucket, [path for path in objects_of(s3_store) if "/c/" in path])
    with pytest.raises(StoreReadError, match="was replaced or changed while it was open"):
        group.read()


def test_other_teachers_store_in_a_bucket_is_left_alone(s3_store: str) -> None:
    write(s3_store, "a")
    other = make_schema(digest="other")
    assert set_aside_other(s3_store, other, {"a"}) is None
    with pytest.raises(StoreMismatchError, match="another teacher"):
        StoreWriter.open(s3_store, other)
    occupied = s3_store.rpartition("/")[0]
    with pytest.raises(StoreMismatchError, match="not a label store and not empty"):
        StoreWriter.open(occupied, SCHEMA)


def test_store_copied_into_a_bucket_object_by_object_is_a_store(s3_store: str, tmp_path: Path) -> None:
    write(tmp_path / "labels.zarr", "a")
    bucket = from_url(s3_store, client_options={"allow_http": True})
    for file in (tmp_path / "labels.zarr").rglob("*"):
        if file.is_file():
            obstore.put(bucket, file.relative_to(tmp_path / "labels.zarr").as_posix(), file.read_bytes())
    check_group(s3_store, "a", 0)
    assert not verify_group(LabelStore.open(s3_store), "a", deep=True)


def test_store_copied_out_of_a_bucket_is_a_store(s3_store: str, tmp_path: Path) -> None:
    write(s3_store, "a")
    bucket = from_url(s3_store, client_options={"allow_http": True})
    for path in objects_of(s3_store):
        file = tmp_path / "labels.zarr" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(obstore.get(bucket, path).bytes()))
    check_group(tmp_path / "labels.zarr", "a", 0)
    assert not verify_group(LabelStore.open(tmp_path / "labels.zarr"), "a", deep=True)


def test_web_server_is_read_by_group_and_never_written(tmp_path: Path) -> None:
    write(tmp_path / "labels.zarr", "a")
    with web_server(tmp_path) as url:
        check_group(f"{url}/labels.zarr", "a", 0)
        store = LabelStore.open(f"{url}/labels.zarr")
        assert np.array_equal(store.group("a").row(66).scores, make_labels(SCHEMA, ROWS, 0).scores[66])
        assert ("a" in store, "b" in store) == (True, False)
        with pytest.raises(StoreReadError, match="a web server cannot list its groups; name one"):
            store.names()
        with pytest.raises(StoreNotFoundError, match="no label store here"):
            LabelStore.open(f"{url}/nothing")
        with pytest.raises(RelabelError, match="web server"):
            StoreWriter.open(f"{url}/new.zarr", SCHEMA)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/labels.zarr", "http://127.0.0.1:1/labels.zarr/zarr.json: cannot be read: "),
        ("s3://", "not a URL of an object store"),
        ("nothing://a/b", "not a URL of an object store"),
        ("https://me:secret@example.org/labels.zarr", "credentials: give them in the environment"),
        ("file:///labels.zarr", "give a path"),
        ("s3://buc\x1b[31m ket/\0", "not a URL of an object store"),
    ],
)
def test_url_that_leads_nowhere_is_one_line(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.storage.bucket.RETRIES", {"max_retries": 0})
    result = CliRunner().invoke(main, ["show", url])
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not any(word in result.output for word in ("secret", "\x1b", "Traceback"))


def test_missing_bucket_is_named(s3_store: str) -> None:
    with pytest.raises(StoreWriteError, match=r"s3://nobody/labels\.zarr.*cannot be written"):
        write("s3://nobody/labels.zarr", "a")


def open_in_fork(location: str, _: LabelGroup) -> None:
    LabelStore.open(location)


def read_in_fork(_: str, group: LabelGroup) -> None:
    group.read(0, 1)


def refused_in_fork(action: Callable[[str, LabelGroup], None], location: str, group: LabelGroup) -> None:
    try:
        action(location, group)
    except StoreReadError as error:
        raise SystemExit(3 if "start workers with forkserver or spawn" in str(error) else 4) from None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads, which is the point
@pytest.mark.parametrize("action", [open_in_fork, read_in_fork])
def test_fork_after_a_bucket_was_opened_is_an_error_instead_of_a_hang(
    s3_store: str, action: Callable[[str, LabelGroup], None]
) -> None:
    write(s3_store, "a")
    group = LabelStore.open(s3_store).group("a")
    group.read(0, 1)
    child = multiprocessing.get_context("fork").Process(target=refused_in_fork, args=(action, s3_store, group))
    child.start()
    child.join(30)
    assert child.exitcode == 3


def other_root(location: str) -> bytes:
    """Replace the root as a person would who starts a store of another teacher there; returns the old one."""
    bucket = from_url(location, client_options={"allow_http": True})
    before = bytes(obstore.get(bucket, "zarr.json").bytes())
    obstore.put(bucket, "zarr.json", before.replace(b"d1gest", b"other!"))
    return before


@pytest.mark.parametrize("overwrite", [False, True])
def test_group_is_never_reported_as_written_into_another_teachers_store(s3_store: str, *, overwrite: bool) -> None:
    StoreWriter.open(s3_store, SCHEMA)
    writer = StoreWriter.open(s3_store, SCHEMA)
    bucket = from_url(s3_store, client_options={"allow_http": True})
    before = other_root(s3_store)
    labels = make_labels(SCHEMA, ROWS)
    with pytest.raises(StoreMismatchError, match="was replaced or changed while it was open"):
        writer.write("a", labels, tar=TAR, provenance=PROVENANCE, overwrite=overwrite)
    assert objects_of(s3_store) == {"zarr.json"}
    obstore.put(bucket, "zarr.json", before)
    writer.write("a", labels, tar=TAR, provenance=PROVENANCE, overwrite=overwrite)
    check_group(s3_store, "a", 0)


def test_root_that_is_replaced_at_the_last_moment_is_an_error(s3_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = CloudBackend._put

    def late(backend: CloudBackend, path: str, data: bytes, *, mode: Any = "overwrite") -> None:
        if path == "a/zarr.json":
            other_root(s3_store)
        put(backend, path, data, mode=mode)

    writer = StoreWriter.open(s3_store, SCHEMA)
    monkeypatch.setattr(CloudBackend, "_put", late)
    with pytest.raises(StoreMismatchError, match="was replaced or changed while it was open"):
        writer.write("a", make_labels(SCHEMA, ROWS), tar=TAR, provenance=PROVENANCE)
    with pytest.raises(DamagedStoreError, match="root attributes were changed"):
        LabelStore.open(s3_store).group("a")


def test_record_that_another_writer_put_meanwhile_is_not_replaced(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(s3_store, "a", 1)
    put = CloudBackend._put

    def late(backend: CloudBackend, path: str, data: bytes, *, mode: Any = "overwrite") -> None:
        if path == "a/zarr.json":
            monkeypatch.setattr(CloudBackend, "_put", put)
            write(s3_store, "a", 2, overwrite=True)
        put(backend, path, data, mode=mode)

    monkeypatch.setattr(CloudBackend, "_put", late)
    with pytest.raises(GroupExistsError):
        write(s3_store, "a", 3, overwrite=True)
    check_group(s3_store, "a", 2)
