"""The commands `relabel-annotate run` and `status`: usage, and users' mistakes."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from annotator.report import Summary
from pipelines.annotate.__main__ import main
from pipelines.annotate.progress import ANNOTATE, IMPORT, RunText
from pipelines.annotate.run import run_shards
from store.cli.main import main as store_main
from store.errors import FailedShardsError
from store.reader import LabelStore
from tests.builders.processes import small_disk
from tests.builders.stores import make_jpeg, make_members, write_tar
from tests.builders.teachers import save_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "teacher.safetensors")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.zarr"


def arguments(labels: Path | str, weights: Path, *shards: object) -> list[str]:
    patterns = [part for shard in shards for part in ("--shards", str(shard))]
    return [
        "run", *patterns, "--labels", str(labels), "--teacher", "test_resnet", "--checkpoint", str(weights),
        "--num-classes", "12", "--input-size", "64x96", "--workers", "0",
    ]  # fmt: skip


def run(labels: Path | str, weights: Path, *shards: object, more: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(main, [*arguments(labels, weights, *shards), *more])


def last_error(result: Result) -> str:
    """The one line that says what is wrong."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return errors[-1]


def test_braces_and_globs_are_annotated_and_resumed(tmp_path: Path, labels: Path, weights: Path) -> None:
    for i in range(3):
        write_tar(tmp_path / f"a-{i:03}.tar", make_members(2, first=2 * i))
    write_tar(tmp_path / "b.tar", make_members(3))
    first = run(labels, weights, tmp_path / "a-{000..001}.tar")
    assert first.exit_code == 0, first.output
    assert "2 shards annotated, 0 were there already, 0 failed; 4 images" in first.stdout
    again = run(labels, weights, tmp_path / "a-*.tar", tmp_path / "b.tar", more=("--top-k", "5"))
    assert "2 shards annotated, 2 were there already, 0 failed; 5 images" in again.stdout
    assert LabelStore.open(labels).names() == ["a-000", "a-001", "a-002", "b"]


def test_part_of_the_checkpoint_that_was_taken_is_said_and_recorded(
    tmp_path: Path, labels: Path, weights: Path
) -> None:
    average = load_file(weights)
    file = tmp_path / "last.pth.tar"
    torch.save({"state_dict": {"fc.bias": torch.zeros(1)}, "state_dict_ema": average, "epoch": 3}, file)
    result = run(labels, file, write_tar(tmp_path / "a.tar", make_members(1)))
    assert f"{file}: took moving average (state_dict_ema)\n" in result.stderr
    group = LabelStore.open(labels).group("a")
    assert group.commit.provenance["weights"] == "moving average (state_dict_ema)"


