import json
import os
import signal
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import pipelines.demo.stages
import pipelines.reproduce.arms
from pipelines.digits.scenes import draw_scene, load_pool
from pipelines.digits.shards import SceneTruth
from pipelines.digits.teacher import load_teacher, normalise, stack_images
from pipelines.machine import describe_machine
from pipelines.reproduce import data, report, students, timing
from pipelines.reproduce.__main__ import main
from pipelines.reproduce.arms import ARMS, DISTILLED, ORIGINAL, RELABEL, Arm, distilled_targets
from pipelines.reproduce.data import Data
from pipelines.reproduce.timing import ANNOTATION
from pipelines.train.recipes import demo
from store.errors import RunFolderError, TrainingError
from trainer.batch import blank_batch
from trainer.run.loop import SIGNALS, StopSignal
from trainer.run.records import Reporter, StepReport
from trainer.settings import TrainSettings, settings_to_json
from trainer.targets.custom import CustomTargets

DATA = Data(training=[], labels=Path("labels.zarr"), test=[], truths=[])


def test_every_arm_has_the_demos_settings_but_for_its_target() -> None:
    base = settings_to_json(demo())
    changed = {
        arm.name: {name for name, value in settings_to_json(arm.settings(3)).items() if base[name] != value}
        for arm in ARMS
    }
    assert len(changed) == len(ARMS) == 8
    assert set().union(*changed.values()) == {"target", "label_smoothing", "cutmix_prob", "seed"}
    assert len({json.dumps([settings_to_json(arm.settings(0)), arm.distils]) for arm in ARMS}) == len(ARMS)


def test_distilled_targets_are_the_teachers_probabilities_for_the_crops() -> None:
    scenes = [draw_scene(5, index, load_pool("val")) for index in range(3)]
    images = stack_images(scenes)[:, :, :64, :64]
    batch = replace(blank_batch(DISTILLED.settings(0), 3), images=images)
    targets = distilled_targets().make(batch)
    with torch.no_grad():
        expected = load_teacher()(normalise(images)).softmax(1)
    assert torch.allclose(targets, expected, atol=1e-5)
    assert len(set(targets.argmax(1).tolist())) > 1
    assert not targets.is_inference()


def test_present_classes_follow_the_order_of_the_keys() -> None:
    truths = [
        SceneTruth(key=key, labels=labels, boxes=((0, 0, 1, 1),) * len(labels))
        for key, labels in (("a", (3, 3, 5)), ("b", (9,)))
    ]
    found = students.present_classes(truths, ["b", "a"])
    assert [set(np.flatnonzero(row)) for row in found] == [{9}, {3, 5}]


def test_only_the_distilled_arm_has_custom_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, str | None]] = []

    def train(
        settings: TrainSettings, *, custom_targets: CustomTargets | None, reporter: Reporter, **_: object
    ) -> Finished:
        given.append((settings.target, None if custom_targets is None else custom_targets.name))
        for step in (25, 50, 125):
            reporter.step(step_report(step))
        return Finished()

    times = iter([100.0, 101.0, 104.0] * 3)
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    monkeypatch.setattr("pipelines.digits.student.train", train)
    students._train(DISTILLED, 0, DATA, tmp_path)
    assert timing._epoch(DISTILLED, DATA) == pytest.approx(4 / 100 * 125)  # but for the steps before the first report
    students._train(ORIGINAL, 0, DATA, tmp_path)
    assert timing._epoch(RELABEL, DATA) == pytest.approx(5)
    name = "the demo's teacher on every crop"
    assert given == [("relabel", name), ("relabel", name), ("original", None), ("relabel", None)]


class Finished:
    stopped = False


def step_report(step: int) -> StepReport:
    return StepReport(epoch=1, epochs=1, step=step, steps=125, loss=1, lr=1, images_per_second=1, waiting=0)


