import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import pipelines.demo
import pipelines.reproduce.arms
from pipelines.digits.pools import load_pool
from pipelines.digits.scenes import draw_scene
from pipelines.digits.teacher import load_teacher, normalise, stack_images
from pipelines.digits.truth import SceneTruth
from pipelines.machine import describe_machine
from pipelines.recipes import demo
from pipelines.reproduce import material, plot, report, runs, significance, timing
from pipelines.reproduce.__main__ import main
from pipelines.reproduce.arms import ARMS, DISTILLED, ORIGINAL, RELABEL, Arm
from pipelines.reproduce.distil import distilled_targets
from pipelines.reproduce.metrics import Scores, calibration_error, measure
from pipelines.reproduce.plot import draw_ablation
from pipelines.reproduce.report import verdict, write_report
from pipelines.reproduce.runs import Result
from pipelines.reproduce.significance import Comparison, compare, errors_needed, holm, standard_error
from pipelines.reproduce.timing import ANNOTATION, Times
from store.errors import RunFolderError
from trainer.batch import blank_batch
from trainer.overrides import settings_to_json
from trainer.own_targets import OwnTargets
from trainer.report import Reporter, StepReport
from trainer.settings import TrainSettings

GLOBAL, CUTMIX, SINGLE = (
    next(arm for arm in ARMS if arm.name == name) for name in ("global", "relabel-cutmix", "global-single")
)


def result(arm: Arm, seed: int, present: float) -> Result:
    return Result(arm=arm.name, seed=seed, scores=Scores(present=present, label=0.5, precision=0.7, calibration=0.1))


def results(values: Mapping[str, Sequence[float]]) -> list[Result]:
    arms = {arm.name: arm for arm in ARMS}
    return [result(arms[name], seed, value) for name, row in values.items() for seed, value in enumerate(row)]


def test_every_arm_has_the_demos_settings_but_for_its_target() -> None:
    base = settings_to_json(demo())
    changed = {
        arm.name: {name for name, value in settings_to_json(arm.settings(3)).items() if base[name] != value}
        for arm in ARMS
    }
    assert len(changed) == len(ARMS) == 8
    assert set().union(*changed.values()) == {"target", "label_smoothing", "cutmix_prob", "seed"}
    assert len({json.dumps([settings_to_json(arm.settings(0)), arm.distils]) for arm in ARMS}) == len(ARMS)


def test_a_top1_among_the_classes_present_is_a_hit_as_in_real() -> None:
    logits = np.array([[3, 1, 0], [0, 3, 1], [0, 1, 3], [0, 1, 3]], np.float32)
    labels = np.array([1, 1, 0, 2])
    present = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], np.bool_)
    scores = measure(logits, labels, present)
    assert scores.present == 3 / 4
    assert scores.label == 2 / 4


def test_precision_is_one_where_every_present_class_outranks_every_absent_one() -> None:
    present = np.random.default_rng(0).random((50, 3)) < 0.5
    present[:, 0] |= ~present.any(1)
    scores = measure(np.where(present, 6, -6).astype(np.float32), np.zeros(50, np.int64), present)
    # Softmax lessens a class's probability where others are present too, but never below that where it is absent.
    assert scores.precision == pytest.approx(1)
    assert measure(np.where(present, -6, 6).astype(np.float32), np.zeros(50, np.int64), present).precision < 0.6


def test_calibration_error_weighs_bins_by_their_scenes() -> None:
    confidences = np.array([0.99] * 3 + [0.35], np.float32)
    hits = np.array([True, True, False, True])
    assert calibration_error(confidences, hits) == pytest.approx(0.75 * (0.99 - 2 / 3) + 0.25 * 0.65, abs=1e-6)
    assert calibration_error(np.ones(4, np.float32), np.ones(4, np.bool_)) == 0


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


def test_present_follows_the_keys_order() -> None:
    truths = [
        SceneTruth(key=key, labels=labels, boxes=((0, 0, 1, 1),) * len(labels))
        for key, labels in (("a", (3, 3, 5)), ("b", (9,)))
    ]
    found = runs.present(truths, ["b", "a"])
    assert [set(np.flatnonzero(row)) for row in found] == [{9}, {3, 5}]


