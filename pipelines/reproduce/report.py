"""Writes the ablation's report as Markdown, found beside published accuracies, and draws its figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.stages import TRAIN_SCENES
from pipelines.machine import describe_machine
from pipelines.reproduce.arms import ARMS, ORIGINAL, Arm
from pipelines.reproduce.data import TEST_SCENES
from pipelines.reproduce.scores import BINS
from pipelines.reproduce.statistics import LEVEL, Comparison, errors_needed, standard_error
from pipelines.reproduce.students import Result
from pipelines.reproduce.timing import ANNOTATION, Times
from pipelines.train.recipes import demo
from store.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


METRICS = {  # field of `Scores`: heading in tables
    "present": "top-1 is present",
    "label": "top-1 is the label",
    "precision": "mAP",
    "calibration": "calibration error",
}
PUBLISHED_TIMES = "LabelPooling +0.5 %, distillation over 4 times"
HERE, PUBLISHED, FAINT = "#0072b2", "#d55e00", "#9aa5ad"  # colours of the figure


def write_report(file: Path, results: Sequence[Result], comparisons: Sequence[Comparison], times: Times) -> None:
    """Write the report as Markdown."""
    seeds = len({result.seed for result in results})
    parts = [
        "# The ablation, reproduced in small\n",
        _introduction(seeds),
        "![Share of test scenes whose top-1 is present, by arm; the published accuracies; seconds per epoch]"
        "(ablation.png)\n",
        "## Accuracy\n",
        _scores_table(results),
        "## Which orderings are more than chance\n",
        _orderings(comparisons, seeds),
        "## Time\n",
        _times(times),
        "## What was tuned\n",
        "Nothing, for any arm. All of them have the settings of the demo's recipe, which were chosen for a demo of "
        "two minutes (target `relabel`, and `original` with smoothing) before this ablation was written. Label "
        "smoothing is the published 0.1. CutMix has probability 1 in every epoch; the published runs leave it out of "
        "the last 5 of 300, and use AdamP with it. Distillation has no temperature, and the label is not in its loss. "
        "The last epoch's student is scored, on scenes that were not used for any choice; their digits, some 360, are "
        "those of the demo's validation, on which neither teacher nor student was trained.\n",
        f"Scored on {describe_machine()}.\n",
    ]
    with write_atomically(file) as handle:
        handle.write("\n".join(parts).encode())


def _introduction(seeds: int) -> str:
    settings = demo()
    return (
        f"Written by `make reproduce`. {len(ARMS)} ways to train the same student, {seeds} seeds each: "
        f"`{settings.model}`, {settings.epochs} epochs of {TRAIN_SCENES:,} scenes of one to four handwritten digits, "
        f"one of which, drawn at random, is the label; tested on {TEST_SCENES:,} scenes of other digits. The paper's "
        "students are ResNet-50 on ImageNet, so the published figures say which order to expect, not which sizes.\n"
    )


def _scores_table(results: Sequence[Result]) -> str:
    lines = [
        f"| trained on | {' | '.join(METRICS.values())} | published top-1 | published, ReaL |",
        f"|---|{'---|' * (len(METRICS) + 2)}",
    ]
    for arm in ARMS:
        cells = [_mean(arm, name, results) for name in METRICS]
        published = [f"{value:.1f} %" if value else "" for value in (arm.published, arm.published_real)]
        lines.append(f"| {arm.title} | {' | '.join(cells + published)} |")
    lines.append(
        "\nMean ± standard error over the seeds, in percent. *Top-1 is present*: the first class is any digit of the "
        "scene, as ReaL counts. *mAP*: average precision of each class's probability for its presence, mean over the "
        "classes. *Calibration error*: the gap between the first class's probability and how often it is the "
        f"label, {BINS} bins; lower is better.\n"
    )
    return "\n".join(lines)


def _mean(arm: Arm, name: str, results: Sequence[Result]) -> str:
    values = [100 * getattr(result.scores, name) for result in results if result.arm == arm.name]
    return f"{np.mean(values):.2f} ± {standard_error(values):.2f}"


def _orderings(comparisons: Sequence[Comparison], seeds: int) -> str:
    """A sentence for each verdict, then a table of every pair."""
    verdicts: dict[str, list[str]] = {}
    for found in comparisons:
        verdicts.setdefault(verdict(found), []).append(f"{found.better.title} over {found.worse.title}")
    lines = [
        f"By the share of scenes whose top-1 is present; paired t-tests over {seeds} seeds, Holm's correction for all "
        f"{len(comparisons)} pairs, level {100 * LEVEL:.0f} %. All students are trained on the same scenes and tested "
        "on the same: what other scenes would do is not in these errors. So few seeds see only large differences, at "
        f"least {errors_needed(len(comparisons), seeds):.1f} times their standard error; *not significant* does not "
        "mean equal.\n"
    ]
    lines += [f"- **{name}** ({len(pairs)}): {'; '.join(pairs)}." for name, pairs in sorted(verdicts.items())]
    lines += [
        "\n| better | worse | here, points | p alone | p corrected | published, points | |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in sorted(comparisons, key=lambda pair: (pair.published is None, -(pair.published or 0))):
        published = "" if found.published is None else f"{found.published:+.1f}" if found.published else "0"
        lines.append(
            f"| {found.better.title} | {found.worse.title} | {100 * found.difference:+.2f} ± {100 * found.error:.2f} "
            f"| {found.p_alone:.2g} | {found.p:.2g} | {published} | {verdict(found)} |"
        )
    return "\n".join([*lines, ""])


def verdict(found: Comparison) -> str:
    """Whether a comparison confirms the published order; where none was published, whether it is significant."""
    if not found.published:
        source = "published as equal" if found.published == 0 else "not published"
        return f"{source}, {'significant' if found.is_significant else 'not significant'} here"
    if found.difference == 0:
        return "equal here"
    if found.difference > 0:
        return "as published, significant" if found.is_significant else "as published, not significant"
    return "contrary to what was published, " + ("significant" if found.is_significant else "not significant")


def _times(times: Times) -> str:
    """A table of the seconds of an epoch, and a sentence about annotation."""
    original = np.array(times.seconds[ORIGINAL.name])
    lines = ["| trained on | seconds an epoch | quartiles | times original | quartiles |", "|---|---|---|---|---|"]
    for arm in ARMS:
        seconds = np.array(times.seconds[arm.name])
        lines.append(f"| {arm.title} | {_spread(seconds)} | {_spread(seconds / original)} |")
    once = np.array(times.seconds[ANNOTATION])
    lines.append(
        f"\nMedians of {len(original)} rounds in which all arms took turns, one thread and two loading processes, on "
        f"{times.machine}. "
        f"Annotating all training scenes once: {np.median(once):.1f} s, as much as "
        f"{np.median(once / original):.1f} epochs. Published: {PUBLISHED_TIMES}. Student and teacher have the same "
        "small architecture here, the teacher with strides of 8 instead of 32, so the ratios are the demo's. Every arm "
        "reads label maps, also those that do not need them. Label smoothing costs nothing: what it is above or below "
        "`original` is the machine's doing.\n"
    )
    return "\n".join(lines)


def _spread(values: NDArray[np.float64]) -> str:
    """Median and quartiles as two cells of a table."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.2f} | {low:.2f} to {high:.2f}"