def test_test_scenes_differ_from_the_demos_validation_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, int]] = []

    def write(folder: Path, split: str, count: int, shards: int, seed: int) -> list[Path]:
        drawn.append((split, seed))
        return []

    monkeypatch.setattr(data, "make_shards", lambda _: ([], []))
    monkeypatch.setattr(data, "annotate_digits", lambda *_: None)
    monkeypatch.setattr(data, "write_shards", write)
    with pytest.raises(RunFolderError, match="has 0 test scenes, not 2,000; choose another folder"):
        data.make_data(tmp_path)
    ((split, seed),) = drawn
    assert split == "val"
    assert seed != pipelines.demo.stages.SEED


def test_the_last_epochs_student_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    def load(file: Path) -> None:
        loaded.append(file)
        raise RunFolderError("enough")

    for updates in (125, 1000):
        (tmp_path / f"step-{updates:08}.pt").touch()
    monkeypatch.setattr(students, "load_trained", load)
    with pytest.raises(RunFolderError, match="enough"):
        students._score(tmp_path, DATA)
    assert loaded == [tmp_path / "step-00001000.pt"]


@pytest.mark.parametrize(
    "times",
    [
        "[" * 100_000,
        "{}",
        [[1.0], []],  # a round that some arms lack
        [[0.0], [1.0]],
        [[float("nan")], [1.0]],
        [[10**400], [1.0]],
        ["1", "2"],
        [1, 2],
    ],
)
def test_damaged_times_are_one_line(tmp_path: Path, times: str | list[object]) -> None:
    file = tmp_path / "times.json"
    if isinstance(times, list):
        seconds = dict(zip((ANNOTATION, RELABEL.name), times, strict=True))
        times = json.dumps({"machine": describe_machine(), "settings": {}, "seconds": seconds})
    file.write_text(times)
    with pytest.raises(RunFolderError, match=r"times\.json: (damaged; delete it|of another machine)"):
        timing.time_epochs((RELABEL,), DATA, file)


@pytest.mark.parametrize(("machine", "epochs"), [("an abacus", 1), (None, 2)])
def test_times_of_another_machine_or_other_settings_are_refused(
    tmp_path: Path, machine: str | None, epochs: int
) -> None:
    settings = settings_to_json(replace(timing._settings(RELABEL), epochs=epochs))
    found = {
        "machine": machine or describe_machine(),
        "settings": {"relabel": settings},
        "seconds": {ANNOTATION: [1.0], "relabel": [1.0]},
    }
    (tmp_path / "times.json").write_text(json.dumps(found))
    with pytest.raises(RunFolderError, match="of another machine or other settings; delete it"):
        timing.time_epochs((RELABEL,), DATA, tmp_path / "times.json")