def test_options_reach_the_store(tmp_path: Path, labels: Path, weights: Path) -> None:
    names = tmp_path / "names.txt"
    # As an editor may leave it: a byte order mark, and a name with a character that ends lines elsewhere.
    names.write_text("".join(f"class {i}\u2028\n" for i in range(12)), encoding="utf-8-sig")
    more = ("--top-k", "2", "--mean", "0.1,0.2,0.3", "--std", "0.5", "--class-names", str(names),
            "--teacher-arg", "output_stride=8")  # fmt: skip
    result = run(labels, weights, write_tar(tmp_path / "a.tar", make_members(2)), more=more)
    assert result.exit_code == 0, result.output
    schema = LabelStore.open(labels).schema
    assert (schema.top_k, schema.map_size, schema.preprocessing.input_size) == (2, (8, 12), (64, 96))
    assert (schema.preprocessing.mean, schema.preprocessing.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert schema.teacher.arguments == {"output_stride": 8, "num_classes": 12}
    assert [schema.class_name(0), schema.class_name(3)] == ["class 0", "class 3"]


def bomb() -> bytes:
    data = bytearray(make_jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def test_damaged_shards_are_named_and_the_others_finish(tmp_path: Path, labels: Path, weights: Path) -> None:
    good = write_tar(tmp_path / "good.tar", make_members(2))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(good.read_bytes()[:1024])
    no_tar = tmp_path / "notar.tar"
    no_tar.write_text("hello " * 200)
    twice = write_tar(tmp_path / "twice.tar", make_members(1) * 2)
    blind = write_tar(tmp_path / "blind.tar", [("a.cls", b"1")])
    result = run(labels, weights, cut, no_tar, good, twice, blind)
    assert "4 of 5 shards failed" in last_error(result)
    for expected in (
        "cut.tar: ends at byte 1024",
        "notar.tar: not a tar",
        "two samples with the key",
        "no image members",
    ):
        assert expected in result.stdout
    assert LabelStore.open(labels).names() == ["good"]


def test_undecodable_images_are_left_out_and_the_run_succeeds(tmp_path: Path, labels: Path, weights: Path) -> None:
    members = [*make_members(2), ("cut.jpg", make_jpeg()[:-300]), ("bomb.jpg", bomb()), ("text.jpg", b"hello")]
    shard = write_tar(tmp_path / "a.tar", members)
    result = run(labels, weights, shard)
    assert result.exit_code == 0, result.output
    claim = "bomb: the header claims 65000 x 65000"
    for expected in ("a.tar: cut: damaged image: Truncated", claim, "text: not a readable"):
        assert expected in result.stdout
    assert set(LabelStore.open(labels).group("a").undecodable) == {2, 3, 4}
    assert "a.tar: 2 label maps written" in result.stderr
    for limit in ("2", "59.9%"):
        failed = run(labels.with_name("other.zarr"), weights, shard, more=("--max-bad", limit))
        assert f"already 3 of its 5 images are undecodable, --max-bad allows {limit}" in failed.stdout
        assert "1 of 1 shards failed" in last_error(failed)
    misspelt = run(labels, weights, shard, more=("--max-bad", "few"))
    assert misspelt.exit_code == 2
    assert "max-bad should be a number such as 100, or a share such as 1%, not 'few'" in misspelt.stderr


def test_mistakes_in_arguments_are_one_line(tmp_path: Path, labels: Path, weights: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(2))
    (tmp_path / "copy").mkdir()
    copy = write_tar(tmp_path / "copy" / "a.tar", make_members(2))
    short = tmp_path / "names.txt"
    short.write_text("cat\ndog\n")
    cases: list[tuple[Result, str]] = [
        (run(labels, weights, tmp_path / "none.tar"), "1 of 1 shards are missing or not regular files: "),
        (run(labels, weights, tmp_path / "x-{0..4}.tar"), "5 of 5 shards are missing or not regular files: "),
        (run(labels, weights, tmp_path / "none-*.tar"), "none-*.tar: the pattern matches no file"),
        (run(labels, weights, "ftp://host/a.tar"), "ftp://host/a.tar: not a URL of an object store"),
        (run(labels, weights, shard, copy), "shard names must be unique"),
        (run(labels, weights, tmp_path / "a.tgz"), "missing"),
        (run(labels, weights, shard, more=("--teacher", "resnet19")), "timm knows no such model; did you mean"),
        (run(labels, weights, shard, more=("--num-classes", "7")), "teacher.safetensors: does not fit the teacher"),
        (run(labels, tmp_path / "no.pth", shard), "no.pth: no such checkpoint"),
        (run(labels, weights, shard, more=("--class-names", str(short))), "2 class names given for 12 classes"),
        (run(labels, weights, shard, more=("--class-names", "no.txt")), "no.txt: class names cannot be read"),
        (run(labels, weights, shard, more=("--device", "quantum")), "device 'quantum' cannot be used"),
        (run(labels, weights, shard, more=("--teacher-arg", "x=1")), "cannot be built with {'x': 1}"),
        (run(labels, weights, shard, more=("--std", "0")), "std must be positive"),
        (run(labels, weights, shard, more=("--mean", "123.7,116.3,103.5")), "mean and std are of pixels in [0, 1]"),
        (run(labels, weights, shard, more=("--mean", "nan")), "mean and std are of pixels in [0, 1]"),
        (run(tmp_path / "copy", weights, shard), "not a label store and not empty"),
        (run(shard, weights, shard), "not a label store and not empty"),
    ]
    for result, message in cases:
        assert message in last_error(result)
    assert not labels.exists()


@pytest.mark.parametrize("text", [ANNOTATE, IMPORT])
def test_runs_over_shards_end_with_the_same_summary(
    tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str], text: RunText
) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(1))

    def work(summary: Summary, _: object) -> None:
        summary.annotated(1_200, shard, 1)
        summary.failed(shard, "a.tar: cut\nshort")
        for i in range(22):
            summary.undecodable(shard, f"key{i}", "no image")

    with pytest.raises(FailedShardsError, match="1 of 1 shards failed; repair them and run again"):
        run_shards(work, 1, labels, text)
    said, more = capsys.readouterr().out.splitlines(), f"1 failed; 1,200 {text.unit} in "
    assert said[0].startswith(f"{labels}: 0 shards {text.done}, 0 were there already, {more}")
    assert said[1:3] == ["  failed: a.tar: cut\\nshort", "  undecodable: a.tar: key0: no image"]
    assert said[-1] == "  and 2 more undecodable images"


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("text", [ANNOTATE, IMPORT])
def test_interrupted_run_says_where_finished_shards_are(
    labels: Path, capsys: pytest.CaptureFixture[str], text: RunText, done: bool
) -> None:
    def work(summary: Summary, _: object) -> None:
        if done:
            summary.committed(Path("a.tar"), 3)
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match=r"^1$"):
        run_shards(work, 1, labels, text)
    where = f"finished shards are in {labels}" if done else "no shard was finished"
    assert f"interrupted; {where}, run again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [("--input-size", "big"), ("--mean", "1,2"), ("--teacher-arg", "x"), ("--top-k", "0"), ("--precision", "x")]
)
def test_misspelt_options_are_usage_errors(tmp_path: Path, labels: Path, weights: Path, more: tuple[str, ...]) -> None:
    assert run(labels, weights, write_tar(tmp_path / "a.tar", make_members(1)), more=more).exit_code == 2


