"""Shards behind URLs: annotated as if they lay here, or left out with the reason."""

import re
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from annotator.input.local_copies import LocalCopies
from annotator.run.status import shard_status
from annotator.teacher.teacher import Teacher
from store.errors import SettingsError
from store.reader import LabelStore
from store.shards.patterns import expand_sources
from store.shards.remote import RemoteShard
from store.storage import fetch as download
from tests.builders.stores import make_members, write_tar
from tests.builders.teachers import make_teacher, run_annotator
from tests.builders.unruly_server import Unruly, UnrulyServer, unruly_server


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def server() -> Iterator[UnrulyServer]:
    with unruly_server() as server:
        yield server


@pytest.fixture
def copies_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies lie."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def tar(tmp_path: Path) -> bytes:
    return write_tar(tmp_path / "local" / "a.tar", make_members(6)).read_bytes()


@pytest.fixture(autouse=True)
def local(tmp_path: Path) -> Path:
    (tmp_path / "local").mkdir()
    return tmp_path / "local"


def same(labels: Path | str, other: Path, name: str = "a") -> bool:
    ours, theirs = (LabelStore.open(path).group(name) for path in (labels, other))
    return all(ours.read_object(path) == theirs.read_object(path) for path in theirs.commit.objects)


@pytest.mark.parametrize("workers", [0, 1])
def test_shard_of_a_poor_server_gives_the_labels_of_the_local_one(
    tmp_path: Path, teacher: Teacher, server: UnrulyServer, copies_folder: Path, tar: bytes, workers: int
) -> None:
    url = server.put(Unruly(tar, busy=1, cuts=[5_000, 9_000]))
    summary = run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher, workers=workers)
    assert (summary.images, summary.failures) == (6, {})
    run_annotator([tmp_path / "local" / "a.tar"], tmp_path / "local.zarr", teacher)
    assert same(tmp_path / "l.zarr", tmp_path / "local.zarr")
    assert list(copies_folder.glob("relabel-*")) == []
    again = run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher)
    assert (again.skipped_shards, again.images) == (1, 0)


@pytest.mark.parametrize(
    ("unruly", "message"),
    [
        (lambda tar: Unruly(tar, cuts=[5_000] * 50), "a.tar: cannot be read: 5,000 of"),
        (lambda tar: Unruly(tar, refused=403), "a.tar: cannot be read: .*403"),
        (lambda tar: Unruly(tar[:3_000]), "a.tar: ends at byte 3000"),
        (lambda tar: Unruly(b"\x1f\x8b" + tar), "a.tar: compressed with gzip"),
        (lambda tar: Unruly(b"<html>not found</html>" * 50), "a.tar: not a tar archive"),
        (lambda tar: Unruly(tar, tells_length=False), "does not announce its length"),
    ],
)
def test_shard_that_does_not_arrive_whole_is_left_out_by_its_url(
    tmp_path: Path,
    teacher: Teacher,
    server: UnrulyServer,
    copies_folder: Path,
    tar: bytes,
    unruly: object,
    message: str,
) -> None:
    url = server.put(unruly(tar))  # type: ignore[operator]
    other = write_tar(tmp_path / "b.tar", make_members(2))
    summary = run_annotator([RemoteShard(url), other], tmp_path / "l.zarr", teacher)
    assert summary.committed_shards == 1
    ((shard, reason),) = summary.failures.items()
    assert str(shard) == url
    assert reason.startswith(url)
    assert re.search(message, reason), reason
    assert LabelStore.open(tmp_path / "l.zarr").names() == ["b"]
    assert list(copies_folder.glob("relabel-*")) == []


def test_shard_replaced_while_its_images_are_annotated_is_left_out(
    tmp_path: Path,
    teacher: Teacher,
    server: UnrulyServer,
    copies_folder: Path,
    tar: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = server.put(Unruly(tar))
    right = Teacher.start

    def replace_then_start(*arguments: object) -> object:
        path = url.removeprefix(f"http://127.0.0.1:{server.server_port}")
        server.objects[path] = Unruly(tar + bytes(512), etag='"second"')
        return right(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Teacher, "start", replace_then_start)
    summary = run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher)
    assert list(summary.failures.values()) == [f"{url}: changed while it was being read; run again once it is complete"]
    assert LabelStore.open(tmp_path / "l.zarr").names() == []