def test_timing_goes_on_with_the_rounds_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def epoch(arm: Arm, _: Data) -> float:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arm.name)
        return float(len(calls))

    monkeypatch.setattr(timing, "_annotation", lambda _: 7.0)
    monkeypatch.setattr(timing, "_epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        timing.time_epochs((RELABEL,), DATA, tmp_path / "times.json")
    monkeypatch.setattr(timing, "_epoch", lambda *_: 9.0)
    times = timing.time_epochs((RELABEL,), DATA, tmp_path / "times.json")
    assert times.seconds == {ANNOTATION: [7.0] * timing.ROUNDS, "relabel": [1.0, 2.0, 9.0]}


SCORES = {"present": 0.9, "label": 0.5, "precision": 0.8, "calibration": 0.1}


@pytest.mark.parametrize(
    "record",
    [
        "[" * 100_000,
        {"settings": [], "scores": {}},
        {"settings": {}, "scores": SCORES | {"label": float("nan")}},
        {"settings": {}, "scores": SCORES | {"label": 7}},
        {"settings": {}, "scores": SCORES | {"label": "7"}},
        {"settings": None, "scores": SCORES},
    ],
)
def test_a_damaged_result_is_one_line(tmp_path: Path, record: object) -> None:
    file = tmp_path / "result.json"
    file.write_text(record if isinstance(record, str) else json.dumps(record))
    with pytest.raises(RunFolderError, match=r"result\.json: damaged; delete it"):
        students.read_result(tmp_path, RELABEL, 0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few scenes, three arms, one round."""
    for module in (pipelines.reproduce.arms, report):
        monkeypatch.setattr(module, "ARMS", (ORIGINAL, RELABEL, DISTILLED))
    monkeypatch.setattr(pipelines.demo.stages, "TRAIN_SCENES", 96)
    monkeypatch.setattr(pipelines.demo.stages, "VAL_SCENES", 8)
    monkeypatch.setattr(data, "TEST_SCENES", 60)
    monkeypatch.setattr(timing, "ROUNDS", 1)
    monkeypatch.setattr(timing, "REPORTED_STEPS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_reproduction_that_was_stopped_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, reports = tmp_path / "out", tmp_path / "reports"
    call = ["--out", str(out), "--reports", str(reports), "--seeds", "3"]
    monkeypatch.setattr(students, "cores", lambda: 2)
    printed: list[str] = []

    def echo(message: str = "", **_: object) -> None:
        printed.append(message)
        if sum(" of 9: " in line for line in printed) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("click.echo", echo)
        assert CliRunner().invoke(main, call).exit_code == 1  # as Ctrl-C leaves it
    assert list(reports.iterdir()) == []
    done = len(list(out.glob("runs/*/result.json")))  # a second one may have been at its end
    assert 3 <= done < 9
    finished = CliRunner().invoke(main, call)
    assert finished.exit_code == 0, finished.output
    assert f"training {9 - done} of 9 students, " in finished.output
    assert all(f"\n{i} of 9:" in finished.output for i in range(done + 1, 10))
    assert f"\n{done} of 9:" not in finished.output
    text = (reports / "ablation.md").read_text()
    again = CliRunner().invoke(main, call)
    assert " of 9" not in again.output
    assert (reports / "ablation.md").read_text() == text

    seeds = {json.loads((folder / "result.json").read_text())["settings"]["seed"] for folder in out.glob("runs/*-1")}
    assert seeds == {1}
    (out / "runs" / "relabel-0" / "result.json").write_text('{"scores": 1}')
    damaged = CliRunner().invoke(main, call)
    assert damaged.exit_code == 1
    assert damaged.stderr.splitlines()[-1].endswith(
        "relabel-0/result.json: damaged; delete it, and the student is scored again"
    )


def test_a_result_of_other_settings_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "relabel-0"
    folder.mkdir()
    settings = settings_to_json(replace(RELABEL.settings(0), epochs=9))
    scores = {"present": 0.9, "label": 0.5, "precision": 0.8, "calibration": 0.1}
    (folder / "result.json").write_text(json.dumps({"settings": settings, "scores": scores}))
    with pytest.raises(RunFolderError, match=r"result\.json: of other settings \(epochs: 9 then, 8 now\)"):
        students.read_result(folder, RELABEL, 0)


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refused(*_: object) -> None:
    raise RunFolderError("another run is at work")


def endless(arm: Arm, *_: object) -> None:
    refused() if arm.name == ORIGINAL.name else time.sleep(1000)


def signalled(*_: object) -> None:
    with StopSignal() as asked:
        for number in SIGNALS:
            os.kill(os.getpid(), number)
        assert not asked()
    refused()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (
            killed,
            pytest.raises(TrainingError, match="was killed, most often for lack of memory; run it again to go on"),
        ),
        (signalled, pytest.raises(RunFolderError, match="another run is at work")),
        (refused, pytest.raises(RunFolderError, match="another run is at work")),
        (endless, pytest.raises(RunFolderError, match="another run is at work")),
    ],
)
def test_a_student_that_fails_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: object, expected: AbstractContextManager[object]
) -> None:
    monkeypatch.setattr(students, "cores", lambda: 2)
    monkeypatch.setattr(students, "run_one", work)
    with expected:
        students.run_all((ORIGINAL, RELABEL), 3, DATA, tmp_path)


def test_a_damaged_result_is_found_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "_train_all", lambda *_: pytest.fail("trained"))
    (tmp_path / "relabel-2").mkdir()
    (tmp_path / "relabel-2" / "result.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"relabel-2/result\.json: damaged"):
        students.run_all((ORIGINAL, RELABEL), 3, DATA, tmp_path)
