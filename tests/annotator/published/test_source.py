"""Finding a sample's map in a folder or a tar: never another sample's, never outside."""

import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.published import source as source_module
from annotator.published.names import split_key
from annotator.published.source import FolderSource, MapSource, TarSource, open_source, read_map
from store.errors import LabelMapError, ShardError
from store.shards.index import tar_members
from tests.builders.published import make_tensor, pt_bytes, write_map

NAMES = ("n00000001/n00000001_5", "n00000001/0001", "n00000002/0001", "n00000002/0002")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write_map(tmp_path / "root", name, seed=seed)
    return tmp_path / "root"


def pack(root: Path, path: Path, **options: int) -> Path:
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        tar.add(root, "relabel_imagenet")
    return path


@pytest.fixture(params=["folder", "ustar", "gnu", "pax"])
def source(request: pytest.FixtureRequest, root: Path) -> MapSource:
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    if request.param == "folder":
        return open_source(root)
    return open_source(pack(root, root.with_suffix(".tar"), format=formats[request.param]))


@pytest.mark.parametrize(
    ("key", "seed"),
    [
        ("n00000001/n00000001_5", 0),
        ("train/n00000001/n00000001_5", 0),
        ("train/n00000001_5", 0),  # ImageNet's names begin with their class folder
        ("n00000001_5", 0),
        ("n00000001/0001", 1),
        ("a/b/n00000002/0001", 2),
        ("0002", 3),  # a name that is there once needs no folder
    ],
)
def test_sample_finds_its_map_by_the_last_two_parts_of_its_key(source: MapSource, key: str, seed: int) -> None:
    found = read_map(source, key, num_classes=12)
    assert found is not None
    assert (found.scores == make_tensor(seed=seed)[0].numpy()).all()


@pytest.mark.parametrize("key", ["n00000001/0002", "n00000009/0002", "0003", "n00000001_6", "n00000002/n00000001_6"])
def test_sample_of_another_folder_or_name_finds_none(source: MapSource, key: str) -> None:
    assert source.find(key) is None


def test_name_that_is_in_two_folders_is_ambiguous_without_a_folder(source: MapSource) -> None:
    with pytest.raises(LabelMapError, match="2 maps match the sample '0001'"):
        source.find("0001")


def test_maps_right_below_the_root_are_found_by_name_and_hide_no_other(root: Path) -> None:
    write_map(root, "0003", seed=9)
    write_map(root, "0002")
    found = read_map(FolderSource(root), "0003", num_classes=12)
    assert found is not None
    assert (found.scores == make_tensor(seed=9)[0].numpy()).all()
    with pytest.raises(LabelMapError, match="2 maps match the sample '0002'"):
        FolderSource(root).find("0002")


