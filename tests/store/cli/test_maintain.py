"""`relabel-store verify`, `gc` and `merge` on damage that was really done."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from store.cli.main import main
from store.errors import LabelMapError, StoreReadError
from store.reader import LabelStore
from store.shards.index import image_digest, index_shard
from store.storage.base import NewGroup
from store.storage.local import LocalBackend
from store.writer import GroupLabels, StoreWriter
from tests.builders.golden import FOLDER
from tests.builders.stores import (
    PROVENANCE,
    TAR,
    make_labels,
    make_members,
    make_schema,
    replace_array,
    reseal,
    write,
    write_tar,
)

SCHEMA = make_schema()
ROWS = 70
PROCESSES = multiprocessing.get_context("forkserver")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def faults(path: Path, *options: object) -> list[tuple[str, str | None]]:
    """Group and array of every fault; the exit status must say the same."""
    result = call("verify", path, "--json", *options)
    found = json.loads(result.stdout.splitlines()[0])["faults"]
    assert result.exit_code == (1 if found else 0), result.output
    return [(fault["group"], fault["array"]) for fault in found]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "labels.zarr"
    write(path, "a", 1)
    write(path, "b", 2)
    return path


def object_files(path: Path, group: str = "a") -> list[Path]:
    return sorted(file for file in (path / group).rglob("*") if file.is_file())


def array_of(path: Path, file: Path) -> str | None:
    name = file.relative_to(path / "a").parts[0]
    return None if name == "zarr.json" else name


def test_whole_store_is_called_whole(path: Path) -> None:
    result = call("verify", path, "--deep")
    assert (result.exit_code, result.output) == (0, f"{path}: 2 groups checked (every byte and value)\n")
    assert "sizes only; --deep reads every byte" in call("verify", path).output


@pytest.mark.parametrize("damage", ["empty", "deleted", "truncated", "grown"])
def test_every_object_of_another_size_is_found_and_named_by_sizes_alone(path: Path, damage: str) -> None:
    for file in object_files(path):
        whole = file.read_bytes()
        if damage == "deleted":
            file.unlink()
        else:
            file.write_bytes({"empty": b"", "truncated": whole[:-1], "grown": whole + b"\0"}[damage])
        name = array_of(path, file)
        found = faults(path)
        assert found == [("a", name)]
        file.write_bytes(whole)
    assert faults(path, "--deep") == []


def test_every_flipped_bit_is_found_and_named(path: Path) -> None:
    flip_bits(path, 60)


@pytest.mark.slow
def test_every_one_of_500_flipped_bits_is_found_and_named(path: Path) -> None:
    flip_bits(path, 500)


def flip_bits(path: Path, count: int) -> None:
    """Flips single bits, each file in turn, and checks that `verify --deep` names it and reading never gives labels."""
    dice, files = random.Random(0), object_files(path)
    expected = make_labels(SCHEMA, ROWS, 1)
    for i in range(count):
        file = files[i % len(files)]
        whole = file.read_bytes()
        changed = bytearray(whole)
        changed[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        file.write_bytes(changed)
        name = array_of(path, file)
        found = faults(path, "--deep")
        assert found == [("a", name)]
        read_or_raise(path, expected)
        file.write_bytes(whole)
    assert faults(path, "--deep") == []


def read_or_raise(path: Path, expected: GroupLabels) -> None:
    try:
        group = LabelStore.open(path).group("a")
        maps = group.read()
        found: list[Any] = [maps.classes, maps.scores, maps.tail_logsumexp, group.offsets, group.digests, group.labels]
        found += [group.row(i).scores for i in (0, 69)]
        keys = tuple(group.keys)
    except (ValueError, LookupError):
        return
    wanted: list[Any] = [expected.classes, expected.scores, expected.tail_logsumexp, expected.offsets, expected.digests]
    wanted += [expected.labels, expected.scores[0], expected.scores[69]]
    assert keys == expected.keys
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_swapped_objects_are_found(path: Path) -> None:
    for name in ("classes", "scores", "tail", "keys", "offsets", "digests", "targets"):
        ours, theirs = (
            next(file for file in object_files(path, group) if f"/{group}/{name}/c/" in str(file)) for group in "ab"
        )
        first, second = ours.read_bytes(), theirs.read_bytes()
        ours.write_bytes(second)
        theirs.write_bytes(first)
        assert faults(path, "--deep") == [("a", name), ("b", name)]
        ours.write_bytes(first)
        theirs.write_bytes(second)


MAPS = (ROWS, SCHEMA.top_k, *SCHEMA.map_size)
RANKS = np.arange(SCHEMA.top_k, dtype=np.uint16)[:, None, None]


@pytest.mark.parametrize(
    ("name", "values", "array"),
    [
        ("scores", np.broadcast_to(RANKS.astype(np.float16), MAPS), "scores"),
        ("scores", np.full(MAPS, np.inf, np.float16), "scores"),
        ("classes", np.zeros(MAPS, np.uint16), "classes"),
        ("classes", np.full(MAPS, 20, np.uint16) + RANKS, "classes"),
        ("tail", np.full((ROWS, *SCHEMA.map_size), np.nan, np.float16), "tail"),
        ("targets", np.full(ROWS, -2, np.int32), "targets"),
        ("offsets", np.full((ROWS, 2), 1 << 63, np.uint64), "offsets"),
    ],
)
def test_values_that_no_writer_of_ours_would_write_are_found(
    path: Path, name: str, values: "np.typing.NDArray[np.generic]", array: str | None
) -> None:
    replace_array(path, name, values)
    assert faults(path) == []
    assert faults(path, "--deep") == [("a", array)]


def shard_and_labels(folder: Path, count: int = 5) -> tuple[Path, Path]:
    """An image shard and a store of random maps for it."""
    shard, path = write_tar(folder / "s.tar", make_members(count)), folder / "labels.zarr"
    index, data = index_shard(shard, hashed=True), shard.read_bytes()
    labels = make_labels(SCHEMA, count)
    images = [data[sample.offset : sample.offset + sample.length] for sample in index.samples]
    labels = GroupLabels(
        **{name: getattr(labels, name) for name in ("classes", "scores", "tail_logsumexp")},
        labels=np.array([sample.label for sample in index.samples], np.int32),
        keys=tuple(sample.key for sample in index.samples),
        offsets=np.array([(sample.offset, sample.length) for sample in index.samples], np.uint64),
        digests=np.array([image_digest(image) for image in images], np.uint64),
    )
    tar = index.identity()
    StoreWriter.open(path, SCHEMA).write("s", labels, tar=tar, provenance=PROVENANCE)
    return shard, path


def test_shards_are_compared_with_their_labels_image_by_image(tmp_path: Path) -> None:
    shard, path = shard_and_labels(tmp_path)
    result = call("verify", path, "--shards", shard)
    assert (result.exit_code, "1 image shards compared" in result.output) == (0, True)
    offset = int(LabelStore.open(path).group("s").offsets[3, 0])
    data = bytearray(shard.read_bytes())
    data[offset + 300] ^= 1
    shard.write_bytes(data)
    result = call("verify", path, "--shards", shard)
    assert result.exit_code == 1
    assert f"s/digests: {shard}: 1 images are not those that were annotated: 'img0003'\n" in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: write_tar(shard, make_members(4)), "1 images are not those that were annotated: 'img0004'"),
        (lambda shard: write_tar(shard, make_members(6)), "1 images are not those that were annotated: 'img0005'"),
        (lambda shard: write_tar(shard, make_members(5, first=3)), "6 images are not those"),
        (lambda shard: shard.write_bytes(shard.read_bytes() + b"\0" * 512), "every image is the same"),
        (lambda shard: write_tar(shard, [("img0000.txt", b"x"), *make_members(5)]), "the same images at other offsets"),
        (lambda shard: write_tar(shard, make_members(5)[2:] + make_members(1)), "the same images at other offsets"),
        (lambda shard: os.truncate(shard, 2000), "truncated"),
    ],
)
def test_shard_that_is_another_is_named(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    shard, path = shard_and_labels(tmp_path)
    change(shard)
    result = call("verify", path, "--shards", shard)
    assert result.exit_code == 1
    assert message in result.output


def test_groups_whose_shards_were_not_given_are_counted(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shard, _ = shard_and_labels(other)
    result = call("verify", path, "--shards", shard)
    assert result.exit_code == 1
    assert "no labels for the shard 's'" in result.output
    assert "2 groups whose image shards were not given: 'a', 'b'" in result.output


def test_gc_removes_old_attempts_only(path: Path) -> None:
    assert call("gc", path).output == "0 bytes gained\n"
    old, new = (path.with_name("labels.zarr.partial") / f"c.{i:016x}" for i in range(2))
    for attempt in (old, new):
        (attempt / "classes").mkdir(parents=True)
        (attempt / "classes" / "zarr.json").write_bytes(b"x" * 100)
    for file in (old, old / "classes", old / "classes" / "zarr.json"):
        os.utime(file, (time.time() - 90_000,) * 2)
    assert call("gc", path, "--dry-run").output == f"would remove: {old} (100 bytes)\n100 bytes to gain\n"
    assert old.exists()
    assert call("gc", path).output == f"remove: {old} (100 bytes)\n100 bytes gained\n"
    assert (old.exists(), new.exists()) == (False, True)
    call("gc", path, "--older-than", "0")
    assert list(path.parent.iterdir()) == [path]
    assert faults(path, "--deep") == []


def hold(path: Path, started: str) -> None:
    def record(_: str) -> bytes:
        Path(started).touch()
        time.sleep(60)
        return b""

    group = NewGroup(objects={"keys/c/0": b"x"}, record=record, check_root=lambda _: None)
    LocalBackend(path).publish("c", group, overwrite=False)


def test_gc_leaves_a_running_writer_alone_and_takes_what_it_leaves_when_killed(path: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    writer = PROCESSES.Process(target=hold, args=(path, str(started)))
    writer.start()
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert call("gc", path, "--older-than", "0").output == "0 bytes gained\n"
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert call("gc", path, "--older-than", "0").output.endswith("1 bytes gained\n")


def test_gc_puts_a_group_back_whose_writer_was_killed_while_replacing_it(path: Path) -> None:
    kept = path.with_name("labels.zarr.partial") / "a.0123456789abcdef.replaced"
    kept.parent.mkdir()
    (path / "a").rename(kept)
    assert "would put back as a: " in call("gc", path, "--older-than", "0", "--dry-run").output
    assert LabelStore.open(path).names() == ["b"]
    call("gc", path, "--older-than", "0")
    assert LabelStore.open(path).names() == ["a", "b"]
    assert faults(path, "--deep") == []
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("copy", [shutil.copytree, lambda a, b: os.system(f"cp -r {a} {b}")])
def test_store_copied_group_by_group_verifies_at_its_new_place(path: Path, copy: Callable[..., object]) -> None:
    new = path.with_name("moved.zarr")
    new.mkdir()
    shutil.copy(path / "zarr.json", new)
    for name in "ab":
        copy(path / name, new / name)
    assert faults(new, "--deep") == []
    assert LabelStore.open(new).names() == ["a", "b"]


def test_merge_joins_stores_of_one_teacher_and_skips_what_is_there(path: Path, tmp_path: Path) -> None:
    other, into = tmp_path / "other.zarr", tmp_path / "joined.zarr"
    for name, seed in (("b", 2), ("c", 3)):
        write(other, name, seed)
    result = call("merge", path, other, "--into", into)
    assert (result.exit_code, result.stdout) == (0, f"{into}: 3 groups copied, 1 were there already, 0 are damaged\n")
    assert (
        call("merge", path, other, "--into", into).stdout
        == f"{into}: 0 groups copied, 4 were there already, 0 are damaged\n"
    )
    assert faults(into, "--deep") == []
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        assert np.array_equal(LabelStore.open(into).group(name).read().scores, make_labels(SCHEMA, ROWS, seed).scores)


def test_merge_into_a_bucket_and_back(path: Path, s3_store: str, tmp_path: Path) -> None:
    assert call("merge", path, "--into", s3_store).exit_code == 0
    assert call("merge", s3_store, "--into", tmp_path / "back.zarr").exit_code == 0
    assert faults(tmp_path / "back.zarr", "--deep") == []
    assert LabelStore.open(tmp_path / "back.zarr").names() == ["a", "b"]
    assert "0 bytes gained" in call("gc", s3_store, "--older-than", "1").output


def test_merge_refuses_what_does_not_belong_together_before_it_writes(path: Path, tmp_path: Path) -> None:
    into = tmp_path / "joined.zarr"
    others = {name: tmp_path / f"{name}.zarr" for name in ("teacher", "names", "shard")}
    StoreWriter.open(others["teacher"], make_schema(digest="other"))
    StoreWriter.open(others["names"], replace(SCHEMA, class_names=tuple(f"x{i}" for i in range(20))))
    named = tmp_path / "named.zarr"
    StoreWriter.open(named, replace(SCHEMA, class_names=tuple(f"y{i}" for i in range(20))))
    writer = StoreWriter.open(others["shard"], SCHEMA)
    tar = replace(TAR, sha256="11")
    writer.write("a", make_labels(SCHEMA, 3), tar=tar, provenance={})
    for sources, message in (
        ((path, others["teacher"]), "made differently than"),
        ((named, others["names"]), "class_names: others than in"),
        ((path, others["shard"]), "made from another image shard than"),
        ((path, tmp_path / "nowhere.zarr"), "no label store here"),
    ):
        result = call("merge", *sources, "--into", into)
        assert (result.exit_code, into.exists()) == (1, False)
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_merge_never_copies_damage(path: Path, tmp_path: Path) -> None:
    file = next(file for file in object_files(path, "b") if "/scores/c/" in str(file))
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    result = call("merge", path, "--into", tmp_path / "joined.zarr")
    assert result.exit_code == 1
    assert "scores/c/0/0/0/0: damaged (other bytes than were written)" in result.stderr
    assert "1 groups copied, 0 were there already, 1 are damaged" in result.stdout
    assert LabelStore.open(tmp_path / "joined.zarr").names() == ["a"]


def read_group(path: str) -> None:
    group = LabelStore.open(path).group("a")
    raise SystemExit(0 if np.array_equal(group.read().scores, make_labels(SCHEMA, ROWS, 1).scores) else 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with threads, which is the point
def test_process_that_has_read_a_store_forks_workers_that_read_it_too(path: Path) -> None:
    assert len(LabelStore.open(path).group("a").read().classes) == ROWS
    workers = [multiprocessing.get_context("fork").Process(target=read_group, args=(str(path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_show_and_ls_list_the_groups_with_their_sizes(path: Path) -> None:
    shown = json.loads(call("show", path, "--json").output)
    assert (shown["rows"], len(shown["groups"]), shown["damaged"]) == (140, 2, [])
    assert shown["bytes"] == sum(array["bytes"] for array in shown["arrays"])
    raw = {array["name"]: array["raw_bytes"] for array in shown["arrays"]}
    assert (raw["classes"], raw["scores"], raw["tail"]) == (140 * 24 * 2, 140 * 24 * 2, 140 * 8 * 2)
    listed = json.loads(call("ls", path, "--json").output)
    assert [group["name"] for group in listed] == ["a", "b"]
    assert listed == shown["groups"]
    for command in ("show", "ls"):
        assert call(command, path).exit_code == 0


def test_damaged_group_is_listed_as_such_and_the_exit_status_says_so(path: Path) -> None:
    (path / "a" / "zarr.json").write_text("{")
    for command in ("show", "ls"):
        result = call(command, path)
        assert result.exit_code == 1
        assert "1 of 2 groups are damaged; the first: " in result.stderr
    assert "damaged" in call("ls", path).stdout
    assert call("show", path, "seed2/row0003").exit_code == 0


def test_record_that_is_lost_is_a_fault_and_its_arrays_are_never_deleted_by_the_next_writer(path: Path) -> None:
    record = path / "a" / "zarr.json"
    whole = record.read_text()
    record.write_text(whole.replace("relabel.commit", "relabel.comMit"))
    assert faults(path) == [("a", None)]
    scores = (path / "a" / "scores" / "c" / "0" / "0" / "0" / "0").read_bytes()
    write(path, "a", 5)
    assert LabelStore.open(path).group("a").keys[0].startswith("seed5/")
    [kept] = path.with_name("labels.zarr.partial").iterdir()
    assert (kept / "scores" / "c" / "0" / "0" / "0" / "0").read_bytes() == scores
    assert "1 groups" not in call("gc", path).output
    assert kept.exists()


def test_gc_prefers_the_whole_copy_to_half_a_group(path: Path) -> None:
    kept = path.with_name("labels.zarr.partial") / "a.0123456789abcdef.replaced"
    kept.parent.mkdir()
    (path / "a").rename(kept)
    (path / "a" / "keys").mkdir(parents=True)  # an interrupted copy
    call("gc", path, "--older-than", "0")
    assert LabelStore.open(path).group("a").keys[0].startswith("seed1/")
    assert faults(path, "--deep") == []


def test_gc_minds_nothing_but_attempts(path: Path) -> None:
    partial = path.with_name("labels.zarr.partial")
    partial.mkdir()
    (partial / ".DS_Store").write_bytes(b"x")
    (partial / "thesis").mkdir()
    assert call("gc", path, "--older-than", "0").output == "0 bytes gained\n"
    assert len(list(partial.iterdir())) == 2


def test_gc_removes_a_killed_writers_lease_and_keeps_a_held_one(path: Path) -> None:
    lease = path.with_name("labels.zarr.partial") / "c.lease"
    lease.parent.mkdir()
    lease.touch()
    with LocalBackend(path).lease("a") as is_ours, LocalBackend(path).lease("a") as is_theirs:
        assert (is_ours, is_theirs) == (True, False)
        assert call("gc", path, "--older-than", "0").output == f"remove: {lease} (0 bytes)\n0 bytes gained\n"
    assert not lease.parent.exists()


def test_disk_that_cannot_lock_spares_young_attempts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    attempt = path.with_name("labels.zarr.partial") / "c.0123456789abcdef"
    attempt.mkdir(parents=True)
    monkeypatch.setattr("fcntl.flock", unable)
    write(path, "d", 4)
    assert call("gc", path, "--older-than", "0").output == "0 bytes gained\n"
    os.utime(attempt, (time.time() - 4000,) * 2)
    assert call("gc", path, "--older-than", "0").output.startswith(f"remove: {attempt}")


def test_reader_that_is_open_while_its_group_is_replaced_is_told_so(path: Path) -> None:
    opened = LabelStore.open(path).group("a")
    opened.read(0, 1)
    unopened = LabelStore.open(path).group("a")
    write(path, "a", 5, overwrite=True)
    for group in (opened, unopened):
        with pytest.raises(StoreReadError, match="was replaced or changed while it was open"):
            group.read()
    assert LabelStore.open(path).group("a").row(0).key.startswith("seed5/")


@pytest.mark.parametrize("change", [{"mean": [0, 0, 0]}, {"comment": "by another program"}])
def test_root_that_another_program_wrote_is_sealed_as_it_lies(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["relabel"] |= {name: value for name, value in change.items() if name == "comment"}
    document["attributes"]["relabel"]["view"] |= {name: value for name, value in change.items() if name == "mean"}
    (path / "zarr.json").write_text(json.dumps(document))
    store = LabelStore.open(path)
    StoreWriter(store, store.schema).write("a", make_labels(SCHEMA, 3), tar=TAR, provenance=PROVENANCE)
    assert faults(path, "--deep") == []


def test_merge_checks_what_it_merges_into_before_it_writes(path: Path, tmp_path: Path) -> None:
    into = tmp_path / "joined.zarr"
    writer = StoreWriter.open(into, SCHEMA)
    writer.write("b", make_labels(SCHEMA, 3), tar=replace(TAR, sha256="11"), provenance={})
    result = call("merge", path, "--into", into)
    assert (result.exit_code, LabelStore.open(into).names()) == (1, ["b"])
    assert "made from another image shard than" in result.stderr
    named, bare = tmp_path / "named.zarr", tmp_path / "bare.zarr"
    StoreWriter.open(named, replace(SCHEMA, class_names=tuple(f"x{i}" for i in range(20))))
    StoreWriter.open(bare, SCHEMA)
    assert "has no class names, the others have; merge into a new store" in call("merge", named, "--into", bare).stderr


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keys": ("", "b", "c")}, "keys that are empty"),
        ({"labels": np.array([0, -2, 1], np.int32)}, "labels below -1"),
        ({"offsets": np.full((3, 2), 1 << 62, np.uint64)}, "images beyond the end of their tar"),
    ],
)
def test_writers_refuse_what_verify_would_call_a_fault(path: Path, fields: dict[str, Any], message: str) -> None:
    labels = make_labels(SCHEMA, 3)
    values = {name: getattr(labels, name) for name in GroupLabels.__slots__} | fields
    writer = StoreWriter.open(path, SCHEMA)
    with pytest.raises(LabelMapError, match=message):
        writer.write("c", GroupLabels(**values), tar=TAR, provenance=PROVENANCE)


@pytest.mark.parametrize("damage", ["gone", "record", "whole"])
def test_gc_never_puts_back_what_is_no_group_nor_touches_a_damaged_one(path: Path, damage: str) -> None:
    empty = path.with_name("labels.zarr.partial") / "a.0123456789abcdef.replaced"
    empty.mkdir(parents=True)
    (empty.parent / "zarr.json.0123456789abcdef.replaced").mkdir()
    if damage == "gone":
        shutil.rmtree(path / "a")
    elif damage == "record":
        (path / "a" / "zarr.json").write_text("{")
    before = {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert "put back" not in call("gc", path, "--older-than", "0").output
    assert {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert (path / "a").exists() == (damage != "gone")


def test_gc_follows_no_links_and_trips_over_none(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "c.0123456789abcdef").mkdir(parents=True)
    partial = path.with_name("labels.zarr.partial")
    partial.symlink_to(victim)
    assert call("gc", path, "--older-than", "0").output == "0 bytes gained\n"
    partial.unlink()
    partial.mkdir()
    (partial / "a.0123456789abcdef").symlink_to(victim)
    (partial / "b.0123456789abcdef").mkdir()
    (partial / "b.0123456789abcdef" / "loop").symlink_to("loop")
    assert call("gc", path, "--older-than", "0").exit_code == 0
    assert not (partial / "b.0123456789abcdef").exists()
    assert (victim / "c.0123456789abcdef").exists()


def make_folder(file: Path) -> None:
    file.mkdir()


def make_loop(file: Path) -> None:
    file.symlink_to(file.name)


@pytest.mark.parametrize("make", [make_folder, make_loop, os.mkfifo])
def test_one_group_that_cannot_be_opened_hides_no_other(path: Path, make: Callable[[Path], None]) -> None:
    (path / "a" / "zarr.json").unlink()
    make(path / "a" / "zarr.json")
    next(file for file in object_files(path, "b") if "/scores/c/" in str(file)).write_bytes(b"")
    assert faults(path) == [("a", None), ("b", "scores")]
    assert call("ls", path).exit_code == 1
    assert call("merge", path, "--into", path.with_name("joined.zarr")).exit_code == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tail_that_is_no_number_is_never_read(path: Path, value: float) -> None:
    tail_logsumexp = make_labels(SCHEMA, ROWS, 1).tail_logsumexp
    assert tail_logsumexp is not None
    tail_logsumexp[3, 0, 0] = value
    replace_array(path, "tail", tail_logsumexp)
    assert faults(path, "--deep") == [("a", "tail")]
    assert "array 'tail' is damaged" in call("show", path, "seed1/row0003").stderr


@pytest.mark.parametrize("into", ["labels.zarr/sub", "labels.zarr/a/sub", "."])
def test_merge_into_a_folder_of_a_source_or_around_it_is_refused(path: Path, into: str) -> None:
    result = call("merge", path, "--into", path.parent / into)
    assert (result.exit_code, "or around it; choose a folder beside it" in result.stderr) == (1, True)
    assert faults(path, "--deep") == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"map_size": [10**19, 10**19]}, "sides of 1 to 65535 cells"),
        (
            {"teacher": {"architecture": "a", "digest": "b", "arguments": {"x": [[[[[[[[[1]]]]]]]]]}}},
            "nested more than 8",
        ),
        ({"teacher": {"architecture": "a", "digest": "b", "arguments": {"x": float("nan")}}}, "NaN is not JSON"),
    ],
)
def test_hostile_root_is_one_line(path: Path, fields: dict[str, Any], message: str) -> None:
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["relabel"] |= fields
    (path / "zarr.json").write_text(json.dumps(document))
    for command in ("show", "ls", "verify"):
        result = call(command, path)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert message in result.stderr


def test_zarr_json_without_end_is_refused_unread(path: Path) -> None:
    os.truncate(path / "a" / "zarr.json", 1 << 42)  # sparse
    assert faults(path) == [("a", None)]
    os.truncate(path / "zarr.json", 1 << 42)
    assert "none of ours is larger than" in call("show", path).stderr


@pytest.mark.parametrize("arguments", [["audit", "--threshold", "nan"], ["gc", "--older-than", "nan"]])
def test_nan_is_no_number_of_hours_or_share(path: Path, arguments: list[str]) -> None:
    assert call(arguments[0], path, *arguments[1:]).exit_code == 2


def test_merge_names_a_group_whose_record_is_lost_and_copies_the_others(path: Path, tmp_path: Path) -> None:
    (path / "a" / "zarr.json").unlink()
    result = call("merge", path, "--into", tmp_path / "joined.zarr")
    assert result.exit_code == 1
    assert re.search(r"^a: damaged .*labels\.zarr/a: no commit record: lost", result.stderr, re.M)
    assert "1 groups copied, 0 were there already, 1 are damaged" in result.stdout
    assert LabelStore.open(tmp_path / "joined.zarr").names() == ["b"]


def test_merge_gives_records_without_a_name_one(tmp_path: Path) -> None:
    """Groups of earlier releases get the protection against exchanged folders."""
    assert call("merge", FOLDER, "--into", tmp_path / "joined.zarr").exit_code == 0
    assert LabelStore.open(FOLDER).group("train-0000").commit.group is None
    assert LabelStore.open(tmp_path / "joined.zarr").group("train-0000").commit.group == "train-0000"


def test_disk_that_fails_is_no_reason_to_annotate_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = LocalBackend.read

    def failing(backend: LocalBackend, object_path: str, limit: int) -> object:
        if object_path == "a/keys/c/0":
            raise OSError(5, "Input/output error")
        return read(backend, object_path, limit)

    monkeypatch.setattr(LocalBackend, "read", failing)
    result = call("verify", path, "--deep")
    assert result.exit_code == 1
    assert "a/keys/c/0: cannot be read: Input/output error" in result.stdout
    assert "1 fault in 1 group; 'a' could not be read, which says nothing of the labels" in result.stderr
    assert "annotate" not in result.stderr
    (path / "b" / "keys" / "c" / "0").write_bytes(b"")
    assert (
        "annotate the shards of 'b' again (--overwrite with only these shards); 'a'"
        in call("verify", path, "--deep").stderr
    )


def test_exchanged_groups_and_those_of_another_teacher_are_faults(path: Path) -> None:
    reseal(path, {"teacher_digest": "other"})
    assert faults(path) == [("a", None)]
    reseal(path, {"teacher_digest": "d1gest"})
    for source, target in (("a", "x"), ("b", "a"), ("x", "b")):
        (path / source).rename(path / target)
    assert faults(path, "--deep") == [("a", None), ("b", None)]


def test_text_of_millions_of_characters_is_printed_cut(path: Path) -> None:
    bad = [{"row": 3, "key": "seed1/row0003", "reason": "r" * 10_000_000}]
    reseal(path, {"quarantined": bad, "provenance": {"timm": "p" * 10_000_000}})
    for arguments in (("show", path, "a"), ("show", path, "seed1/row0003"), ("verify", path, "--deep")):
        assert len(call(*arguments).output) < 50_000
