import json
from pathlib import Path
from typing import Any

import pytest
import torch

from store.errors import SettingsError, ShardError
from tests.builders.training import png, write_tar
from trainer.evaluation.evaluate import Tally, open_val
from trainer.evaluation.real import IMAGES, MAX_BYTES, check_real, read_real, val_number


def key(number: int) -> str:
    return f"val/ILSVRC2012_val_{number:08}"


def one_hot(*best: int, classes: int = 7) -> torch.Tensor:
    """Logits of one sample: these classes from the highest on, then the others by their number."""
    order = [*best, *(c for c in range(classes) if c not in best)]
    logits = torch.empty(1, classes)
    logits[0, order] = torch.arange(classes, 0, -1.0)
    return logits


def test_each_label_has_its_samples_and_hits() -> None:
    tally = Tally(4)
    for label, logits in ((0, one_hot(0)), (2, one_hot(6, 5)), (2, one_hot(2)), (3, one_hot(6, 5, 4)), (2, one_hot(5))):
        tally.add(["any"], torch.tensor([label]), logits)
    assert tally.per_class_L3.tolist() == [[1, 1, 1], [0, 0, 0], [3, 1, 3], [1, 0, 0]]
    assert tally.total() == (5, 2, 4)
    assert tally.real_2.tolist() == [0, 0]


def test_a_batch_counts_as_its_samples_do() -> None:
    torch.manual_seed(0)
    labels, logits = torch.randint(0, 9, (50,)), torch.randn(50, 9)
    at_once, one_by_one = Tally(9), Tally(9)
    at_once.add(["any"] * 50, labels, logits)
    for i in range(50):
        one_by_one.add(["any"], labels[i : i + 1], logits[i : i + 1])
    assert torch.equal(at_once.per_class_L3, one_by_one.per_class_L3)
    assert at_once.total()[1] == int((logits.argmax(1) == labels).sum())


def test_real_hits_are_any_of_an_images_labels_found_by_key() -> None:
    real = (frozenset({1}), frozenset(), frozenset({2, 3}), *[frozenset({0})] * (IMAGES - 3))
    tally = Tally(1, real)
    samples = [(3, 3), (1, 1), (2, 0), (3, 1), (IMAGES, 0)]  # image number, predicted class
    keys = [key(number) for number, _ in samples]
    tally.add(keys, torch.zeros(5, dtype=torch.int64), torch.cat([one_hot(best) for _, best in samples]))
    assert tally.real_2.tolist() == [4, 3]  # image 2 has no labels and does not count


def write_real(file: Path, document: Any) -> Path:
    file.write_text(json.dumps(document))
    return file


def test_real_labels_are_read_in_the_order_of_the_images(tmp_path: Path) -> None:
    labels = read_real(write_real(tmp_path / "real.json", [[i % 1000] * (i % 3) for i in range(IMAGES)]))
    assert len(labels) == IMAGES
    assert labels[:3] == (frozenset(), frozenset({1}), frozenset({2}))


LISTS = [[0]] * IMAGES


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"a": 1}, r"expected a list of 50,000 lists of class ids, found dict$"),
        (LISTS[1:], r"expected a list of 50,000 lists of class ids, found a list of 49,999$"),
        ([*LISTS[:41], [1000], *LISTS[42:]], r"image 42 of 50,000: expected .* from 0 to 999, found \[1000\]$"),
        ([*LISTS[:41], [-1], *LISTS[42:]], r"image 42 .*found \[-1\]"),
        ([*LISTS[:41], [True], *LISTS[42:]], r"image 42 .*found \[True\]"),
        ([*LISTS[:41], [1.0], *LISTS[42:]], r"image 42 .*found \[1\.0\]"),
        ([*LISTS[:41], 7, *LISTS[42:]], r"image 42 .*found 7"),
        ([*LISTS[:41], ["x" * 10_000], *LISTS[42:]], r"image 42 .*found \['x+\.\.\.x+'\]"),
    ],
)
def test_a_document_that_is_not_reals_is_one_line(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=r"real\.json: .*" + message) as caught:
        read_real(write_real(tmp_path / "real.json", document))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"[1" + b"0" * 10_000 + b"]", b"PK\x03\x04"])
def test_bytes_that_are_not_json_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "real.json").write_bytes(content)
    with pytest.raises(SettingsError, match=r"real\.json: not JSON; expected the published real\.json$"):
        read_real(tmp_path / "real.json")


def test_real_labels_in_no_regular_file_or_too_large_a_file_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"real\.json: ReaL labels cannot be read: No such file"):
        read_real(tmp_path / "real.json")
    with pytest.raises(SettingsError, match=r"not a regular file; expected the published real\.json"):
        read_real(tmp_path)
    with (tmp_path / "real.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(SettingsError, match=r"real\.json: 16,777,217 bytes; expected the published"):
        read_real(tmp_path / "real.json")


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ("n01440764_36", "'n01440764_36'"),
        ("ILSVRC2012_val_00050001", "'ILSVRC2012_val_00050001'"),
        ("ILSVRC2012_val_00000000", "'ILSVRC2012_val_00000000'"),
        ("ILSVRC2012_val_0000001", "'ILSVRC2012_val_0000001'"),
        ("ILSVRC2012_val_00000001x", "'ILSVRC2012_val_00000001x'"),
        ("ILSVRC2012_val_0000000\u0661", "'ILSVRC2012_val_0000000\u0661'"),
    ],
)
def test_keys_that_are_not_imagenets_are_refused_before_anything_is_scored(
    tmp_path: Path, bad: str, found: str
) -> None:
    members = [(f"{name}{ext}", data) for name in (key(7), bad) for ext, data in ((".png", png(0)), (".cls", b"0"))]
    val = open_val([write_tar(tmp_path / "v.tar", members)], 1000)
    with pytest.raises(
        ShardError, match=r"v\.tar: ReaL labels are found by key; expected .*_00050000, found "
    ) as caught:
        check_real(val, 1000)
    assert str(caught.value).endswith(found)


def test_only_a_student_of_imagenets_classes_is_scored_by_real(tmp_path: Path) -> None:
    val = open_val([write_tar(tmp_path / "v.tar", [(f"{key(7)}.png", png(0)), (f"{key(7)}.cls", b"0")])], 10)
    check_real(val, 1000)
    with pytest.raises(SettingsError, match=r"of ImageNet's 1000 classes; the student knows 10$"):
        check_real(val, 10)


def test_image_numbers_go_from_1_to_50000() -> None:
    assert [val_number(key(1)), val_number(key(IMAGES))] == [1, IMAGES]
