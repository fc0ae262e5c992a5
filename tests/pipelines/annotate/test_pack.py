"""`relabel-annotate pack`: what comes out is what went in."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.annotate.__main__ import main
from store.shards.index import index_shard
from tests.builders.stores import make_jpeg


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["pack", *map(str, arguments)])


def make_folder(root: Path) -> dict[str, tuple[bytes, int]]:
    """Two classes, a subfolder, dots and capitals in names; gives image and label by key."""
    files = {
        "cat/a.jpg": ("cat/a", 0), "cat/b.x.JPG": ("cat/b_x", 0), "cat/more/a.jpeg": ("cat/more/a", 0),
        "Dog 1/a.jpg": ("Dog 1/a", 1), "Dog 1/\u00e9.jpg": ("Dog 1/\u00e9", 1),
    }  # fmt: skip
    expected = {}
    for seed, (name, (key, label)) in enumerate(files.items()):
        data = make_jpeg(seed)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        expected[key] = (data, 1 - label)  # capitals come first
    return expected


def test_shards_hold_every_image_with_its_class(tmp_path: Path) -> None:
    expected = make_folder(tmp_path / "images")
    result = run(tmp_path / "images", "--out", tmp_path / "shards", "--shard-size", 2)
    assert result.exit_code == 0, result.output
    assert "5 images of 2 classes in 3 shards" in result.stdout
    shards = sorted((tmp_path / "shards").glob("*.tar"))
    assert [path.name for path in shards] == ["train-0000.tar", "train-0001.tar", "train-0002.tar"]
    assert (tmp_path / "shards" / "classes.txt").read_text() == "Dog 1\ncat\n"
    found: dict[str, tuple[bytes, int]] = {}
    for path in shards:
        index, data = index_shard(path), path.read_bytes()
        found |= {s.key: (data[s.offset : s.offset + s.length], s.label) for s in index.samples}
    assert found == expected


def test_bytes_depend_on_the_arguments_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(tmp_path / "images", "--out", tmp_path / name, "--seed", seed).exit_code == 0
    first, again, other = ((tmp_path / name / "train-0000.tar").read_bytes() for name in "abc")
    assert first == again != other


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    (tmp_path / "images" / "cat" / "notes\x1b[31m.txt").touch()
    result = run(tmp_path / "images", "--out", tmp_path / "shards")
    assert result.exit_code == 0
    assert "left out, without an image extension: " in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "cat" / "b_x.png").write_bytes(b"0"), "would both be sample 'cat/b_x'; rename one"),
        (lambda root: (root / "empty").mkdir(), "empty: holds no jpeg, jpg, png, webp; a class needs images"),
        (lambda root: (root / "cat" / os.fsdecode(b"\xff.jpg")).write_bytes(b"0"), "its name is not UTF-8"),
        (lambda root: (root / "cat" / "gone.jpg").symlink_to("absent"), "gone.jpg: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_packed_is_one_line(tmp_path: Path, spoil: object, message: str) -> None:
    make_folder(tmp_path / "images")
    assert callable(spoil)
    spoil(tmp_path / "images")
    result = run(tmp_path / "images", "--out", tmp_path / "shards")
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list((tmp_path / "shards").glob("*.tar")) if (tmp_path / "shards").exists() else True


def test_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-0000.tar").write_text("mine")
    result = run(tmp_path / "images", "--out", tmp_path / "shards")
    assert result.exit_code == 1
    assert "not empty; choose a new folder" in result.stderr
    assert (tmp_path / "shards" / "train-0000.tar").read_text() == "mine"


def test_folder_without_classes_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    result = run(tmp_path / "images", "--out", tmp_path / "shards")
    assert result.exit_code == 1
    assert "holds no folders; expected one for each class" in result.stderr