def test_a_pair_is_compared_in_the_published_order() -> None:
    (found,) = compare((ORIGINAL, RELABEL), results({"original": [0.8, 0.81, 0.79], "relabel": [0.7, 0.71, 0.689]}))
    assert (found.better, found.worse, found.published) == (RELABEL, ORIGINAL, 1.4)
    assert found.difference == pytest.approx(-0.1, abs=1e-3)
    assert verdict(found) == "contrary to what was published, significant"


def test_seeds_are_compared_with_their_own() -> None:
    rows = {"original": [0.1, 0.5, 0.9], "relabel": [0.12, 0.53, 0.92]}  # far apart from seed to seed
    (found,) = compare((ORIGINAL, RELABEL), results(rows))
    assert found.is_significant
    assert found.error < 0.004
    shuffled = {"original": rows["original"], "relabel": rows["relabel"][::-1]}
    assert not compare((ORIGINAL, RELABEL), results(shuffled))[0].is_significant


def test_more_pairs_make_each_harder_to_believe() -> None:
    rows = {"original": [0.8, 0.81, 0.79], "relabel": [0.82, 0.83, 0.82], "global": [0.8, 0.8, 0.8]}
    (alone,) = compare((ORIGINAL, RELABEL), results(rows))
    among = compare((ORIGINAL, RELABEL, GLOBAL), results(rows))[0]
    assert (among.better, among.worse) == (alone.better, alone.worse)
    assert among.p > alone.p == alone.p_alone == among.p_alone


@pytest.mark.parametrize("better", [0.8, 0.80025])
def test_the_same_difference_for_every_seed_proves_nothing(better: float) -> None:
    rows = {"original": [0.8, 0.8, 0.8], "relabel": [better] * 3}  # one scene of 4,000, if any
    (found,) = compare((ORIGINAL, RELABEL), results(rows))
    assert (found.p, found.is_significant) == (1, False)


def test_the_order_of_the_results_does_not_matter() -> None:
    found = results({"original": [0.1, 0.5, 0.9], "relabel": [0.12, 0.53, 0.92]})
    assert compare((ORIGINAL, RELABEL), found) == compare((ORIGINAL, RELABEL), found[::-1])


def test_a_difference_as_large_as_needed_is_just_significant() -> None:
    rng, seeds, pairs = np.random.default_rng(0), 5, 28
    noise = rng.normal(size=seeds)
    noise = (noise - noise.mean()) / standard_error(noise)
    for factor, expected in ((1.01, True), (0.99, False)):
        values = noise + factor * errors_needed(pairs, seeds)
        assert (pairs * significance._p_value(values) < significance.LEVEL) is expected


def test_holm_never_lets_a_larger_value_pass_before_a_smaller_one() -> None:
    assert holm([0.02, 0.02, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.6, 0.5]) == [1, 1]


@pytest.mark.parametrize(
    ("pair", "difference", "p", "expected"),
    [
        ((RELABEL, ORIGINAL), 0.1, 0.01, "as published, significant"),
        ((RELABEL, ORIGINAL), 0.1, 0.2, "as published, not significant"),
        ((RELABEL, ORIGINAL), 0.0, 1.0, "equal here"),
        ((RELABEL, ORIGINAL), -0.1, 0.2, "contrary to what was published, not significant"),
        ((SINGLE, ORIGINAL), 0.1, 0.01, "published as equal, significant here"),
        ((DISTILLED, RELABEL), 0.1, 0.2, "not published, not significant here"),
    ],
)
def test_a_verdict_says_what_was_published_and_what_is_more_than_chance(
    pair: tuple[Arm, Arm], difference: float, p: float, expected: str
) -> None:
    better, worse = pair
    known = better.published is not None and worse.published is not None
    published = round((better.published or 0) - (worse.published or 0), 1) if known else None
    found = Comparison(
        better=better, worse=worse, difference=difference, error=0.01, p_alone=0.001, p=p, published=published
    )
    assert verdict(found) == expected


