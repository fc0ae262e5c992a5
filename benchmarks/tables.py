"""How benchmarks print what they measured: medians with quartiles and the number of runs, as Markdown."""

import statistics
from collections.abc import Mapping, Sequence

median = statistics.median
HEADER = "median | quartiles | runs |\n|---|---|---|---|"


def table(title: str, rows: Mapping[str, Sequence[float]]) -> None:
    """One line for each name. A ratio is named `ours / theirs`, with its unit, if any, after a colon."""
    print(f"| {title} | {HEADER}")
    for name, values in rows.items():
        low, high = values[0], values[0]
        if len(values) > 1:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        print(f"| {name} | {number(median(values))} | {number(low)} to {number(high)} | {len(values)} |", flush=True)


def number(value: float) -> str:
    """Three digits, of large values as well.

    >>> number(0.01234), number(12.345), number(36_512.0)
    ('0.0123', '12.3', '36,500')
    """
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """One for each round."""
    return [a / b for a, b in zip(over, under, strict=True)]
