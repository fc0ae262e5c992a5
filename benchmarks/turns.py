"""Ways of doing the same thing take turns, so that a machine whose speed changes slows all of them alike."""

import time
from collections.abc import Callable, Mapping
from functools import partial


def take_turns(ways: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """What each way gives in each round; a first round warms up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(runs + 1):
        for name, way in ways.items():
            value = way()
            if i:
                found[name].append(value)
    return found


def time_turns(ways: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each way in each round, after one that is not counted."""
    return take_turns({name: partial(milliseconds, way) for name, way in ways.items()}, runs)


def milliseconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000
