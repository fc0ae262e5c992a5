"""The commands `relabel-annotate import` and `export`, on the demo's scenes and teacher."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from pipelines.annotate.__main__ import main
from pipelines.digits import teacher as digits
from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import write_shards
from store.reader import LabelStore
from tests.builders.processes import small_disk
from tests.builders.published import make_tensor, pt_bytes, write_map
from tests.builders.stores import make_members, write_tar
from tests.builders.teachers import run_annotator, save_weights

SCENES = 48
ORIGIN = ["--num-classes", "10", "--input-size", "120", "--mean", "0.5", "--std", "0.5"]
TEACHER = ["--teacher", digits.TEACHER_NAME, "--teacher-arg", "output_stride=8", "--checkpoint",
           str(digits.TEACHER_WEIGHTS), "--device", "cpu"]  # fmt: skip


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def last_error(result: Result) -> str:
    """The one line that says what is wrong."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return errors[-1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of scenes, their label maps by the shipped teacher, exported both ways, and shards without boxes."""
    folder = tmp_path_factory.mktemp("demo")
    shards = write_shards(folder / "shards", "train", SCENES, 2, seed=3)
    settings = TeacherSettings(
        name=digits.TEACHER_NAME, args=dict(digits.TEACHER_ARGS), checkpoint=digits.TEACHER_WEIGHTS,
        num_classes=10, input_size=(120, 120), mean=digits.MEAN, std=digits.STD, device="cpu",
    )  # fmt: skip
    run_annotator(shards, folder / "labels.zarr", Teacher(settings), CLASS_NAMES, batch_size=32)
    for axes in ("yx", "xy"):
        result = invoke("export", folder / "labels.zarr", folder / axes, "--axes", axes)
        assert f"{SCENES} maps written" in result.stdout, result.output
    (folder / "bare").mkdir()
    for shard in shards:
        with tarfile.open(shard) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar if not m.name.endswith(".json")]  # type: ignore[union-attr]
        write_tar(folder / "bare" / shard.name, members)
    return folder


@pytest.mark.parametrize("axes", ["yx", "xy"])
@pytest.mark.parametrize(("shards", "by", "unit"), [("shards", [], "boxes"), ("bare", TEACHER, "images")])
def test_demo_maps_come_back_the_right_way_round_by_boxes_or_teacher(
    demo: Path, tmp_path: Path, axes: str, shards: str, by: list[str], unit: str
) -> None:
    labels = tmp_path / "labels.zarr"
    result = invoke("import", demo / axes, "--shards", demo / shards / "*.tar", "--labels", labels, *ORIGIN, *by)
    assert result.exit_code == 0, result.output
    assert f"axes: {axes} (" in result.stderr
    assert f"{unit} agree)" in result.stderr
    assert f"2 shards imported, 0 were there already, 0 failed; {SCENES} maps" in result.stdout
    for before, after in zip(LabelStore.open(demo / "labels.zarr"), LabelStore.open(labels), strict=True):
        np.testing.assert_array_equal(after.read().classes, before.read().classes)
        np.testing.assert_array_equal(after.read().scores, before.read().scores)


def test_without_evidence_the_command_asks_for_axes(demo: Path, tmp_path: Path) -> None:
    arguments = ["import", demo / "xy", "--shards", demo / "bare" / "*.tar", "--labels", tmp_path / "l.zarr", *ORIGIN]
    assert "pass --teacher NAME to compare its predictions, or --axes yx or --axes xy" in last_error(invoke(*arguments))
    assert not (tmp_path / "l.zarr").exists()
    assert invoke(*arguments, "--axes", "xy").exit_code == 0
    again = invoke(*arguments, "--axes", "xy")
    assert "0 shards imported, 2 were there already" in again.stdout
    assert "was imported with --axes xy, now it is yx" in last_error(invoke(*arguments, "--axes", "yx"))


