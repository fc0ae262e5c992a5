"""One published map, mostly hostile: refused in one message, and no code is run."""

import io
import os
import pickle
import struct
import warnings
import zipfile
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from annotator.published.files import PublishedMap, dump_map, load_map
from store.errors import LabelMapError
from tests.builders.published import make_tensor, pt_bytes

C = 12
FORMATS: list[dict[str, Any]] = [{}, {"_use_new_zipfile_serialization": False}]


def load(data: bytes, num_classes: int = C) -> PublishedMap:
    return load_map(data, "n01/a.pt", num_classes=num_classes)


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_map_of_either_type_and_format_loads_as_it_was_saved(options: dict[str, Any], dtype: torch.dtype) -> None:
    tensor = make_tensor()
    found = load(pt_bytes(tensor.to(dtype), **options))
    assert (str(found.scores.dtype), str(found.classes.dtype)) == ("float16", "uint16")
    np.testing.assert_array_equal(found.scores, tensor[0].numpy())
    np.testing.assert_array_equal(found.classes, tensor[1].numpy())


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "legacy"])
@pytest.mark.parametrize("cells", [(4, 4), (1, 5), (3, 1)])
def test_layout_in_memory_has_no_effect(cells: tuple[int, int], options: dict[str, Any]) -> None:
    tensor = make_tensor(cells=cells)
    for order in permutations(range(4)):  # TokenLabeling's generator saves [2, A, B, K] as [2, K, A, B]
        stored = tensor.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])
        found = load(pt_bytes(stored, **options))
        np.testing.assert_array_equal(found.scores, tensor[0].numpy())
        np.testing.assert_array_equal(found.classes, tensor[1].numpy())


def test_double_precision_is_rounded_once_and_its_ids_are_checked_unrounded() -> None:
    tensor = make_tensor().double()
    # Above a tie between two float16, and equal to it in float32, where it would go to the even one below.
    tensor[0, :, 0, 0] = torch.tensor([3 + 2**-10 + 2**-40, 2, 1], dtype=torch.float64)
    assert load(pt_bytes(tensor)).scores[0, 0, 0] == 3 + 2**-9
    tensor[1, 0, 1, 1] += 1e-12
    with pytest.raises(LabelMapError, match="class ids that are not integers"):
        load(pt_bytes(tensor))


@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 7), st.integers(0, 1000), st.booleans())
def test_written_map_loads_as_the_same_map(top_k: int, first: int, second: int, seed: int, turned: bool) -> None:
    tensor = make_tensor(top_k=top_k, cells=(first, second), seed=seed).numpy()
    published = PublishedMap(tensor[1].astype(np.uint16), tensor[0].astype(np.float16))
    published = published.turned() if turned else published
    found = load(dump_map(published))
    np.testing.assert_array_equal(found.classes, published.classes)
    np.testing.assert_array_equal(found.scores, published.scores)


def test_scores_out_of_order_are_sorted_with_their_classes() -> None:
    tensor = make_tensor()
    shuffled = tensor.clone()
    shuffled[:, :, 1, 2] = tensor[:, [2, 0, 1], 1, 2]
    found = load(pt_bytes(shuffled))
    np.testing.assert_array_equal(found.scores, tensor[0].numpy())
    np.testing.assert_array_equal(found.classes, tensor[1].numpy())


