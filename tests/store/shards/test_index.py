import io
import os
import tarfile
import time
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import ChangedShardError, ShardError
from store.shards.index import NO_LABEL, check_unchanged, hash_file, index_shard
from tests.builders.paths import REAL as PHOTOS
from tests.builders.stores import make_members, write_tar

REAL = PHOTOS / "imagenet-sample-0000.tar"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_index_gives_the_bytes_that_webdataset_reads(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [*make_members(3), ("x/y.z/deep.jpg", b"pixels"), ("x/y.z/deep.cls", b" 7\n")])
    index = index_shard(path, hashed=True)
    content = path.read_bytes()
    read = {sample["__key__"]: sample for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    assert [sample.key for sample in index.samples] == list(read)
    for sample in index.samples:
        assert content[sample.offset : sample.offset + sample.length] == read[sample.key]["jpg"]
        assert sample.label == int(read[sample.key]["cls"])
    assert index.sha256 == hash_file(path)
    assert index.size == len(content)


@pytest.mark.skipif(not REAL.exists(), reason="the real photographs are not here")
def test_real_shard_is_indexed_whole() -> None:
    index = index_shard(REAL, hashed=True)
    assert len(index.samples) == 64
    assert index.samples == index_shard(REAL).samples


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_unicode_names_are_read_in_every_tar_format(tmp_path: Path, tar_format: int) -> None:
    folder = "f" * 90 if tar_format == tarfile.USTAR_FORMAT else "grüße/" + "f" * 300
    path = write_tar(tmp_path / "a.tar", [(f"{folder}/img.jpg", b"123")], format=tar_format)
    sample = index_shard(path).samples[0]
    assert sample.key == f"{folder}/img"
    assert path.read_bytes()[sample.offset : sample.offset + sample.length] == b"123"


def test_tar_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", make_members(4)).read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512  # the last member's padding is over; two blocks of zeros must follow
    cut = tmp_path / "cut.tar"
    for size in [*range(0, end + 1024, 512), *range(100, end + 1024, 997)]:
        cut.write_bytes(whole[:size])
        for hashed in (True, False):
            with pytest.raises(ShardError, match=r"cut\.tar: "):
                index_shard(cut, hashed=hashed)
    cut.write_bytes(whole[: end + 1024])
    assert len(index_shard(cut).samples) == 4


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 511), bit=st.integers(0, 7), member=st.integers(0, 7))
def test_damaged_header_is_refused(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, member: int) -> None:
    path = write_tar(tmp_path_factory.mktemp("damage") / "a.tar", make_members(4))
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        start = tar.getmembers()[member].offset
    if 148 <= at < 156:  # the checksum itself may be written in several ways
        at = 0
    data[start + at] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"a\.tar: "):
        index_shard(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"1"), ("a.cls", b"1"), ("a.jpg", b"2"), ("a.cls", b"2")], "two samples with the key 'a'"),
        ([("a.jpg", b"1"), ("b.jpg", b"1"), ("a.jpg", b"2")], "two samples with the key 'a'"),
        ([("a.jpg", b"1"), ("b.jpg", b"1"), ("a.cls", b"1")], "sample 'a' are not adjacent: .* 'a.jpg' and 'a.cls'; "),
        ([("a.cls", b"1"), ("b.cls", b"1"), ("a.jpg", b"1")], "sample 'a' are not adjacent: .* 'a.cls' and 'a.jpg'; "),
        ([("d/.DS_Store", b"1"), ("d/a.jpg", b"1")], r"'d/\.DS_Store' is one that macOS adds; remove .* tar --delete"),
        ([("d/a.jpg", b"1"), ("d/._a.jpg", b"1")], r"'d/\._a\.jpg' is one that macOS adds; remove .* tar --delete"),
        ([("a.cls", b"1"), ("a.json", b"{}")], "'a' has no image members"),
        ([("a.jpg", b"1"), ("a.png", b"1")], "'a' has 2 image members"),
        ([("img.v1.0001.jpg", b"1"), ("img.v1.0002.jpg", b"2")], "A key ends at the first dot"),
        ([("a.jpg", b"1"), ("a.cls", b"dog")], "holds 'dog', expected an integer"),
        ([("a.jpg", b"1"), ("a.cls", b"-2")], "holds '-2', expected an integer class id, or -1 for no label"),
        ([("a.jpg", b"1"), ("a.cls", b"1" * 40)], "holds 40 bytes, expected an integer"),
        ([("folder/.jpg", b"1")], "has no key"),
        ([], "holds no samples"),
    ],
)
def test_ambiguous_samples_are_refused(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    path = write_tar(tmp_path / "bad.tar", members)
    with pytest.raises(ShardError, match=rf"bad\.tar: .*{message}"):
        index_shard(path)


def test_label_of_minus_one_is_no_label(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("a.cls", b"-1\n"), ("b.jpg", b"1")])
    assert [sample.label for sample in index_shard(path).samples] == [NO_LABEL, NO_LABEL]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends at byte 0 without end-of-archive"),
        (b"hello" * 500, "not a tar archive"),
        (b"\x1f\x8b" + b"\0" * 600, "compressed with gzip; decompress it"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 600, "compressed with zstd"),
        (b"\0" * 2048, "holds no samples"),
    ],
)
def test_what_is_not_a_tar_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(ShardError, match=message):
        index_shard(path)


