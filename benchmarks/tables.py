"""How benchmarks print what they measured: medians with quartiles and the number of runs, as Markdown."""

import statistics
from collections.abc import Mapping, Sequence

median = statistics.median


def table(title: str, rows: Mapping[str, Sequence[float]]) -> None:
    """One line for each name."""
    print(f"| {title} | median | quartiles | runs |\n|---|---|---|---|")
    for name, values in rows.items():
        low, high = (values[0], values[0]) if len(values) < 2 else (
            statistics.quantiles(values, n=4, method="inclusive")[0],
            statistics.quantiles(values, n=4, method="inclusive")[2],
        )  # fmt: skip
        print(f"| {name} | {median(values):,.3g} | {low:,.3g} to {high:,.3g} | {len(values)} |", flush=True)