class Evil:
    """Runs a command when it is unpickled by a loader that allows it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, options: dict[str, Any]) -> None:
    trace = tmp_path / "trace"
    data = pt_bytes([make_tensor(), Evil(f"touch {trace}")], **options)
    for hostile in (data, pickle.dumps(Evil(f"touch {trace}"))):
        with pytest.raises(LabelMapError, match=r"^n01/a\.pt: not loaded: .* holds more than a tensor$"):
            load(hostile)
    assert not trace.exists()
    torch.load(io.BytesIO(data), weights_only=False)  # the probe works
    assert trace.exists()


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "legacy"])
def test_a_kilobyte_that_claims_a_hundred_billion_elements_is_refused(options: dict[str, Any]) -> None:
    data = pt_bytes(torch.zeros(1).expand(2, 5, 100_000, 100_000), **options)
    assert len(data) < 1600
    with pytest.raises(LabelMapError, match=r"100,000,000,000 elements over [\d,]+ stored bytes"):
        load(data)


BYTEARRAY = b"c__builtin__\nbytearray\n\x8a\x05" + (8 << 30).to_bytes(5, "little") + b"\x85R."
PUNYCODE = b"c_codecs\nencode\nX\x02\0\0\0\xc3\xa9U\x08punycode\x86R."


@pytest.mark.parametrize(
    "steps",
    [
        BYTEARRAY,
        BYTEARRAY.replace(b"__builtin__", b"builtins"),
        PUNYCODE,
        b"ctorch\nSize\n.",
        b")q\0" + b"h\0h\0\x86q\0" * 40 + b".",  # a tuple of 2^40
        b")" + b"\x85" * 100_000 + b".",
    ],
    ids=["bytearray", "builtins", "punycode", "size", "doubled", "deep"],
)
@pytest.mark.parametrize("place", ["alone", "last", "zip"])
def test_pickle_that_does_more_than_a_tensor_needs_is_refused_unrun(steps: bytes, place: str) -> None:
    with (
        mock.patch("torch.load", side_effect=AssertionError("torch has seen it")),
        pytest.raises(LabelMapError, match=r"^n01/a\.pt: not loaded: .* holds more than a tensor$"),
    ):
        load(with_pickle(steps, place))


@pytest.mark.parametrize("steps", [b"\x8a\x05" + (8 << 30).to_bytes(5, "little") + b".", b"\x8a\x01\xff."])
@pytest.mark.parametrize("place", ["alone", "last", "zip"])
def test_pickled_number_is_no_map(steps: bytes, place: str) -> None:
    with pytest.raises(LabelMapError, match=r"^n01/a\.pt: (not a tensor saved by torch|holds a int)"):
        load(with_pickle(steps, place))


def with_pickle(steps: bytes, place: str) -> bytes:
    """A file whose first or last pickle in the older format, or whose pickle in an archive, takes these steps."""
    legacy = io.BytesIO()
    for number in (MAGIC_NUMBER, PROTOCOL_VERSION, 0, 0):
        pickle.dump(number, legacy, 2)
    before = {"alone": b"", "last": legacy.getvalue()}
    bad = b"\x80\x02" + steps
    return repacked(pt_bytes(make_tensor()), pickled=bad) if place == "zip" else before[place] + bad


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archive_with_a_part_twice_is_refused() -> None:
    file = io.BytesIO(pt_bytes(make_tensor()))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data.pkl", b"")
    with warnings.catch_warnings(action="error"), pytest.raises(LabelMapError, match=r"^n01/a\.pt: not a tensor"):
        load(file.getvalue())


def repacked(
    data: bytes, compression: int = zipfile.ZIP_STORED, *, record_0: bytes | None = None, pickled: bytes | None = None
) -> bytes:
    """The same archive with other compression, or other bytes for the tensor's values or its pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            record = {"data/0": record_0, "data.pkl": pickled}.get(entry.filename.partition("/")[2])
            new.writestr(entry.filename, old.read(entry) if record is None else record)
    return out.getvalue()


