import json
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from torch import Tensor

from pipelines.train.__main__ import main
from pipelines.train.recipes import RECIPES
from tests.builders.training import Dataset, make_dataset
from trainer.batch import Batch
from trainer.settings import TrainSettings
from trainer.student.student import Student

SMALL = (
    "epochs=1", "warmup_epochs=0", "batch_size=32", "image_size=32", "val_size=32", "workers=0", "device=cpu",
    "log_interval=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("dataset"), (40, 30))


def invoke(
    data: Dataset, out: Path, *more: str, shards: str = "train-{0,1}.tar", settings: tuple[str, ...] = SMALL
) -> Result:
    folder = data.labels.parent
    arguments = [
        "run", "--recipe", "demo", "--shards", str(folder / shards), "--labels", str(data.labels),
        "--val", str(folder / "va*.tar"), "--out", str(out), *more,
    ]  # fmt: skip
    return CliRunner().invoke(main, [*arguments, *(part for setting in settings for part in ("--set", setting))])


def assert_one_line_error(result: Result, text: str, *, status: int = 1) -> None:
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_run_prints_plain_lines_and_its_result(data: Dataset, tmp_path: Path) -> None:
    result = invoke(data, tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 epoch done, best top-1 ")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("epoch 1/1 step 2/2: loss ")
    assert "top-1" in lines[1]
    assert lines[1].endswith("(best so far)")
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["image_size"] == 32


def test_resume_continues_and_without_it_the_folder_is_refused(data: Dataset, tmp_path: Path) -> None:
    assert invoke(data, tmp_path / "run", "--resume").exit_code == 0
    assert_one_line_error(invoke(data, tmp_path / "run"), "not empty; choose another folder")
    assert invoke(data, tmp_path / "run", "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=much", "lr='much': expected a number"),
        ("epoch=3", "did you mean epochs"),
        ("model=x", "timm has no such model"),
        ("model_args=" + "[" * 100_000, "expected a JSON object"),
        ('model_args={"checkpoint_path": "/etc/passwd"}', "model_args: 'checkpoint_path' cannot be set"),
        ("opt=adahessian", "cannot be trained with opt='adahessian'"),
        ("lr=1e308", "lr=1e+308: expected above 0, at most 1,000,000"),
    ],
)
def test_bad_settings_are_one_line(data: Dataset, tmp_path: Path, setting: str, message: str) -> None:
    assert_one_line_error(invoke(data, tmp_path / "run", settings=(*SMALL, setting)), message)
    assert not (tmp_path / "run").exists()


def test_missing_shards_and_labels_are_one_line(data: Dataset, tmp_path: Path) -> None:
    assert_one_line_error(invoke(data, tmp_path / "run", shards="train-{0..2}.tar"), "1 of 3 shards are missing")
    assert_one_line_error(invoke(data, tmp_path / "run", shards="val.tar"), "no labels for 1 of 1 shards")
    elsewhere = Dataset(shards=data.shards, labels=data.labels.parent / "none", val=data.val)
    assert_one_line_error(invoke(elsewhere, tmp_path / "run"), "no label store here")


def test_an_out_that_is_a_file_is_one_line(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert_one_line_error(invoke(data, tmp_path / "run"), f"{tmp_path / 'run'} is a file, not a folder")


def test_names_cannot_steer_the_terminal(data: Dataset, tmp_path: Path) -> None:
    result = invoke(data, tmp_path / "a\x1b[31mb")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("a\\x1b[31mb\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_prints_how_to_resume(
    data: Dataset, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, stop = Student.update, [2]

    def interrupted(self: Student, batch: Batch, done: int) -> Tensor:
        if done in stop:
            signal.raise_signal(number)
        return update(self, batch, done)

    monkeypatch.setattr(Student, "update", interrupted)
    settings = (*SMALL, "epochs=2")
    stopped = invoke(data, tmp_path / "run", settings=settings)
    assert stopped.exit_code == 0
    assert stopped.stdout.startswith("1 epoch and 1 step done")
    assert stopped.stderr.endswith("stopped by a signal; the same command with --resume continues from here\n")
    stop.clear()
    finished = invoke(data, tmp_path / "run", "--resume", settings=settings)
    assert (finished.exit_code, finished.stdout[:14]) == (0, "2 epochs done,")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("alchemy", "there are demo, resnet18_relabel"), ("resnet18_rleabel", "did you mean resnet18_relabel, ")],
)
def test_unknown_recipes_are_usage_errors_with_near_names(name: str, hint: str) -> None:
    result = CliRunner().invoke(main, ["run", "--recipe", name])
    assert result.exit_code == 2
    assert f"no recipe is called '{name}'; {hint}" in result.stderr


def test_every_option_has_help() -> None:
    assert all(parameter.help for parameter in main.commands["run"].params if hasattr(parameter, "help"))
    assert "--set KEY=VALUE" in CliRunner().invoke(main, ["run", "--help"]).stdout


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete_settings(name: str) -> None:
    assert isinstance(RECIPES[name](), TrainSettings)


def test_help_and_recipes_do_not_wait_for_torch() -> None:
    import subprocess
    import sys

    code = "import sys, pipelines.train.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
