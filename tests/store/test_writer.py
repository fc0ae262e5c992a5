"""What a killed writer, a full disk or flipped bits do to a store."""

import dataclasses
import errno
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from store.cli.main import main
from store.errors import (
    DamagedStoreError,
    FormatVersionError,
    GroupExistsError,
    LabelMapError,
    LabelNotFoundError,
    RelabelError,
    ShardError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreWriteError,
)
from store.files import locked
from store.reader import LabelStore
from store.storage import commit, rename
from store.storage.base import NewGroup
from store.storage.local import LocalBackend
from store.writer import GroupLabels, StoreWriter, set_aside_other
from tests.builders.mortal import unsupported, without_exchange
from tests.builders.stores import PROVENANCE, ROWS, SCHEMA, TAR, make_labels, make_schema, replace_array, reseal, write

PROCESSES = multiprocessing.get_context("forkserver")


def write_for_ever(path: Path, first: int) -> None:
    for seed in range(first, first + 10_000):
        write(path, f"shard-{seed:05}", seed)


def check_group(path: Path, name: str) -> None:
    expected = make_labels(SCHEMA, ROWS, int(name[6:]))
    group = LabelStore.open(path).group(name)
    rows = group.read()
    assert np.array_equal(rows.classes, expected.classes)
    assert np.array_equal(rows.scores, expected.scores)
    assert tuple(group.keys) == expected.keys
    assert np.array_equal(group.offsets, expected.offsets)