def test_compressed_archive_is_refused_before_it_is_unpacked() -> None:
    bomb = repacked(pt_bytes(torch.zeros(2, 5, 1000, 1000)), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(LabelMapError, match="a compressed archive"):
        load(bomb)


def test_archive_that_claims_more_than_the_file_holds_is_refused() -> None:
    data = pt_bytes(make_tensor())
    at = data.rindex(b"archive/data/0") - 46  # the entry in the central directory
    assert data[at : at + 4] == b"PK\x01\x02"
    lying = data[: at + 24] + struct.pack("<I", 1 << 30) + data[at + 28 :]
    with pytest.raises(LabelMapError, match=r"claims [\d,]+ bytes in a file of [\d,]+"):
        load(lying)


def test_storage_shorter_than_its_tensor_is_refused() -> None:
    with pytest.raises(LabelMapError, match=r"n01/a\.pt: "):
        load(repacked(pt_bytes(make_tensor()), record_0=bytes(8)))


def two_faced(first: bytes, second: bytes) -> bytes:
    """An archive in which torch's zip reader finds the first map, Python's the second."""

    def split(data: bytes) -> tuple[bytes, bytes, bytes]:
        size, offset = struct.unpack("<II", data[-10:-2])
        return data[:offset], data[offset : offset + size], data[-22:]

    locals_1, directory_1, _ = split(first)
    locals_2, directory_2, end = split(second)
    assert len(directory_1) == len(directory_2)
    patched, at = bytearray(directory_2), 0
    while at < len(patched):
        name, extra, comment = struct.unpack("<HHH", patched[at + 28 : at + 34])
        (offset,) = struct.unpack("<I", patched[at + 42 : at + 46])
        patched[at + 42 : at + 46] = struct.pack("<I", len(locals_1) + offset - len(locals_2))
        at += 46 + name + extra + comment
    return locals_1 + directory_1 + locals_2 + bytes(patched) + end[:16] + struct.pack("<I", len(locals_1)) + end[20:]


def test_torch_is_shown_the_archive_that_was_checked_and_no_other() -> None:
    hidden, shown = make_tensor(seed=1), make_tensor(seed=2)
    data = two_faced(repacked(pt_bytes(hidden)), repacked(pt_bytes(shown)))
    assert torch.equal(torch.load(io.BytesIO(data), weights_only=True), hidden)
    np.testing.assert_array_equal(load(data).scores, shown[0].numpy())


def with_value(part: int, value: float, dtype: torch.dtype = torch.float32) -> bytes:
    tensor = make_tensor()
    tensor[part, 0, 1, 2] = value
    return pt_bytes(tensor.to(dtype))


BAD_VALUES: list[tuple[bytes, str]] = [
    (with_value(0, float("nan")), "scores that are NaN or beyond 65,504"),
    (with_value(0, 65_505.0), "scores that are NaN or beyond 65,504"),
    (with_value(0, float("inf"), torch.float16), "scores that are NaN or beyond 65,504"),
    (with_value(1, 1.5), "not integers from 0 to 11"),
    (with_value(1, -1), "not integers from 0 to 11"),
    (with_value(1, C), "not integers from 0 to 11; see --num-classes"),
    (with_value(1, float("nan")), "not integers from 0 to 11"),
    (pt_bytes(torch.zeros(2, 3, 4, 4)), "a class comes twice in one cell"),
    (pt_bytes(torch.zeros(2, 13, 4, 4)), "a top 13 of 12 classes"),
    (pt_bytes(make_tensor()[0]), r"shape \[3, 4, 4\], expected \[2, K, H, W\]"),
    (pt_bytes(make_tensor()[:1]), r"shape \[1, 3, 4, 4\]"),
    (pt_bytes(torch.zeros(2, 0, 4, 4)), r"shape \[2, 0, 4, 4\]"),
    (pt_bytes(make_tensor().int()), "torch.int32 tensor, expected float64, float32 or float16"),
    (pt_bytes(make_tensor().to_sparse()), "2 tensors, expected one"),
    (pt_bytes(make_tensor().to_sparse(), **FORMATS[1]), "holds more than a tensor"),
    (pt_bytes(make_tensor()[..., ::2]), r"overlap or have gaps between them; save it with \.contiguous"),
    (pt_bytes(torch.zeros(60).as_strided((2, 3, 2, 2), (1, 1, 1, 1))), "overlap or have gaps"),
    (pt_bytes([make_tensor(), make_tensor()]), "2 tensors, expected one"),
    (pt_bytes([make_tensor()]), "holds a list, expected one tensor"),
    (pt_bytes(torch.nn.Parameter(make_tensor())), "holds more than a tensor"),
    (pt_bytes({"a": 1}), "0 tensors, expected one"),
    (b"", "an empty file"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9300\n", "a Git LFS pointer, not the file"),
    (b"hello " * 100, "its pickle is damaged"),
    (rb"S'\ '" + b"\n.", "not a tensor saved by torch"),  # which Python warns of
    (pt_bytes(make_tensor())[:-300], r"a damaged \.pt archive"),
    (pt_bytes(make_tensor())[:200], r"a damaged \.pt archive"),
    (pt_bytes(make_tensor(), **FORMATS[1])[:-8], "not a tensor saved by torch"),
]


@pytest.mark.parametrize(("data", "message"), BAD_VALUES)
def test_what_no_store_can_hold_is_refused_with_the_files_name(data: bytes, message: str) -> None:
    with pytest.raises(LabelMapError, match=r"^n01/a\.pt: .*" + message):
        load(data)


def test_float16_ids_are_refused_where_they_could_be_rounded() -> None:
    tensor = make_tensor(num_classes=2000).half()
    assert load(pt_bytes(tensor), 2049).shape == (3, 4, 4)
    with pytest.raises(LabelMapError, match="float16 cannot tell the ids of 2050 classes apart"):
        load(pt_bytes(tensor), 2050)


@given(st.data())
def test_flipped_bytes_load_or_are_refused_and_raise_nothing_else(data: st.DataObject) -> None:
    options = data.draw(st.sampled_from(FORMATS))
    saved = bytearray(pt_bytes(make_tensor(), **options))
    for _ in range(data.draw(st.integers(1, 4))):
        # Not drawn up to the length: the older format holds addresses, of more or fewer digits.
        saved[data.draw(st.integers(0, 1 << 16)) % len(saved)] = data.draw(st.integers(0, 255))
    with suppress(LabelMapError):
        found = load(bytes(saved))
        assert found.classes.max() < C
        assert np.isfinite(found.scores).all()