def test_store_of_another_teacher_is_one_line(tmp_path: Path, labels: Path, weights: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(2))
    run(labels, weights, shard)
    other = save_weights(tmp_path / "other.safetensors", seed=1)
    assert "written with another teacher or preprocessing (teacher: " in last_error(run(labels, other, shard))
    assert run(labels, other, shard, more=("--overwrite",)).exit_code == 0


def test_full_disk_is_one_line_and_finished_groups_stay(tmp_path: Path, labels: Path, weights: Path) -> None:
    shards = [write_tar(tmp_path / f"{name}.tar", make_members(n)) for name, n in (("a", 1), ("b", 300))]
    with small_disk(4000):
        result = run(labels, weights, *shards)
    assert "cannot be written: File too large; nothing was committed" in last_error(result)
    assert LabelStore.open(labels).names() == ["a"]
    assert run(labels, weights, *shards).exit_code == 0


@pytest.mark.parametrize("good", [0, 1])
def test_keys_never_steer_the_terminal(tmp_path: Path, labels: Path, weights: Path, good: int) -> None:
    shard = write_tar(tmp_path / "a.tar", [*make_members(good), ("evil\x1b[2J\n[red]key.jpg", b"not an image")])
    result = run(labels, weights, shard)
    assert result.exit_code == (0 if good else 1)
    assert "evil\\x1b[2J\\n[red]key" in result.stdout
    assert "\x1b" not in result.output


def test_whole_process_exits_with_1_and_no_traceback(tmp_path: Path, labels: Path, weights: Path) -> None:
    command = [sys.executable, "-m", "pipelines.annotate", *arguments(labels, weights, tmp_path / "none.tar")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: 1 of 1 shards are missing")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_killed_decoding_worker_is_one_line(tmp_path: Path, labels: Path, weights: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(3000))
    command = [sys.executable, "-m", "pipelines.annotate", *arguments(labels, weights, shard)]
    command[command.index("--workers") + 1] = "1"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = ""
    while not worker and process.poll() is None:
        # By torch's name for it, among the children of the server that workers are forked from.
        servers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        found = ["pgrep", "-P", ",".join(servers.stdout.split()) or "0", "pt_data_worker"]
        worker = subprocess.run(found, capture_output=True, text=True, check=False).stdout.strip()
    os.kill(int(worker.split()[0]), signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: a worker process was killed" in stderr
    assert "Traceback" not in stderr


def test_store_in_a_bucket_is_annotated_continued_and_shown(tmp_path: Path, weights: Path, s3_store: str) -> None:
    write_tar(tmp_path / "a-000.tar", make_members(3))
    write_tar(tmp_path / "a-001.tar", make_members(2, first=5))
    first = run(s3_store, weights, tmp_path / "a-000.tar")
    assert first.exit_code == 0, first.output
    again = run(s3_store, weights, tmp_path / "a-*.tar", more=("--workers", "1"))
    assert again.exit_code == 0, again.output
    assert f"{s3_store}: 1 shard annotated, 1 were there already, 0 failed; 2 images" in again.stdout
    shown = CliRunner().invoke(store_main, ["show", s3_store, "img0006"])
    assert shown.exit_code == 0, shown.output
    verified = CliRunner().invoke(store_main, ["verify", s3_store, "--deep", "--shards", str(tmp_path / "a-*.tar")])
    assert verified.exit_code == 0, verified.output


def test_status_lists_the_state_of_every_shard(tmp_path: Path, labels: Path, weights: Path) -> None:
    shards = [write_tar(tmp_path / f"{name}.tar", make_members(3)) for name in "abcd"]
    write_tar(shards[0], [*make_members(2), ("bad.jpg", b"\xff\xd8\xff nothing")])
    assert run(labels, weights, *shards[:3]).exit_code == 0
    write_tar(shards[1], make_members(4))
    (labels / "c" / "zarr.json").write_text("{")
    result = CliRunner().invoke(main, ["status", str(labels), "--shards", str(tmp_path / "*.tar")])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0, result.output
    assert lines[0] == f"done       {shards[0]}: 3 images, 1 undecodable"
    assert lines[1].startswith(f"changed    {shards[1]}: not the shard its labels were made from")
    assert lines[2].startswith(f"damaged    {labels / 'c' / 'zarr.json'}: ")
    assert lines[3] == f"missing    {shards[3]}"
    assert lines[4] == "1 of 4 shards done, 1 missing, 1 changed, 1 damaged; 3 images, 1 undecodable"
    as_json = CliRunner().invoke(main, ["status", str(labels), "--shards", str(tmp_path / "*.tar"), "--json"])
    assert [shard["state"] for shard in json.loads(as_json.stdout)] == ["done", "changed", "damaged", "missing"]
    nowhere = CliRunner().invoke(main, ["status", str(tmp_path / "no.zarr"), "--shards", str(tmp_path / "*.tar")])
    assert "no label store here" in last_error(nowhere)