@pytest.mark.parametrize("kills", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_writer_never_leaves_a_group_that_cannot_be_read_back(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "labels.zarr"
    moments = random.Random(0)
    for attempt in range(kills):
        writer = PROCESSES.Process(target=write_for_ever, args=(path, attempt * 1000))
        writer.start()
        deadline = time.monotonic() + 30
        while not (path / f"shard-{attempt * 1000:05}").exists() and time.monotonic() < deadline:
            time.sleep(0.002)  # a first group proves that it is at work
        time.sleep(moments.uniform(0, 0.15))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    names = LabelStore.open(path).names()
    assert len(names) >= kills
    for name in names:
        check_group(path, name)
    write(path, "shard-99999", 99_999)  # leftovers of killed writers do not block others
    check_group(path, "shard-99999")


def race(path: Path, seed: int, barrier: object) -> None:
    labels = make_labels(SCHEMA, ROWS, seed)
    writer = StoreWriter.open(path, SCHEMA)
    barrier.wait()  # type: ignore[attr-defined]
    try:
        writer.write("a", labels, tar=TAR, provenance={"seed": str(seed)})
    except GroupExistsError:
        raise SystemExit(3) from None


def test_of_several_writers_of_one_group_one_wins_whole(tmp_path: Path) -> None:
    path, barrier = tmp_path / "labels.zarr", PROCESSES.Barrier(4)
    writers = [PROCESSES.Process(target=race, args=(path, seed, barrier)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(writer.exitcode or 0 for writer in writers) == [0, 3, 3, 3]
    group = LabelStore.open(path).group("a")
    expected = make_labels(SCHEMA, ROWS, int(group.commit.provenance["seed"]))
    assert np.array_equal(group.read().scores, expected.scores)
    assert list(tmp_path.iterdir()) == [path]


def test_group_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a", 1)
    with pytest.raises(GroupExistsError, match="already there; use --overwrite"):
        write(path, "a", 2)
    assert LabelStore.open(path).group("a").keys[0].startswith("seed1/")
    write(path, "a", 2, overwrite=True)
    assert LabelStore.open(path).group("a").keys[0].startswith("seed2/")
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_named_and_leaves_nothing_visible(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(StoreWriteError, match=r"labels\.zarr.*: cannot be written: File too large; nothing"):
            write(path, "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert LabelStore.open(path).names() == ["a"]
    assert list(tmp_path.iterdir()) == [path]


def write_as_nobody(path: Path) -> None:
    write(path.parent / "first.zarr", "a")  # so that late imports are done before the user changes
    shutil.rmtree(path.parent / "first.zarr")
    os.setuid(65_534)
    try:
        write(path, "a")
    except StoreWriteError as error:
        raise SystemExit(3 if "cannot be written: Permission denied" in str(error) else 4) from None


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user who may not write")
def test_read_only_place_is_one_clear_error() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        writer = PROCESSES.Process(target=write_as_nobody, args=(Path(folder) / "labels.zarr",))
        writer.start()
        writer.join()
        assert writer.exitcode == 3
        assert not list(Path(folder).iterdir())


def test_store_of_another_teacher_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    with pytest.raises(StoreMismatchError, match=r"another teacher or preprocessing \(teacher: .*\); choose"):
        StoreWriter.open(path, make_schema(digest="other"))
    with pytest.raises(StoreMismatchError, match="top_k: 3 in the store, 2 in this run"):
        StoreWriter.open(path, make_schema(top_k=2))
    assert set_aside_other(path, make_schema(digest="other"), {"b"}) is None
    check = LabelStore.open(path)
    assert (check.names(), check.schema) == (["a"], SCHEMA)


def test_store_of_another_teacher_is_set_aside_whole_when_all_its_groups_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    other = make_schema(digest="other")
    assert set_aside_other(path, other, {"a"}) is None
    write(path, "a")
    assert set_aside_other(path, SCHEMA, {"a"}) is None
    kept = set_aside_other(path, other, {"a", "b"})
    assert kept is not None
    assert LabelStore.open(kept).names() == ["a"]
    assert StoreWriter.open(path, other).schema == other
    assert sorted(map(str, tmp_path.iterdir())) == [str(path), kept]


def test_folder_without_a_commit_record_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    (path / "a" / "classes").mkdir(parents=True)
    (path / "a" / "classes" / "zarr.json").write_text("half a copy")
    assert LabelStore.open(path).names() == []
    write(path, "a")
    assert len(LabelStore.open(path).group("a").read().classes) == ROWS
    [kept] = path.with_name("labels.zarr.partial").iterdir()
    assert (kept / "classes" / "zarr.json").read_text() == "half a copy"


def test_store_that_is_replaced_or_removed_while_it_is_open_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    writer = StoreWriter.open(path, SCHEMA)
    for problem, expected in ((StoreMismatchError, "was replaced or changed"), (StoreNotFoundError, "no label store")):
        path.rename(tmp_path / expected)
        if problem is StoreMismatchError:
            StoreWriter.open(path, make_schema(digest="other"))
        with pytest.raises(problem, match=expected):
            writer.write("a", make_labels(SCHEMA, ROWS), tar=TAR, provenance=PROVENANCE)
        assert not (path / "a").exists()


class Swapped(LocalBackend):
    """A backend before whose commit, or just before whose rename, another teacher's writer replaces the store."""

    def publish(self, name: str, group: NewGroup, *, overwrite: bool) -> None:
        def record(prefix: str) -> bytes:
            replace_by_another_teachers(self.folder)
            return group.record(prefix)

        super().publish(name, dataclasses.replace(group, record=record), overwrite=overwrite)


def replace_by_another_teachers(path: Path) -> None:
    """What `--overwrite` with another teacher does, up to its first group."""
    other = make_schema(digest="other")
    assert set_aside_other(path, other, {"a"}) is not None
    StoreWriter.open(path, other).write("a", make_labels(other, ROWS, 7), tar=TAR, provenance=PROVENANCE)


@pytest.mark.parametrize("overwrite", [False, True])
def test_group_is_never_committed_into_another_teachers_store(tmp_path: Path, *, overwrite: bool) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    writer = StoreWriter(LabelStore.of(Swapped(path)), SCHEMA)
    with pytest.raises(StoreMismatchError, match="was replaced or changed while it was open"):
        writer.write("a", make_labels(SCHEMA, ROWS), tar=TAR, provenance=PROVENANCE, overwrite=overwrite)
    group = LabelStore.open(path).group("a")
    assert (group.schema.teacher.digest, group.keys[0]) == ("other", "seed7/row0000")


@pytest.mark.parametrize("overwrite", [False, True])
def test_store_that_is_replaced_at_the_last_moment_gets_its_group_where_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    path, renames = tmp_path / "labels.zarr", [rename.exchange, os.rename]
    write(path, "a", 1)
    before = StoreWriter.open(path, SCHEMA)

    def late(move: Callable[..., None]) -> Callable[..., None]:
        def renamed(*args: Any, **options: Any) -> None:
            monkeypatch.setattr(commit, "exchange", renames[0])
            monkeypatch.setattr(os, "rename", renames[1])
            replace_by_another_teachers(path)
            move(*args, **options)

        return renamed

    monkeypatch.setattr(commit, "exchange", late(rename.exchange))
    monkeypatch.setattr(os, "rename", late(os.rename))
    before.write("a" if overwrite else "b", make_labels(SCHEMA, ROWS, 2), tar=TAR, provenance=PROVENANCE,
                 overwrite=overwrite)  # fmt: skip
    [kept] = tmp_path.glob("*.replaced-*")
    assert LabelStore.open(path).group("a").keys[0].startswith("seed7/")
    assert LabelStore.open(path).names() == ["a"]
    assert LabelStore.open(kept).group("a" if overwrite else "b").keys[0].startswith("seed2/")


@pytest.mark.parametrize("overwrite", [False, True])
def test_disk_that_cannot_exchange_folders_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    without_exchange(monkeypatch)
    path = tmp_path / "labels.zarr"
    if overwrite:
        write(path, "a", 1)
    else:
        StoreWriter.open(path, SCHEMA)
        (path / "a" / "classes").mkdir(parents=True)  # half a copy makes way
    write(path, "a", 2, overwrite=overwrite)
    assert LabelStore.open(path).group("a").keys[0].startswith("seed2/")
    assert path.with_name("labels.zarr.partial").exists() != overwrite
    with pytest.raises(GroupExistsError):
        write(path, "a", 3)


def killed_between_renames(path: Path) -> None:
    """A writer on a disk that cannot exchange folders, killed while the group is out of the store."""
    move, patch = os.rename, pytest.MonkeyPatch()

    def dying(source: Any, target: Any, **folders: Any) -> None:
        move(source, target, **folders)
        if str(target).endswith(".replaced"):
            os.kill(os.getpid(), signal.SIGKILL)

    without_exchange(patch)
    patch.setattr(os, "rename", dying)
    write(path, "a", 2, overwrite=True)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A store whose writer was killed while it replaced group a."""
    path = tmp_path / "labels.zarr"
    write(path, "a", 1)
    write(path, "b", 5)
    writer = PROCESSES.Process(target=killed_between_renames, args=(path,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert LabelStore.open(path).names() == ["b"]
    return path


def test_group_of_a_writer_that_was_killed_while_replacing_it_is_put_back_by_the_next(interrupted: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(interrupted)])
    assert result.exit_code == 1
    assert re.search(r"^a: its writer was killed while replacing it; it is in .*\.replaced, and", result.output, re.M)
    writer = StoreWriter.open(interrupted, SCHEMA)
    assert writer.restored == ["a"]
    assert LabelStore.open(interrupted).group("a").keys[0].startswith("seed1/")
    assert StoreWriter.open(interrupted, SCHEMA).restored == []
    assert CliRunner().invoke(main, ["verify", str(interrupted), "--deep"]).exit_code == 0


def test_group_that_another_writer_is_replacing_is_not_put_back(interrupted: Path) -> None:
    [replaced] = interrupted.with_name("labels.zarr.partial").glob("*.replaced")
    with locked(replaced.with_name(replaced.name.removesuffix(".replaced")), wait=True):
        assert StoreWriter.open(interrupted, SCHEMA).restored == []
    assert StoreWriter.open(interrupted, SCHEMA).restored == ["a"]


def refuse(number: int) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_disk_without_hard_links_holds_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "link", refuse(number))
    path = tmp_path / "labels.zarr"
    write(path, "a")
    with pytest.raises(StoreMismatchError, match="another teacher"):
        StoreWriter.open(path, make_schema(digest="other"))
    LocalBackend(path).create_root(b"other")
    assert LabelStore.open(path).names() == ["a"]


def test_disk_that_has_neither_links_nor_renames_that_replace_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr("store.storage.local.rename_new", unsupported)
    path = tmp_path / "labels.zarr"
    with pytest.raises(StoreWriteError, match=r"labels\.zarr: this disk has neither hard links nor a rename"):
        StoreWriter.open(path, SCHEMA)
    assert not list(path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_link_to_nothing_in_a_groups_place_is_named_and_stays(tmp_path: Path, *, overwrite: bool) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    (path / "a").symlink_to("nowhere")
    with pytest.raises(StoreWriteError, match=r"labels\.zarr/a: a link to nothing where the label group should be"):
        write(path, "a", overwrite=overwrite)
    assert os.readlink(path / "a") == "nowhere"
    assert "a: no commit record" in CliRunner().invoke(main, ["verify", str(path)]).output


def test_link_to_a_group_elsewhere_is_replaced_and_the_group_there_stays(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "labels.zarr", tmp_path / "elsewhere"
    write(path, "a", 1)
    (path / "a").rename(elsewhere)
    (path / "a").symlink_to(elsewhere)
    write(path, "a", 2, overwrite=True)
    assert LabelStore.open(path).group("a").keys[0].startswith("seed2/")
    assert (elsewhere / "zarr.json").exists()
    assert not (path / "a").is_symlink()
    assert not path.with_name("labels.zarr.partial").exists()


@pytest.mark.parametrize("exchanging", [True, False])
def test_old_group_comes_back_when_it_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchanging: bool
) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a", 1)
    fail_to_fill(monkeypatch, "a", OSError(28, "No space left on device"), exchanging=exchanging)
    with pytest.raises(StoreWriteError, match=r"labels\.zarr/a: cannot be written: No space left"):
        write(path, "a", 2, overwrite=True)
    assert LabelStore.open(path).group("a").keys[0].startswith("seed1/")


def fail_to_fill(patch: pytest.MonkeyPatch, name: str, error: OSError, *, exchanging: bool) -> None:
    """A disk that refuses to give a group's name to an attempt."""
    rename = os.rename

    def refuse(*_: object) -> None:
        raise error

    def failing(source: Any, target: Any, **folders: Any) -> None:
        if target == name and not str(source).endswith(".replaced"):
            raise error
        rename(source, target, **folders)

    if exchanging:
        patch.setattr("store.storage.commit.exchange", refuse)
    else:
        without_exchange(patch)
        patch.setattr(os, "rename", failing)


def test_foreign_score_kinds_and_views_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    whole = (path / "zarr.json").read_text()
    for known, foreign, error, message in (
        (
            "centred_logit",
            "odds",
            FormatVersionError,
            "scores of the kind 'odds'; this release reads logit and centred",
        ),
        ("squash", "centre-crop", DamagedStoreError, "should be 'squash'.*, found"),
    ):
        (path / "zarr.json").write_text(whole.replace(f'"{known}"', f'"{foreign}"'))
        with pytest.raises(error, match=message):
            LabelStore.open(path)


def test_centred_scores_below_zero_are_not_written(tmp_path: Path) -> None:
    labels = make_labels(SCHEMA, 2)
    labels = replace(labels, scores=labels.scores - np.float16(10))
    with pytest.raises(LabelMapError, match="a: scores: centred scores below 0"):
        StoreWriter.open(tmp_path / "labels.zarr", SCHEMA).write("a", labels, tar=TAR, provenance=PROVENANCE)


def test_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreMismatchError, match="not a label store and not empty"):
        StoreWriter.open(tmp_path, SCHEMA)
    with pytest.raises(StoreNotFoundError, match="no label store here"):
        LabelStore.open(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_flipped_bits_are_never_read_as_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    expected = make_labels(SCHEMA, ROWS)
    files = [file for file in sorted((path / "a").rglob("*")) if file.is_file()]
    dice = random.Random(0)
    for _ in range(150):
        file = dice.choice(files)
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        file.write_bytes(damaged)
        try:
            group = LabelStore.open(path).group("a")
            rows = group.read()
            same = np.array_equal(rows.classes, expected.classes) and np.array_equal(rows.scores, expected.scores)
            assert same, file
            assert tuple(group.keys) == expected.keys, file
            assert np.array_equal(group.labels, expected.labels), file
        except RelabelError:
            pass
        file.write_bytes(whole)


@pytest.mark.parametrize("damage", ["empty", "deleted", "truncated"])
@pytest.mark.parametrize("name", ["classes", "keys", "tail"])
def test_lost_objects_are_named(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    file = next(file for file in (path / "a" / name / "c").rglob("*") if file.is_file())
    if damage == "deleted":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size - 1)
    with pytest.raises(DamagedStoreError, match=f"a/{name}/c/.*(damaged|cannot be read)"):
        LabelStore.open(path).group("a").row(0)


def test_unknown_version_and_foreign_roots_are_clear_errors(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["relabel"]["format_version"] = 2
    file.write_text(json.dumps(document))
    with pytest.raises(FormatVersionError, match="format version 2; this release reads up to 1: upgrade"):
        LabelStore.open(path)
    surrogate = json.dumps(document | {"attributes": {"relabel": {"\ud800": 1}}})
    for text in ("", "[]", "{}", '{"zarr_format": 3, "node_type": "array"}', "[" * 100_000, surrogate):
        file.write_text(text)
        with pytest.raises(DamagedStoreError, match=r"zarr\.json: "):
            LabelStore.open(path)


@pytest.mark.parametrize("field", ["teacher", "view", "num_classes", "top_k", "map_size", "class_names"])
@pytest.mark.parametrize("value", [None, "text", [1, "x", None], {"a": 1}, -5, True])
def test_hostile_root_fields_are_clear_errors(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["relabel"][field] = value
    (path / "zarr.json").write_text(json.dumps(document))
    if (field, value) == ("class_names", None):
        assert LabelStore.open(path).schema == SCHEMA
    else:
        with pytest.raises(DamagedStoreError, match=r"zarr\.json"):
            LabelStore.open(path)


def test_commit_record_is_sealed_with_the_root(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    for file in (path / "zarr.json", path / "a" / "zarr.json"):
        whole = file.read_text()
        file.write_text(whole.replace("1", "7", 3) if file.parent.name == "a" else whole.replace("bicubic", "bilinear"))
        with pytest.raises(DamagedStoreError, match=r"zarr\.json"):
            LabelStore.open(path).group("a")
        file.write_text(whole)


@pytest.mark.parametrize("overwrite", [False, True])
def test_store_is_written_through_a_link_and_from_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    real = tmp_path / "disk" / "labels.zarr"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    write(tmp_path / "link", "a", overwrite=overwrite)
    monkeypatch.chdir(real)
    write(Path(), "b", overwrite=overwrite)
    assert LabelStore.open(real).names() == ["a", "b"]
    assert list(real.parent.iterdir()) == [real]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rows": -1}, r"a/zarr\.json: Expected `int` >= 1 - at `\$\.rows`"),
        ({"rows": True}, r"Expected `int`, got `bool` - at `\$\.rows`"),
        ({"rows": 70.0}, r"Expected `int`, got `float` - at `\$\.rows`"),
        ({"tar": {"size": "1", "mtime_ns": 0, "sha256": ""}}, r"Expected `int`, got `str` - at `\$\.tar\.size`"),
        ({"rows": 10**30}, "a number of 31 digits"),
        ({"rows": ROWS + 1}, "expected"),
        ({"objects": {"../../etc/passwd": {"size": 1, "sha256": "0" * 64}}}, r"at `key` in `\$\.objects`"),
        ({"objects": {"keys/\0": {"size": 1, "sha256": "0" * 64}}}, r"at `key` in `\$\.objects`"),
        ({"objects": {"keys/c/0\n": {"size": 1, "sha256": "0" * 64}}}, r"at `key` in `\$\.objects`"),
        ({"objects": {"keys/c/0": {"size": 1, "sha256": "0" * 63}}}, r"at `\$\.objects\[...\]\.sha256`"),
        ({"objects": {"keys/c/0": {"\ud800": 1}}}, "surrogates not allowed"),
        ({"prefix": "../b"}, r"Expected `str` matching regex .* - at `\$\.prefix`"),
        ({"quarantined": [{"row": ROWS, "key": "a", "reason": "b"}]}, "should differ and be below 70"),
        (
            {"quarantined": [{"row": 1, "key": "a", "reason": "b"}] * 2},
            r"should differ and be below 70, found \[1, 1\]",
        ),
    ],
)
def test_hostile_commit_records_with_a_valid_seal_are_clear_errors(
    tmp_path: Path, fields: dict[str, object], expected: str
) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    reseal(path, fields)
    with pytest.raises(DamagedStoreError, match=expected):
        LabelStore.open(path).group("a").row(0)


MAPS = (ROWS, SCHEMA.top_k, *SCHEMA.map_size)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("classes", np.full(MAPS, SCHEMA.num_classes, np.uint16), "class id 20 of 20 classes"),
        ("classes", np.zeros((ROWS, 1, 1, 1), np.uint16), r"shape \[70, 1, 1, 1\], expected \[70, 3, 2, 4\]"),
        ("classes", np.zeros(MAPS, np.int64), "data_type 'int64', expected 'uint16'"),
        ("scores", np.full(MAPS, np.nan, np.float16), "scores that are not finite"),
        ("offsets", np.zeros((ROWS, 2), np.float32), "data_type 'float32', expected 'uint64'"),
        ("keys", np.zeros(ROWS, np.uint16), "keys"),
    ],
)
def test_well_formed_arrays_of_wrong_values_are_never_read_as_labels(
    tmp_path: Path, name: str, values: NDArray[Any], expected: str
) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    replace_array(path, name, values)
    group = LabelStore.open(path).group("a")
    with pytest.raises(DamagedStoreError, match=expected):
        group.row(3)


def test_key_behind_a_damaged_group_is_found_and_an_absent_one_is_not_called_absent(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    for seed, name in enumerate("abc"):
        write(path, name, seed)
    (path / "a" / "zarr.json").write_text("{")
    next(file for file in (path / "b" / "keys" / "c").rglob("*") if file.is_file()).write_bytes(b"")
    store = LabelStore.open(path)
    assert store.find("seed2/row0003")[1] == 3
    with pytest.raises(DamagedStoreError, match="2 groups could not be searched for 'nobody'"):
        store.find("nobody")
    assert store.names() == ["a", "b", "c"]


def test_file_in_a_groups_place_is_named_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    (path / "a").write_text("a note")
    with pytest.raises(StoreWriteError, match=r"labels\.zarr/a: a file where the label group should be"):
        write(path, "a", overwrite=True)
    assert (path / "a").read_text() == "a note"


def test_path_of_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("text")
    with pytest.raises(StoreNotFoundError, match="notes: a file, not a label store"):
        LabelStore.open(tmp_path / "notes")
    with pytest.raises(RelabelError, match="notes: "):
        StoreWriter.open(tmp_path / "notes", SCHEMA)


HOSTILE = [
    "../../x",
    "/abs",
    "a\0b",
    "zarr.json",
    "x" * 300,
    "\x1b[31mred",
    "<script>alert(1)</script>",
    "a/b",
    "..",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_group_names_never_become_paths(tmp_path: Path, name: str) -> None:
    path = tmp_path / "store" / "labels.zarr"
    writer = StoreWriter.open(path, SCHEMA)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ShardError, match=r"group name .* must match"):
        writer.write(name, make_labels(SCHEMA, 3), tar=TAR, provenance=PROVENANCE)
    assert sorted(tmp_path.rglob("*")) == before
    store = LabelStore.open(path)
    assert name not in store
    with pytest.raises(LabelNotFoundError, match="no labels for the shard"):
        store.group(name)


def test_hostile_keys_are_kept_as_they_are_and_printed_escaped(tmp_path: Path) -> None:
    path, keys = tmp_path / "labels.zarr", tuple(HOSTILE[:-1])
    labels = make_labels(SCHEMA, len(keys))
    fields = {name: getattr(labels, name) for name in GroupLabels.__slots__} | {"keys": keys}
    writer = StoreWriter.open(path, SCHEMA)
    writer.write("a", GroupLabels(**fields), tar=TAR, provenance=PROVENANCE)
    for row, key in enumerate(keys):
        assert LabelStore.open(path).find(key)[1] == row
        result = CliRunner().invoke(main, ["show", str(path), key])
        assert result.exit_code == 0
        assert not any(not char.isprintable() and char != "\n" for char in result.output)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.zarr"]


@pytest.mark.parametrize("exchanging", [True, False])
def test_disk_that_fails_while_half_a_copy_makes_way_is_not_taken_for_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchanging: bool
) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    (path / "a" / "classes").mkdir(parents=True)
    fail_to_fill(monkeypatch, "a", OSError(5, "Input/output error"), exchanging=exchanging)
    with pytest.raises(StoreWriteError, match="Input/output error"):
        write(path, "a")
    assert (path / "a" / "classes").exists()


def test_root_attributes_nested_without_end_are_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    text, depth = (path / "zarr.json").read_text(), 960  # as deep as JSON can still be read
    (path / "zarr.json").write_text(
        text.replace('"relabel": {', f'"relabel": {{"more": {"[" * depth}{"]" * depth}, ', 1)
    )
    with pytest.raises(DamagedStoreError, match=r"zarr\.json: "):
        LabelStore.open(path).group("a")
