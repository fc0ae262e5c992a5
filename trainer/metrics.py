"""`metrics.jsonl`: one JSON object per report and per epoch, each epoch's once however often a run was resumed."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from store.errors import RunFolderError
from store.files import read_whole, write_atomically

METRICS = "metrics.jsonl"


class _Line(NamedTuple):
    text: bytes
    epoch: int
    step: float  # infinite for an epoch's end


def append_metrics(folder: Path, record: dict[str, Any]) -> None:
    """Add a line; `record` names its epoch, counted from 1.

    Raises:
        RunFolderError: the disk refused.
    """
    try:
        with (folder / METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise RunFolderError(f"{folder / METRICS}: cannot be written: {error.strerror or error}") from error


def finished_epochs(folder: Path) -> int:
    """How many epochs came to their end, as far as the lines tell; 0 where there are none.

    Raises:
        RunFolderError: a line that is not one of ours.
    """
    lines = _read_lines(folder / METRICS)
    return max((line.epoch if line.step == math.inf else line.epoch - 1 for line in lines), default=0)


def trim_metrics(folder: Path, epochs_done: int, steps_done: int) -> None:
    """Drop the lines of what a resumed run goes through again.

    Args:
        folder: of the run.
        epochs_done: whole epochs that are behind it.
        steps_done: steps of the next one.

    Raises:
        RunFolderError: a line that is not one of ours.
    """
    file = folder / METRICS
    done = epochs_done + 1, steps_done
    kept = [line.text for line in _read_lines(file) if line.epoch <= epochs_done or (line.epoch, line.step) <= done]
    if file.exists():
        write_atomically(file, lambda handle: handle.writelines(kept))


def _read_lines(file: Path) -> list[_Line]:
    try:
        content = read_whole(file)
    except FileNotFoundError:
        return []
    # What stands after the last line's end was cut off when the run was killed.
    whole = content.split(b"\n")[:-1]
    return [_parse(file, number, text + b"\n") for number, text in enumerate(whole, 1)]


def _parse(file: Path, number: int, text: bytes) -> _Line:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, number) from error
    values = record if isinstance(record, dict) else {}
    epoch, step = values.get("epoch"), math.inf if values.get("kind") == "epoch" else values.get("step")
    if type(epoch) is not int or not isinstance(step, int | float):
        raise _damaged(file, number)
    return _Line(text, epoch, step)


def _damaged(file: Path, number: int) -> RunFolderError:
    return RunFolderError(f"{file}: line {number} is damaged; delete that line and resume again")