def test_bucket_of_shards_is_annotated_with_few_copies_at_a_time(
    tmp_path: Path, teacher: Teacher, copies_folder: Path, s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = s3_store.removesuffix("/labels.zarr")
    bucket = from_url(folder, client_options={"allow_http": True})
    for i in range(6):
        path = write_tar(tmp_path / "local" / f"a-{i}.tar", make_members(20, first=20 * i))
        obstore.put(bucket, path.name, path.read_bytes())
    most = 0
    right = LocalCopies.index

    def counted(self: LocalCopies, shard: RemoteShard) -> object:
        nonlocal most
        found = right(self, shard)
        most = max(most, len(list(copies_folder.rglob("*.tar"))))
        return found

    monkeypatch.setattr(LocalCopies, "index", counted)
    shards = expand_sources([f"{folder}/a-*.tar"])
    summary = run_annotator(shards, s3_store, teacher, batch_size=4)
    assert (summary.images, summary.committed_shards, summary.failures) == (120, 6, {})
    assert most <= 4  # being committed, in the last batches, being annotated, being indexed
    run_annotator(sorted((tmp_path / "local").iterdir()), tmp_path / "local.zarr", teacher)
    for name in LabelStore.open(tmp_path / "local.zarr").names():
        assert same(s3_store, tmp_path / "local.zarr", name)
    assert list(copies_folder.glob("relabel-*")) == []


def test_replaced_object_of_the_same_size_is_not_taken_for_done(
    tmp_path: Path, teacher: Teacher, server: UnrulyServer, copies_folder: Path, tar: bytes
) -> None:
    url = server.put(Unruly(tar))
    run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher)
    path = url.removeprefix(f"http://127.0.0.1:{server.server_port}")
    later = "Thu, 02 Jan 2025 00:00:00 GMT"
    server.objects[path] = Unruly(tar, modified=later)
    assert run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher).skipped_shards == 1
    other = write_tar(tmp_path / "local" / "other.tar", [(name, bytes(len(data)) if name.endswith("jpg") else data)
                                                         for name, data in make_members(6)]).read_bytes()  # fmt: skip
    for modified in (later, None):  # a server that does not say cannot vouch for the bytes
        server.objects[path] = Unruly(other, modified=modified)
        summary = run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher)
        assert list(summary.failures) == [RemoteShard(url)]
    assert "not the shard its labels were made from" in next(iter(summary.failures.values()))


def test_server_without_times_vouches_for_no_shard(
    tmp_path: Path, teacher: Teacher, server: UnrulyServer, copies_folder: Path, tar: bytes
) -> None:
    url = server.put(Unruly(tar, modified=None, etag=None))
    run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher)
    assert run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher).skipped_shards == 1
    path = url.removeprefix(f"http://127.0.0.1:{server.server_port}")
    server.objects[path] = Unruly(tar[:-512] + b"x" + tar[-511:], modified=None, etag=None)
    summary = run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher)
    assert "not the shard its labels were made from" in summary.failures[RemoteShard(url)]


def test_status_tells_a_shard_that_cannot_be_read_from_one_that_changed(
    tmp_path: Path, teacher: Teacher, server: UnrulyServer, copies_folder: Path, tar: bytes
) -> None:
    url = server.put(Unruly(tar))
    run_annotator([RemoteShard(url)], tmp_path / "l.zarr", teacher)
    path = url.removeprefix(f"http://127.0.0.1:{server.server_port}")
    states = []
    for unruly in (Unruly(tar), Unruly(tar, refused=403), Unruly(tar + bytes(512), modified=None)):
        server.objects[path] = unruly
        with LocalCopies() as copies:
            states.append(shard_status(LabelStore.open(tmp_path / "l.zarr"), RemoteShard(url), copies).state)
    assert states == ["done", "unreadable", "changed"]


def test_temporary_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match=r"TMPDIR=.*gone: No such file or directory; make that folder writable"):
        LocalCopies()


def test_copies_that_a_killed_run_left_are_removed_by_the_next_one(copies_folder: Path) -> None:
    with LocalCopies():
        (living,) = copies_folder.iterdir()
        killed = copies_folder / f"{living.name[:-8]}abcdefgh"  # which no process has locked
        killed.mkdir()
        (killed / "a.tar").write_bytes(bytes(1000))
        with LocalCopies():
            assert living.exists()
            assert not killed.exists()
    assert list(copies_folder.iterdir()) == []