def test_the_report_shows_every_arm_and_every_pair(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = results({arm.name: list(0.8 + 0.01 * rng.random(3)) for arm in ARMS})
    found[0] = replace(found[0], scores=replace(found[0].scores, calibration=0.4))
    seconds = {arm.name: [5.0, 6.0, 5.5] for arm in ARMS}
    seconds |= {ANNOTATION: [11.0, 12.0, 11.0], DISTILLED.name: [20.0, 24.0, 22.0]}
    times = Times(machine="an abacus", settings={}, seconds=seconds)
    (tmp_path / "reports").mkdir()
    write_report(tmp_path / "reports" / "ablation.md", found, compare(ARMS, found), times)
    draw_ablation(tmp_path / "ablation.png", found, times)
    text = (tmp_path / "reports" / "ablation.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert sum(line.startswith(f"| {CUTMIX.title} |") for line in rows) >= 2
    assert sum(line.endswith((" here |", "significant |")) for line in rows) == len(ARMS) * (len(ARMS) - 1) / 2
    assert f"| original | {100 * np.mean([one.scores.present for one in found[:3]]):.2f} ±" in text
    assert "20.00 ± 10.00" in text  # the calibration error of the first arm: 40, 10 and 10 %
    assert "| distillation | 22.00 | 21.00 to 23.00 | 4.00 | 4.00 to 4.00 |" in text
    assert "11.0 s, as much as 2.0 epochs" in text
    assert "on an abacus" in text
    with Image.open(tmp_path / "ablation.png") as picture:
        assert picture.width > 900


def test_the_published_figures_are_the_papers() -> None:
    assert {arm.title: (arm.published, arm.published_real) for arm in ARMS} == {
        "original": (77.5, 83.6),
        "original + label smoothing": (78.0, 84.0),
        "relabel": (78.9, 85.0),
        "global": (78.5, None),
        "local-single": (78.4, None),
        "global-single": (77.5, None),
        "relabel + CutMix": (80.2, None),
        "distillation": (None, None),
    }


def test_precision_is_the_mean_over_classes_and_calibration_is_by_the_label() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4]], np.float32))
    labels = np.array([0, 1, 1, 2])
    present = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 1]], np.bool_)
    scores = measure(logits, labels, present)
    # Class 0: present in scenes ranked 1st, 3rd, 4th; class 1: 1st, 2nd; class 2: 1st.
    assert scores.precision == pytest.approx(((1 + 2 / 3 + 3 / 4) / 3 + 1 + 1) / 3, abs=1e-6)
    # First classes 0.7 right, 0.6 wrong, 0.8 right, 0.5 wrong by the label; each in a bin of its own.
    assert scores.calibration == pytest.approx((0.3 + 0.6 + 0.2 + 0.5) / 4, abs=1e-6)


def test_only_the_distilled_arm_has_targets_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, str | None]] = []

    def train(settings: TrainSettings, *, own_targets: OwnTargets | None, reporter: Reporter, **_: object) -> Finished:
        given.append((settings.target, None if own_targets is None else own_targets.name))
        for step in (25, 50, 125):
            reporter.step(step_report(step))
        return Finished()

    times = iter([100.0, 101.0, 104.0] * 3)
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    for module in (runs, timing):
        monkeypatch.setattr(module, "train", train)
    data = material.Material(training=[], labels=tmp_path, test=[], truths=[])
    runs._train(DISTILLED, 0, data, tmp_path)
    assert timing._epoch(DISTILLED, data) == pytest.approx(4 / 100 * 125)  # but for the steps before the first report
    runs._train(ORIGINAL, 0, data, tmp_path)
    assert timing._epoch(RELABEL, data) == pytest.approx(5)
    name = "the demo's teacher on every crop"
    assert given == [("relabel", name), ("relabel", name), ("original", None), ("relabel", None)]


class Finished:
    stopped = False


def step_report(step: int) -> StepReport:
    return StepReport(epoch=1, epochs=1, step=step, steps=125, loss=1, lr=1, images_per_second=1, waiting=0)


