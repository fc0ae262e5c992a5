from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.reproduce import statistics
from pipelines.reproduce.arms import ARMS, DISTILLED, ORIGINAL, RELABEL, Arm
from pipelines.reproduce.report import draw_ablation, make_figure, verdict, write_report
from pipelines.reproduce.scores import Scores, calibration_error, measure
from pipelines.reproduce.statistics import Comparison, compare, errors_needed, holm, standard_error
from pipelines.reproduce.students import Result
from pipelines.reproduce.timing import ANNOTATION, Times

GLOBAL, CUTMIX, SINGLE = (
    next(arm for arm in ARMS if arm.name == name) for name in ("global", "relabel-cutmix", "global-single")
)


def result(arm: Arm, seed: int, present: float) -> Result:
    return Result(arm=arm.name, seed=seed, scores=Scores(present=present, label=0.5, precision=0.7, calibration=0.1))


def results(values: Mapping[str, Sequence[float]]) -> list[Result]:
    arms = {arm.name: arm for arm in ARMS}
    return [result(arms[name], seed, value) for name, row in values.items() for seed, value in enumerate(row)]


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


def test_a_pair_is_compared_in_the_published_order() -> None:
    (found,) = compare((ORIGINAL, RELABEL), results({"original": [0.8, 0.81, 0.79], "relabel": [0.7, 0.71, 0.689]}))
    assert (found.better, found.worse, found.published) == (RELABEL, ORIGINAL, 1.4)
    assert found.difference == pytest.approx(-0.1, abs=1e-3)
    assert verdict(found) == "contrary to what was published, significant"


def test_arms_are_compared_seed_by_seed() -> None:
    rows = {"original": [0.1, 0.5, 0.9], "relabel": [0.12, 0.53, 0.92]}  # far apart from seed to seed
    (found,) = compare((ORIGINAL, RELABEL), results(rows))
    assert found.is_significant
    assert found.error < 0.004
    shuffled = {"original": rows["original"], "relabel": rows["relabel"][::-1]}
    assert not compare((ORIGINAL, RELABEL), results(shuffled))[0].is_significant


def test_correction_grows_with_the_number_of_pairs() -> None:
    rows = {"original": [0.8, 0.81, 0.79], "relabel": [0.82, 0.83, 0.82], "global": [0.8, 0.8, 0.8]}
    (alone,) = compare((ORIGINAL, RELABEL), results(rows))
    among = compare((ORIGINAL, RELABEL, GLOBAL), results(rows))[0]
    assert (among.better, among.worse) == (alone.better, alone.worse)
    assert among.p > alone.p == alone.p_alone == among.p_alone


@pytest.mark.parametrize("better", [0.8, 0.8005])
def test_the_same_difference_for_every_seed_is_not_significant(better: float) -> None:
    rows = {"original": [0.8, 0.8, 0.8], "relabel": [better] * 3}  # one scene of 2,000, if any
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
        assert (pairs * statistics._p_value(values) < statistics.LEVEL) is expected


def test_holm_keeps_the_order_of_the_p_values() -> None:
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
def test_a_verdict_names_the_published_order_and_the_significance(
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


@pytest.mark.parametrize("seconds", [1.0, 123.4])
def test_no_text_of_the_figure_overruns_its_panel(seconds: float) -> None:
    found = results({arm.name: [0.74, 0.9, 0.98] for arm in ARMS})
    names = [*(arm.name for arm in ARMS), ANNOTATION]
    figure = make_figure(found, Times(machine="", settings={}, seconds={name: 3 * [seconds] for name in names}))
    figure.draw_without_rendering()
    for panel in figure.axes:
        inside = panel.get_window_extent()
        for value in panel.texts:
            assert inside.x0 < value.get_window_extent().x0 < value.get_window_extent().x1 < inside.x1
        for text in [*panel.get_yticklabels(), panel.xaxis.label]:
            extent = text.get_window_extent()
            assert figure.bbox.x0 <= extent.x0 <= extent.x1 <= figure.bbox.x1
    assert sum(len(panel.texts) for panel in figure.axes) == 2 * len(ARMS) - 1  # distillation was not published


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