def draw_ablation(file: Path, results: Sequence[Result], times: Times) -> None:
    """Draw accuracies found, accuracies published and seconds of an epoch side by side, a line for each arm, as PNG."""
    with write_atomically(file) as handle:
        make_figure(results, times).savefig(handle, format="png", dpi=120)


def make_figure(results: Sequence[Result], times: Times) -> "Figure":
    """The figure of `draw_ablation`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    padded = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)  # inches
    figure = Figure(figsize=(10.5, 4), layout=padded, facecolor="white")
    here, published, epoch = figure.subplots(1, 3, sharey=True, width_ratios=(5, 3, 3))
    for y, arm in enumerate(ARMS):
        values = [100 * result.scores.present for result in results if result.arm == arm.name]
        here.plot(values, [y] * len(values), "o", color=FAINT, ms=4, mew=0)
        here.errorbar(np.mean(values), y, xerr=standard_error(values), fmt="D", color=HERE, ms=6, capsize=3)
        if arm.published is not None:
            published.plot(arm.published, y, "s", color=PUBLISHED, ms=6)
            _value(published, arm.published, y, f"{arm.published:.1f}")
        seconds = float(np.median(times.seconds[arm.name]))
        epoch.barh(y, seconds, color=FAINT, height=0.6)
        _value(epoch, seconds, y, f"{seconds:.1f} s")
    here.set_yticks(range(len(ARMS)), [arm.title for arm in ARMS])
    here.invert_yaxis()
    _finish(here, "top-1 is a digit present, %", "here: mean, error, seeds")
    _finish(published, "top-1, %", "published: ImageNet")
    _finish(epoch, "seconds", "here: an epoch")
    # Room for the values to the right of the points and bars, which autoscaling does not count.
    published.margins(x=0.1)
    for panel in (published, epoch):
        low, high = panel.get_xlim()
        panel.set_xlim(low, high + 0.35 * (high - low))
    return figure


def _value(panel: "Axes", x: float, y: int, text: str) -> None:
    """A number to the right of its point or bar; the line of the grid does not strike it through."""
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    panel.annotate(text, (x, y), (8, 0), textcoords="offset points", va="center", bbox=paper)


def _finish(panel: "Axes", unit: str, title: str) -> None:
    panel.set_xlabel(unit)
    panel.set_title(title, fontsize=10, loc="left")
    panel.grid(axis="y", color="#e3e7ea", lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