def test_teacher_that_knows_nothing_decides_nothing(demo: Path, tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "random.safetensors", num_classes=10, output_stride=8)
    result = invoke("import", demo / "xy", "--shards", demo / "bare" / "*.tar", "--labels", tmp_path / "l.zarr",
                    *ORIGIN, *TEACHER, "--checkpoint", weights)  # fmt: skip
    assert "axes undecided (" in last_error(result)
    assert not (tmp_path / "l.zarr").exists()


def test_options_reach_the_store(demo: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{name}\n" for name in CLASS_NAMES))
    result = invoke("import", demo / "xy", "--shards", demo / "shards" / "*.tar", "--labels", tmp_path / "l.zarr",
                    "--axes", "xy", "--architecture", "their-net", "--class-names", names,
                    "--num-classes", "10", "--input-size", "120x60", "--interpolation", "bicubic")  # fmt: skip
    assert result.exit_code == 0, result.output
    schema = LabelStore.open(tmp_path / "l.zarr").schema
    assert (schema.teacher.architecture, schema.class_names, schema.num_classes) == ("their-net", CLASS_NAMES, 10)
    assert (schema.preprocessing.input_size, schema.preprocessing.mean) == ((120, 60), (0.485, 0.456, 0.406))
    assert schema.preprocessing.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("given", "crop_pct"), [("centre", 0.875), ("centre:0.956", 0.956), ("centre:1", 1.0), ("whole", None)]
)
def test_region_is_recorded(tmp_path: Path, given: str, crop_pct: float | None) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(1))
    write_map(tmp_path / "root", "x/img0000")
    labels = tmp_path / "l.zarr"
    result = invoke("import", tmp_path / "root", "--shards", shard, "--labels", labels, "--axes", "yx",
                    "--num-classes", "12", "--region", given)  # fmt: skip
    assert result.exit_code == 0, result.output
    view = LabelStore.open(labels).schema.to_attributes()["view"]
    assert (view["mode"], view.get("crop_pct")) == ("squash" if crop_pct is None else "centre", crop_pct)
    exported = invoke("export", labels, tmp_path / "out", "--axes", "xy")
    assert ("they cover the centre" in exported.stderr) == (crop_pct is not None)


@pytest.mark.parametrize(
    "region", ["center", "centre:", "centre:0", "centre:0.0", "centre:87.5", "centre:nan", "whole:1"]
)
def test_region_that_is_none_is_wrong_usage(region: str) -> None:
    result = invoke("import", "maps", "--shards", "a.tar", "--labels", "l.zarr", "--region", region)
    assert result.exit_code == 2
    assert "expected whole, centre, or centre:PCT with a fraction such as centre:0.956" in " ".join(
        result.output.split()
    )


def test_missing_maps_are_counted_and_named_and_the_status_is_1(tmp_path: Path) -> None:
    shards = [write_tar(tmp_path / f"{name}.tar", make_members(3, first=3 * i)) for i, name in enumerate("ab")]
    for i in range(4):
        write_map(tmp_path / "root", f"x/img{i:04}")
    result = invoke("import", tmp_path / "root", "--shards", tmp_path / "*.tar", "--labels", tmp_path / "l.zarr",
                    "--axes", "xy", "--num-classes", "12")  # fmt: skip
    assert last_error(result) == "error: 1 of 2 shards failed; repair them and run again"
    assert f"failed: {shards[1]}: 2 of 3 samples have no map: 'img0004', 'img0005'" in result.stdout
    assert LabelStore.open(tmp_path / "l.zarr").names() == ["a"]


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