@pytest.mark.parametrize("name", ["a b.tar", ".hidden.tar", "a.tgz", "x" * 250 + ".tar", "zarr.json.tar"])
def test_names_that_cannot_be_groups_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ShardError, match=r"rename the shard|uncompressed tar named"):
        index_shard(tmp_path / name)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"gone\.tar: cannot be read: No such file"):
        index_shard(tmp_path / "gone.tar")


def test_negative_size_in_a_header_ends_at_once(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12  # base-256 for -1
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:512]))
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + b"\0" * 1024)
    with pytest.raises(ShardError, match="claims a size of -1"):
        index_shard(path)


@pytest.mark.parametrize("text", ["99999 path=x\n", "path=x\n", "5 =\n", "12 path=xyz\0\n", "9 size=-1\n"])
def test_damaged_pax_header_is_refused(tmp_path: Path, text: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        pax = tarfile.TarInfo("pax")
        pax.type, pax.size = tarfile.XHDTYPE, len(text)
        tar.addfile(pax, io.BytesIO(text.encode()))
        tar.addfile(tarfile.TarInfo("a.jpg"))
    path = tmp_path / "a.tar"
    path.write_bytes(data.getvalue())
    with pytest.raises(ShardError, match=r"a\.tar: "):
        index_shard(path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_zero_byte_in_a_member_name_is_refused(tmp_path: Path, kind: bytes) -> None:
    text = b"16 path=a\0b.jpg\n" if kind == tarfile.XHDTYPE else b"a\0b.jpg\0"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        extended = tarfile.TarInfo("extended")
        extended.type, extended.size = kind, len(text)
        tar.addfile(extended, io.BytesIO(text))
        tar.addfile(tarfile.TarInfo("a.jpg"))
    path = tmp_path / "a.tar"
    path.write_bytes(data.getvalue())
    with pytest.raises(ShardError, match="holds a zero byte"):
        index_shard(path)


def test_shard_replaced_while_being_read_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", make_members(1))
    index = index_shard(path)
    check_unchanged(index)
    os.utime(path, ns=(time.time_ns(), index.mtime_ns + 1))
    with pytest.raises(ChangedShardError, match="changed while it was being read"):
        check_unchanged(index)
    index = index_shard(path)
    other = write_tar(tmp_path / "other", make_members(1))
    os.utime(other, ns=(index.mtime_ns, index.mtime_ns))
    other.replace(path)  # of the same size and time
    with pytest.raises(ChangedShardError, match="changed while it was being read"):
        check_unchanged(index)
    path.unlink()
    with pytest.raises(ShardError, match="vanished"):
        check_unchanged(index)
