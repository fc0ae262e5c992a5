"""A store that is copied over while it is read gives its old labels or an error, never the new labels."""

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import obstore
import pytest
from obstore.store import from_url

from store.errors import DamagedStoreError, StoreReadError
from store.group import LabelGroup
from store.reader import LabelStore
from store.writer import StoreWriter
from tests.builders.servers import web_server
from tests.builders.stores import PROVENANCE, ROWS, TAR, make_labels, make_schema, reseal, write

NOISY = msgspec.structs.replace(make_schema(num_classes=65_535, top_k=1, map_size=(8, 8)), score_kind="logit")


def write_alike(path: Path | str, seed: int) -> None:
    """A group whose objects have the same sizes for every seed, since its maps are noise that is not compressible."""
    bits = np.random.default_rng(seed).integers(0, 65_535, (2, ROWS, 1, 8, 8)).astype(np.uint16)
    bits[1][bits[1] & 0x7C00 == 0x7C00] ^= 0x4000  # no infinite scores
    labels = make_labels(make_schema(), ROWS, with_tail=False)
    fields = {name: getattr(labels, name) for name in type(labels).__slots__}
    fields |= {"classes": bits[0], "scores": bits[1].view(np.float16)}
    StoreWriter.open(path, NOISY).write("a", type(labels)(**fields), tar=TAR, provenance=PROVENANCE)


def scores_of(path: Path | str) -> "np.typing.NDArray[np.float16]":
    return LabelStore.open(path).group("a").read().scores


def copy_in_place(new: Path, old: Path) -> None:
    subprocess.run(["cp", "-r", f"{new}/.", str(old)], check=True)


def copy_objects_alone(new: Path, old: Path) -> None:
    for file in new.glob("*/c/**/*"):
        if file.is_file():
            (old / file.relative_to(new)).write_bytes(file.read_bytes())


def rename_objects(new: Path, old: Path) -> None:
    for file in sorted(new.rglob("*")):
        if file.is_file():
            os.replace(shutil.copy(file, old.parent / "copy"), old / file.relative_to(new))


def remove_and_copy(new: Path, old: Path) -> None:
    shutil.rmtree(old)
    subprocess.run(["cp", "-r", str(new), str(old)], check=True)


def rename_folder(new: Path, old: Path) -> None:
    old.rename(old.with_name("old"))
    shutil.copytree(new, old)


COPIES = [copy_in_place, copy_objects_alone, rename_objects, remove_and_copy, rename_folder]


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """Two stores of one teacher whose objects have equal sizes."""
    paths = tmp_path / "old.zarr", tmp_path / "new.zarr"
    for seed, path in enumerate(paths):
        write_alike(path, seed)
    sizes = [
        {file.relative_to(path): file.stat().st_size for file in path.rglob("*") if file.is_file()} for path in paths
    ]
    assert sizes[0] == sizes[1]
    assert not np.array_equal(scores_of(paths[0]), scores_of(paths[1]))
    return paths


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("state", ["opened", "read", "pickled"])
def test_store_that_is_copied_over_is_never_read_as_the_old_one(
    stores: tuple[Path, Path], copy: Callable[[Path, Path], None], state: str
) -> None:
    old, new = stores
    group = LabelStore.open(old).group("a")
    if state == "read":
        group.read(0, 1)
    if state == "pickled":  # as for a worker of the loader
        group = pickle.loads(pickle.dumps(group)).fresh()
    copy(new / "a", old / "a")
    for start in (0, 64):
        with pytest.raises(StoreReadError, match="was replaced or changed while it was open"):
            group.read(start, start + 5)
        with pytest.raises(StoreReadError, match="was replaced or changed while it was open"):
            group.read_rows(("scores",), slice(start, start + 5))


@pytest.mark.parametrize("copy", COPIES)
def test_same_bytes_that_are_copied_over_a_store_do_no_harm(
    stores: tuple[Path, Path], tmp_path: Path, copy: Callable[[Path, Path], None]
) -> None:
    old = stores[0]
    expected, same = scores_of(old), tmp_path / "same"
    shutil.copytree(old / "a", same)
    group = LabelStore.open(old).group("a")
    group.read(0, 1)
    copy(same, old / "a")
    for _ in range(2):
        assert np.array_equal(group.read().scores, expected)


def test_object_that_is_damaged_before_it_is_opened_is_called_damaged(stores: tuple[Path, Path]) -> None:
    file = stores[0] / "a" / "scores" / "c" / "0" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DamagedStoreError, match=r"scores/c/0/0/0/0: damaged \(the index of its chunks"):
        LabelStore.open(stores[0]).group("a").read()


def test_objects_that_are_put_over_those_of_a_bucket_are_never_read_as_the_old_ones(
    stores: tuple[Path, Path], s3_store: str
) -> None:
    bucket = from_url(s3_store, client_options={"allow_http": True})

    def upload(path: Path) -> None:
        for file in path.rglob("*"):
            if file.is_file():
                obstore.put(bucket, file.relative_to(path).as_posix(), file.read_bytes())

    upload(stores[0])
    opened, read = (LabelStore.open(s3_store).group("a") for _ in range(2))
    read.read(0, 1)
    upload(stores[0])
    assert np.array_equal(read.read().scores, scores_of(stores[0]))
    upload(stores[1])
    assert_refused(opened, read)
    assert np.array_equal(scores_of(s3_store), scores_of(stores[1]))


def test_files_of_a_web_server_that_are_replaced_are_never_read_as_the_old_ones(
    stores: tuple[Path, Path], tmp_path: Path
) -> None:
    with web_server(tmp_path) as url:
        opened, read = (LabelStore.open(f"{url}/old.zarr").group("a") for _ in range(2))
        read.read(0, 1)
        copy_in_place(stores[1] / "a", stores[0] / "a")
        for file in stores[0].rglob("*"):
            os.utime(file, (2e9, 2e9))  # such servers give whole seconds
        assert_refused(opened, read)


def assert_refused(*groups: LabelGroup) -> None:
    for group in groups:
        with pytest.raises(StoreReadError, match="was replaced or changed while it was open"):
            group.read(64, 70)


def test_exchanged_groups_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    for seed, name in enumerate("ab"):
        write(path, name, seed)
    for source, target in (("a", "x"), ("b", "a"), ("x", "b")):
        (path / source).rename(path / target)
    with pytest.raises(DamagedStoreError, match=r"a/zarr\.json: holds the labels of the shard 'b': the folder was"):
        LabelStore.open(path).group("a")


def test_group_of_another_teacher_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, "a")
    reseal(path, {"teacher_digest": "other"})
    with pytest.raises(DamagedStoreError, match=r"a/zarr\.json: made by another teacher \('other'\) than the store's"):
        LabelStore.open(path).group("a")