def test_mistakes_in_arguments_and_files_are_one_line(demo: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(2))
    write_map(tmp_path / "good", "x/img0000")
    for name, content in (
        ("evil", pt_bytes([make_tensor(), Evil(tmp_path / "trace")])),
        ("huge", pt_bytes(torch.zeros(1).expand(2, 5, 100_000, 100_000))),
    ):
        write_map(tmp_path / name, "x/img0000", content)
    (tmp_path / "cut.tar").write_bytes(shard.read_bytes()[:-5000])
    more = ["--shards", shard, "--labels", tmp_path / "l.zarr", "--num-classes", "12"]
    cases: list[tuple[Result, str]] = [
        (invoke("import", tmp_path / "none", *more), "none: no such folder or tar of published maps"),
        (invoke("import", tmp_path / "cut.tar", *more), "cut.tar: "),
        (invoke("import", tmp_path, *more), "holds no maps; expected <class folder>/<name>.pt"),
        (invoke("import", tmp_path / "evil", *more), "evil/x/img0000.pt: not loaded: its pickle"),
        (invoke("import", tmp_path / "huge", *more), "huge/x/img0000.pt: claims 100,000,000,000 elements"),
        (
            invoke("import", tmp_path / "good", *more, "--num-classes", "3"),
            "img0000.pt: class ids that are not integers",
        ),
        (
            invoke("import", demo / "xy", *more),
            "none of the 48 maps belongs to a sample of 1 shards, such as 'img0000'",
        ),
        (invoke("import", tmp_path / "good", *more, "--teacher", "resnet19"), "timm knows no such model"),
        (
            invoke("import", demo / "xy", "--shards", demo / "bare/*.tar", *more[2:4], *ORIGIN, *TEACHER[:2]),
            "its pretrained weights have 1000 classes, not 10; pass --checkpoint FILE",
        ),
        (invoke("import", tmp_path / "good", *more, "--class-names", "no.txt"), "no.txt: class names cannot be read"),
        (invoke("import", tmp_path / "good", "--shards", "no.tar", "--labels", "l"), "1 of 1 shards are missing"),
        (invoke("export", tmp_path / "none.zarr", tmp_path / "out"), "none.zarr: no label store here"),
        (invoke("export", demo / "labels.zarr", tmp_path / "good"), "good: not empty"),
    ]
    for result, message in cases:
        assert message in last_error(result)
    assert not (tmp_path / "l.zarr").exists()
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "more", [("--axes", "x"), ("--input-size", "big"), (*TEACHER, "--axes", "yx"), TEACHER[2:4], TEACHER[4:6]]
)
def test_misspelt_and_contradicting_options_are_usage_errors(demo: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    result = invoke("import", demo / "xy", "--shards", demo / "bare/*.tar", "--labels", tmp_path / "l.zarr", *more)
    assert result.exit_code == 2


def test_keys_and_members_never_steer_the_terminal(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [*make_members(1), ("evil\x1b[2J\n[red]key.jpg", make_members(1)[0][1])])
    write_map(tmp_path / "root", "x/img0000")
    result = invoke("import", tmp_path / "root", "--shards", shard, "--labels", tmp_path / "l.zarr", "--axes", "yx",
                    "--num-classes", "12")  # fmt: skip
    assert "a key with control characters cannot name a file" in result.stdout
    assert "\x1b" not in result.output
    root = tmp_path / "evil\x1b[2Jroot"
    result = invoke("import", root, "--shards", shard, "--labels", tmp_path / "l.zarr")
    assert "evil\\x1b[2Jroot: no such folder" in last_error(result)
    assert "\x1b" not in result.output


def test_export_notes_limits_of_the_official_trainer(demo: Path, tmp_path: Path) -> None:
    result = invoke("export", demo / "labels.zarr", tmp_path / "yx", "--axes", "yx")
    assert result.exit_code == 0
    assert "note: the official trainer will misread these maps: it reads the crops' boxes" in result.stderr
    assert "note" not in invoke("export", demo / "labels.zarr", tmp_path / "xy").stderr


def test_full_disk_is_one_line_and_leaves_no_part_of_a_file(demo: Path, tmp_path: Path) -> None:
    with small_disk(4000):
        result = invoke("export", demo / "labels.zarr", tmp_path / "maps")
    assert ".pt: cannot be written: File too large" in last_error(result)
    assert [path for path in (tmp_path / "maps").rglob("*") if path.is_file()] == []
