"""`relabel-annotate pack`: what comes out is what went in."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from torchvision.datasets import ImageFolder

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


def write_images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\xff\xd8\xff")


def packed(out: Path) -> dict[str, int]:
    return {sample.key: sample.label for path in out.glob("*.tar") for sample in index_shard(path).samples}


def test_hidden_folders_and_files_are_no_classes_and_no_images_and_are_named(tmp_path: Path) -> None:
    root = tmp_path / "images"
    hidden = (
        ".ipynb_checkpoints/a.jpg",
        "__MACOSX/cat/a.jpg",
        "cat/.ipynb_checkpoints/a.jpg",
        "cat/._a.jpg",
        "cat/.b.png",
    )
    write_images(root, "cat/a.jpg", "dog/a.jpg", *hidden)
    result = run(root, "--out", tmp_path / "shards")
    assert packed(tmp_path / "shards") == {"cat/a": 0, "dog/a": 1}
    assert f"left out, hidden: '{root / '.ipynb_checkpoints'}', '{root / '__MACOSX'}', " in result.stderr
    assert "and 2 more" in result.stderr
    (tmp_path / "other").mkdir()
    (root / "a.jpg").write_bytes(b"")
    assert f"left out, not in a class folder: '{root / 'a.jpg'}'" in run(root, "--out", tmp_path / "other").stderr


def test_links_to_folders_are_followed_as_imagefolder_does(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, "cat/a.jpg", "dog/a.jpg")
    write_images(tmp_path / "elsewhere", "b.jpg", "deep/c.jpg")
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "fox").symlink_to(tmp_path / "elsewhere" / "deep")
    assert run(root, "--out", tmp_path / "shards").exit_code == 0
    expected = ImageFolder(str(root))
    keys = {str(Path(path).relative_to(root).with_suffix("")): label for path, label in expected.samples}
    assert packed(tmp_path / "shards") == keys
    assert (tmp_path / "shards" / "classes.txt").read_text().split() == expected.classes


def test_links_in_a_circle_end_and_are_named(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, "cat/a.jpg", "dog/b.jpg")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "dogs").symlink_to(root / "dog")
    (root / "dog" / "cats").symlink_to(root / "cat")
    result = run(root, "--out", tmp_path / "shards")
    assert packed(tmp_path / "shards") == {"cat/a": 0, "cat/dogs/b": 0, "dog/b": 1, "dog/cats/a": 1}
    links = [root / name for name in ("cat/dogs/cats", "cat/loop", "dog/cats/dogs", "dog/cats/loop")]
    named = result.stderr.partition("a link to a folder that holds it: ")[2]
    assert all(str(link) in named or "and 1 more" in named for link in links)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["1", "2", "3"], "the folders' numbers are not the class ids: '1' is class 0, since names are sorted as text"),
        (list(map(str, range(11))), "the folders' numbers are not the class ids: '10' is class 2, since "),
        (["c10", "c2", "c9"], "class 0 is 'c10', before 'c2', since names are sorted as text"),
        (["b2x10", "a\u0663", "b2x9"], "class 1 is 'b2x10', before 'b2x9', since"),
        (list(map(str, range(10))), ""),
        ([f"{i:02}" for i in range(11)], ""),
        (["n01440764", "n01443537", "1st"], ""),
    ],
)
def test_numbers_in_names_that_do_not_give_the_order_are_pointed_out(
    tmp_path: Path, names: list[str], note: str
) -> None:
    write_images(tmp_path / "images", *(f"{name}/a.jpg" for name in names))
    result = run(tmp_path / "images", "--out", tmp_path / "shards")
    assert packed(tmp_path / "shards") == {f"{name}/a": i for i, name in enumerate(sorted(names))}
    assert f"class 0 is {min(names)!r}, class {len(names) - 1} is {max(names)!r}" in result.stdout
    assert result.stderr.startswith(f"note: {note}") if note else result.stderr == ""


def test_validation_folder_that_lacks_a_class_is_pointed_out(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{part}/{name}/a.jpg" for part in ("train", "val") for name in ("cat", "dog", "fox")))
    for part in ("train", "val"):
        assert run(tmp_path / part, "--out", tmp_path / f"shards_{part}").stderr == ""
    (tmp_path / "val" / "dog" / "a.jpg").unlink()
    (tmp_path / "val" / "dog").rmdir()
    result = run(tmp_path / "val", "--out", tmp_path / "other")
    train = tmp_path / "shards_train" / "classes.txt"
    assert f"note: 'fox' is class 1 here and 2 in {train}; without a folder here: 'dog'. Training and" in result.stderr


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "cat" / "b_x.png").write_bytes(b"0"), "would both be sample 'cat/b_x'; rename one"),
        (lambda root: (root / "empty").mkdir(), "empty: holds no jpeg, jpg, png, webp; a class needs images"),
        (lambda root: (root / "cat" / os.fsdecode(b"\xff.jpg")).write_bytes(b"0"), "its name is not UTF-8"),
        (lambda root: os.mkfifo(root / "cat" / "pipe.jpg"), "pipe.jpg: not a regular file; move it away"),
        (lambda root: write_images(root, "a\nb/a.jpg"), "a\\nb: its name holds a line break"),
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