def test_test_scenes_are_others_than_any_that_choices_were_made_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, int]] = []

    def write(folder: Path, split: str, count: int, shards: int, seed: int) -> list[Path]:
        drawn.append((split, seed))
        return []

    monkeypatch.setattr(material, "make_shards", lambda _: ([], []))
    monkeypatch.setattr(material, "annotate_digits", lambda *_: None)
    monkeypatch.setattr(material, "write_shards", write)
    material.make_material(tmp_path)
    ((split, seed),) = drawn
    assert split == "val"
    assert seed != pipelines.demo.SEED


def test_the_last_epochs_student_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    def load(file: Path) -> None:
        loaded.append(file)
        raise RunFolderError("enough")

    for updates in (125, 1000):
        (tmp_path / f"step-{updates:08}.pt").touch()
    monkeypatch.setattr(runs, "load_student", load)
    data = material.Material(training=[], labels=tmp_path, test=[], truths=[])
    with pytest.raises(RunFolderError, match="enough"):
        runs._score(tmp_path, data)
    assert loaded == [tmp_path / "step-00001000.pt"]


DATA = material.Material(training=[], labels=Path("labels.zarr"), test=[], truths=[])


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

    def epoch(arm: Arm, _: material.Material) -> float:
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
    assert times.seconds == {ANNOTATION: [7.0] * timing.ROUNDS, "relabel": [1.0, 2.0, 9.0, 9.0, 9.0]}


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
        runs._read_result(file, RELABEL, 0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few scenes, three arms, one round."""
    for module in (pipelines.reproduce.arms, report, plot):
        monkeypatch.setattr(module, "ARMS", (ORIGINAL, RELABEL, DISTILLED))
    monkeypatch.setattr(pipelines.demo, "TRAIN_SCENES", 96)
    monkeypatch.setattr(pipelines.demo, "VAL_SCENES", 8)
    monkeypatch.setattr(material, "TEST_SCENES", 60)
    monkeypatch.setattr(timing, "ROUNDS", 1)
    monkeypatch.setattr(timing, "REPORTED_STEPS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_reproduction_that_was_stopped_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, reports = tmp_path / "out", tmp_path / "reports"
    call = ["--out", str(out), "--reports", str(reports), "--seeds", "3"]
    trained: list[Path] = []
    real = runs._train

    def train(arm: Arm, seed: int, material: material.Material, folder: Path) -> None:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(folder)
        real(arm, seed, material, folder)

    monkeypatch.setattr(runs, "_train", train)
    assert CliRunner().invoke(main, call).exit_code == 1  # as Ctrl-C leaves it
    assert not reports.exists()
    monkeypatch.setattr(runs, "_train", real)
    finished = CliRunner().invoke(main, call)
    assert finished.exit_code == 0, finished.output
    assert all(f"\n{i} of 9:" in finished.output for i in range(4, 10))
    assert "\n3 of 9:" not in finished.output
    text = (reports / "ablation.md").read_text()
    again = CliRunner().invoke(main, call)
    assert " of 9:" not in again.output
    assert (reports / "ablation.md").read_text() == text

    seeds = {json.loads((folder / "result.json").read_text())["settings"]["seed"] for folder in out.glob("runs/*-1")}
    assert seeds == {1}
    (out / "runs" / "relabel-0" / "result.json").write_text('{"scores": 1}')
    damaged = CliRunner().invoke(main, call)
    assert damaged.exit_code == 1
    assert damaged.stderr.splitlines()[-1].endswith("relabel-0/result.json: damaged; delete it, and it is made again")


def test_a_result_of_other_settings_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "relabel-0"
    folder.mkdir()
    settings = settings_to_json(replace(RELABEL.settings(0), epochs=9))
    scores = {"present": 0.9, "label": 0.5, "precision": 0.8, "calibration": 0.1}
    (folder / "result.json").write_text(json.dumps({"settings": settings, "scores": scores}))
    with pytest.raises(RunFolderError, match=r"result\.json: of other settings \(epochs: 9 then, 8 now\)"):
        runs._read_result(folder / "result.json", RELABEL, 0)
