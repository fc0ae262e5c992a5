"""The ablation as a picture: found here, published, and the time of an epoch, arm under arm."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.reproduce.arms import ARMS
from pipelines.reproduce.runs import Result
from pipelines.reproduce.significance import standard_error
from pipelines.reproduce.timing import Times
from trainer.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE, PUBLISHED, FAINT = "#0072b2", "#d55e00", "#9aa5ad"


def draw_ablation(file: Path, results: Sequence[Result], times: Times) -> None:
    """Draw it as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8), layout="constrained", facecolor="white")
    here, published, epoch = figure.subplots(1, 3, sharey=True, width_ratios=(5, 3, 3))
    for y, arm in enumerate(ARMS):
        runs = [result for result in results if result.arm == arm.name]
        values = [100 * result.scores.present for result in runs]
        here.plot(values, [y] * len(values), "o", color=FAINT, ms=4, mew=0)
        here.errorbar(np.mean(values), y, xerr=standard_error(values), fmt="D", color=HERE, ms=6, capsize=3)
        if arm.published is not None:
            published.plot(arm.published, y, "s", color=PUBLISHED, ms=6)
            published.annotate(
                f"{arm.published:.1f}", (arm.published, y), (6, 0), textcoords="offset points", va="center"
            )
        seconds = float(np.median(times.seconds[arm.name]))
        bar = epoch.barh(y, seconds, color=FAINT, height=0.6)
        epoch.bar_label(bar, [f"{seconds:.1f} s"], padding=3)
    here.set_yticks(range(len(ARMS)), [arm.title for arm in ARMS])
    here.invert_yaxis()
    _finish(here, "top-1 is a digit present, %", "here: mean, error, seeds")
    _finish(published, "top-1, %", "published: ImageNet")
    _finish(epoch, "seconds", "here: an epoch")
    published.margins(x=0.25)
    epoch.margins(x=0.3)
    write_atomically(file, lambda handle: figure.savefig(handle, format="png", dpi=120))


def _finish(panel: "Axes", unit: str, title: str) -> None:
    panel.set_xlabel(unit)
    panel.set_title(title, fontsize=10, loc="left")
    panel.grid(axis="y", color="#e3e7ea", lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
