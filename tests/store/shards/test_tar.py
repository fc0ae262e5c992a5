"""Members that are no plain files, in tars of Python's tarfile and, where they are installed, GNU tar and bsdtar."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from store.errors import ShardError
from store.shards.index import index_shard
from tests.builders.stores import write_tar

TAR_VERSION = subprocess.check_output(["tar", "--version"], text=True) if shutil.which("tar") else ""

needs_gnu_tar = pytest.mark.skipif("GNU tar" not in TAR_VERSION, reason="needs GNU tar")
needs_bsdtar = pytest.mark.skipif(
    shutil.which("bsdtar") is None, reason="needs bsdtar: apt-get install libarchive-tools"
)

GNU, BSD = "tar", "bsdtar"
SPARSE_RECORDS = {
    "0.0": {
        "GNU.sparse.size": "9000",
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.offset": "0",
        "GNU.sparse.numbytes": "3",
    },
    "0.1": {
        "GNU.sparse.size": "9000",
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.map": "0,3",
        "GNU.sparse.name": "d/a.jpg",
    },
    "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "d/a.jpg", "GNU.sparse.realsize": "3"},
}


def add(tar: tarfile.TarFile, name: str, data: bytes = b"123", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(list(map(str, command)), check=True, cwd=cwd, capture_output=True)


def make_folder(root: Path) -> Path:
    """Two samples in a folder, to be packed as d/a and d/b."""
    (root / "d").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "a.cls", "b.cls"):
        (root / "d" / name).write_bytes(b"1")
    return root


def keys(path: Path) -> list[str]:
    return [sample.key.removeprefix("./") for sample in index_shard(path).samples]


@pytest.mark.parametrize("version", SPARSE_RECORDS)
def test_sparse_members_are_refused_by_their_own_name(tmp_path: Path, version: str) -> None:
    path, records = tmp_path / "a.tar", SPARSE_RECORDS[version]
    name = "d/GNUSparseFile.0/a.jpg" if "GNU.sparse.name" in records else "d/a.jpg"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, name, pax_headers=records)
    with pytest.raises(ShardError, match=r"a\.tar: member 'd/a\.jpg' is a sparse file, stored without its holes"):
        index_shard(path)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([GNU, "--format=posix", "-S", "--sparse-version=0.0"], marks=needs_gnu_tar),
        pytest.param([GNU, "--format=posix", "-S", "--sparse-version=0.1"], marks=needs_gnu_tar),
        pytest.param([GNU, "--format=posix", "-S", "--sparse-version=1.0"], marks=needs_gnu_tar),
        pytest.param([GNU, "--format=gnu", "-S"], marks=needs_gnu_tar),
        pytest.param([BSD], marks=needs_bsdtar),
    ],
)
def test_file_with_holes_is_refused_or_whole(tmp_path: Path, command: list[str]) -> None:
    folder, plain = make_folder(tmp_path / "x"), [BSD, "--no-read-sparse"] if command == [BSD] else [GNU]
    with (folder / "d" / "a.jpg").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    if (folder / "d" / "a.jpg").stat().st_blocks * 512 > 1 << 20:
        pytest.skip("the disk has no holes")
    run(*command, "-cf", tmp_path / "sparse.tar", "-C", folder, "d")
    with pytest.raises(ShardError, match=r"member 'd/a\.jpg' is a sparse file, .* bsdtar --no-read-sparse"):
        index_shard(tmp_path / "sparse.tar")
    run(*plain, "-cf", tmp_path / "whole.tar", "-C", folder, *(f"d/{name}" for name in ("a.jpg", "a.cls", "b.jpg")))
    assert [sample.length for sample in index_shard(tmp_path / "whole.tar").samples] == [(1 << 20) + 3, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/{x}"}, r"is a symbolic link to '/etc/\{x\}'; .* --dereference"),
        ({"type": tarfile.SYMTYPE, "linkname": "l" * 150}, "is a symbolic link to 'l{150}'; "),
        ({"type": tarfile.LNKTYPE, "linkname": "b.jpg"}, r"is a hard link to 'b\.jpg', .* --hard-dereference"),
        ({"type": tarfile.FIFOTYPE}, "is a named pipe; leave it out"),
        ({"type": tarfile.CHRTYPE}, "is a device; leave it out"),
        ({"type": tarfile.GNUTYPE_SPARSE}, "is a sparse file, stored without its holes"),
        ({"type": b"V"}, "is a volume label, not a file; pack without --label"),
        ({"type": b"M"}, "is the end of a file that begins in another volume; pack without --multi-volume"),
        ({"type": b"D"}, "is a folder of an incremental backup; pack without --incremental"),
        ({"type": b"{"}, r"is of the type b'\{', not a regular file"),
    ],
)
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_is_no_plain_file_is_named(
    tmp_path: Path, fields: dict[str, object], message: str, tar_format: int
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tar_format) as tar:
        add(tar, "d/a.jpg", b"", **fields)
    with pytest.raises(ShardError, match=rf"a\.tar: member 'd/a\.jpg' {message}"):
        index_shard(path)


@pytest.mark.parametrize("records", [{"path": "a.jpg"}, SPARSE_RECORDS["1.0"]])
def test_global_header_that_names_all_members_is_refused(tmp_path: Path, records: dict[str, str]) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=records) as tar:
        add(tar, "b.jpg")
    with pytest.raises(ShardError, match="a global header gives all members one"):
        index_shard(path)


def test_other_records_of_a_pax_header_may_hold_any_bytes(tmp_path: Path) -> None:
    """As macOS' tar stores the attributes of files."""
    path = tmp_path / "a.tar"
    records = {"SCHILY.xattr.com.apple.lastuseddate": "\udcff\x00\udcfe", "comment": "x"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "y"}) as tar:
        add(tar, "d/a.jpg", pax_headers=records)
    assert keys(path) == ["d/a"]