def test_member_that_comes_twice_in_a_tar_is_ambiguous(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for seed in (0, 1):
            add(tar, "n01/a.pt", pt_bytes(make_tensor(seed=seed)))
    with pytest.raises(LabelMapError, match="2 maps match the sample 'n01/a'"):
        open_source(tmp_path / "twice.tar").find("n01/a")


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


HOSTILE_KEYS = (
    "../../x", "a/../x", "a/./x", "/abs", "/etc/passwd", "a//b", "", "a/", "nul\0byte", "\x1b[31mred", "line\nbreak",
    "x" * 300, "folder" * 50 + "/x", "a/" * 600 + "x", "é" * 130, "..\\x", "\u202egpj",
)  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_hostile_keys_name_no_file_and_are_not_echoed_raw(key: str, root: Path) -> None:
    write_map(root.parent, "x")  # what ../x would find
    with pytest.raises(LabelMapError, match="key") as caught:
        split_key(key)
    assert str(caught.value).isprintable()
    with pytest.raises(LabelMapError):
        FolderSource(root).find(key)


def test_hostile_member_names_are_never_used_as_paths(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("../../x.pt", "/abs.pt", "a\x1b[31m/y.pt", "n" * 300 + ".pt", "n01/a.pt", "n01/note.txt"):
            add(tar, name, pt_bytes(make_tensor()))
    found = open_source(tmp_path / "evil.tar")
    assert len(found) == 5
    assert read_map(found, "n01/a", num_classes=12) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar"]


def test_file_larger_than_a_map_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = pack(root, root.with_suffix(".tar"))
    monkeypatch.setattr(source_module, "MAX_FILE_BYTES", 1000)
    for found in (FolderSource(root), TarSource(tar)):
        with pytest.raises(LabelMapError, match="larger than 1,000 bytes, so not a published map"):
            read_map(found, "n00000001/0001", num_classes=12)


def test_pipes_and_folders_named_like_maps_are_no_maps(root: Path) -> None:
    os.mkfifo(root / "n00000002" / "pipe.pt")
    (root / "n00000002" / "folder.pt").mkdir()
    assert len(FolderSource(root)) == len(NAMES)


def test_links_in_a_circle_hide_no_map(root: Path) -> None:
    for link in (root / "loop", root / "n00000002" / "loop.pt"):
        link.symlink_to(link.name)
    assert len(FolderSource(root)) == len(NAMES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: data[:-20_000], "truncated"),  # within the last member
        (lambda data: data[: data.rindex(b"PK\x05\x06") // 512 * 512 + 512], "without end-of-archive blocks"),
        (lambda data: data[:512] + b"?" * 512 + data[1024:], "damaged"),
        (lambda data: b"hello" * 1000, "not a tar archive"),
        (lambda data: b"\x1f\x8b" + data[2:], "compressed with gzip"),
        (lambda data: b"", "without end-of-archive blocks"),
    ],
    ids=["cut", "no-end", "damaged-header", "text", "gzip", "empty"],
)
def test_damaged_tar_is_refused_and_not_read_in_part(root: Path, make: object, message: str) -> None:
    whole = pack(root, root.with_suffix(".tar"), format=tarfile.GNU_FORMAT)
    bad = root.with_name("bad.tar")
    bad.write_bytes(make(whole.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ShardError, match=rf"bad\.tar: .*{message}"):
        open_source(bad)


@given(st.data())
def test_flipped_bytes_in_headers_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.tar"
    with tarfile.open(path, "w", format=data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))) as tar:
        for name in ("a" * 150 + "/b.pt", "c/d.pt", "e" * 120 + ".pt"):
            add(tar, name, b"0123456789")
    tampered = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = 512 * data.draw(st.integers(0, 9)) + data.draw(st.integers(0, 10) | st.integers(100, 160))
        tampered[at] = data.draw(st.sampled_from(b"\0 07gxKLS\x80\xff\xe2"))
    if data.draw(st.booleans()):  # a hostile writer gets the checksums right
        for at in range(0, len(tampered), 512):
            block = bytes(tampered[at : at + 512])
            if block[257:262] == b"ustar":
                tampered[at + 148 : at + 156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * ord(" "))
    path.write_bytes(tampered)
    with suppress(ShardError):
        for member in tar_members(path):
            assert 0 <= member.offset <= member.offset + member.size <= len(tampered)


@pytest.mark.parametrize("size", [-5, 1 << 20, 10**11])
def test_member_that_claims_another_size_is_refused_before_it_is_found(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("a/b.pt")
    info.size = size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 * 512))
    with pytest.raises(ShardError, match=r"a\.tar: (member .* claims a size of -5|ends at byte 2560, in the middle)"):
        next(tar_members(tmp_path / "a.tar"))


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        info = tarfile.TarInfo("n01/a.pt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ShardError, match=r"'n01/a\.pt' is a symbolic link to '/etc/passwd'"):
        list(tar_members(tmp_path / "link.tar"))


@pytest.mark.parametrize("kind", ["absent", "empty", "pipe"])
def test_nothing_to_import_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(ShardError, match=r"no such folder or tar|holds no maps|neither a folder nor a tar"):
        open_source(path)
