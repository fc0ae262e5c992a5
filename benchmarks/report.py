"""Renders a run of the suite as Markdown: the machine, all ratios, then each benchmark's command and tables."""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.listed import ROOT, Benchmark


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The output of one benchmark."""

    benchmark: Benchmark
    command: str
    output: str
    status: int
    seconds: float


def render(outcomes: Sequence[Outcome], facts: Mapping[str, str]) -> str:
    """The report; the documentation shows the part between the marks."""
    parts = [
        f"# Benchmarks on {facts['hardware']}\n\n<!-- --8<-- [start:report] -->",
        "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        "Ours and its peer take turns; each ratio is of one round. One thread for each library. In the commands "
        "`$MATERIAL` is the folder of shards and labels, `$REAL` that of photographs, `$SCRATCH` one that is created "
        "and removed.",
        "## All ratios\n\n| benchmark | ratio | median | quartiles | runs |\n|---|---|---|---|---|\n"
        + "\n".join(line for outcome in outcomes for line in ratio_lines(outcome)),
        *(section(outcome) for outcome in outcomes),
        "<!-- --8<-- [end:report] -->\n",
    ]
    return "\n\n".join(parts)


def ratio_lines(outcome: Outcome) -> Iterator[str]:
    """Rows of a benchmark's tables whose names are ratios, such as `ours / theirs`."""
    title = ""
    for line, following in pairwise([*outcome.output.splitlines(), ""]):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if following.startswith("|---"):
            title = cells[0]
        elif line.startswith("| ") and " / " in cells[0]:
            yield f"| {outcome.benchmark.title} | {title}: {' | '.join(cells)} |"


def section(outcome: Outcome) -> str:
    """The section of one benchmark."""
    found = outcome.benchmark
    parts = [f"## {found.title}", f"Against {found.peer}.", f"```\n{outcome.command}\n```"]
    if outcome.status:
        parts.append(f"**Failed** with exit status {outcome.status}.")
    return "\n\n".join([*parts, outcome.output.strip()]).strip()


def slug(text: str) -> str:
    """Lower-case words with hyphens, for a file's name.

    >>> slug("Intel(R) Xeon(R), 16 cores")
    'intel-r-xeon-r-16cores'
    """
    text = re.sub(r"(\d) cores", r"\1cores", text)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def commit() -> str:
    """The commit, and whether there are uncommitted changes."""
    try:
        head, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, with uncommitted changes" if changes else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