@needs_gnu_tar
@pytest.mark.parametrize("names", [("*.jpg", "*.cls"), ("*.cls", "*.jpg")])
def test_advice_for_members_that_are_not_adjacent_makes_them_so(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = make_folder(tmp_path / "x") / "d"
    run("sh", "-c", f"tar cf ../../apart.tar {names[0]} {names[1]}", cwd=folder)
    with pytest.raises(ShardError, match=r"members of sample 'a' are not adjacent: .* with tar --sort=name\."):
        index_shard(tmp_path / "apart.tar")
    run(GNU, "--sort=name", "-cf", tmp_path / "sorted.tar", "-C", folder, ".")
    assert keys(tmp_path / "sorted.tar") == ["a", "b"]


@needs_gnu_tar
def test_advice_for_links_stores_the_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "x") / "d"
    (folder / "b.jpg").unlink()
    os.link(folder / "a.jpg", folder / "b.jpg")
    (folder / "c.jpg").symlink_to("a.jpg")
    run(GNU, "--sort=name", "-cf", tmp_path / "links.tar", "-C", folder, ".")
    with pytest.raises(ShardError, match="is a hard link to "):
        index_shard(tmp_path / "links.tar")
    run(GNU, "--sort=name", "--hard-dereference", "-h", "-cf", tmp_path / "files.tar", "-C", folder, ".")
    assert keys(tmp_path / "files.tar") == ["a", "b", "c"]


@needs_gnu_tar
def test_advice_for_files_that_macos_adds_removes_them(tmp_path: Path) -> None:
    members = [("d/.DS_Store", b"1"), ("d/._a.jpg", b"1"), ("d/a.jpg", b"1"), ("._d", b"1"), ("d/._a.cls", b"1")]
    path = write_tar(tmp_path / "a.tar", members, format=tarfile.PAX_FORMAT)
    with pytest.raises(ShardError, match=r"tar --delete -f SHARD --wildcards --no-anchored '\._\*' \.DS_Store"):
        index_shard(path)
    run(GNU, "--delete", "-f", path, "--wildcards", "--no-anchored", "._*", ".DS_Store")
    assert keys(path) == ["d/a"]


@needs_gnu_tar
@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
def test_volume_label_of_gnu_tar(tmp_path: Path, tar_format: str) -> None:
    folder = make_folder(tmp_path / "x") / "d"
    run(GNU, f"--format={tar_format}", "-V", "mine", "-cf", tmp_path / "a.tar", "-C", folder, "a.jpg", "a.cls")
    if tar_format == "posix":  # a comment of a global header, which is no member
        assert keys(tmp_path / "a.tar") == ["a"]
        return
    with pytest.raises(ShardError, match="member 'mine' is a volume label"):
        index_shard(tmp_path / "a.tar")
