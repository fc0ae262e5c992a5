"""`metrics.jsonl`: one JSON object per report and per epoch, each epoch's once however often a run was resumed."""

import json
from pathlib import Path
from typing import Any

from store.errors import RunFolderError
from trainer.files import write_atomically

METRICS = "metrics.jsonl"


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


def trim_metrics(folder: Path, epochs_done: int) -> None:
    """Drop the lines of later epochs, which a resumed run goes through again.

    Raises:
        RunFolderError: a line that is not one of ours.
    """
    file = folder / METRICS
    if not file.exists():
        return
    lines = file.read_text().splitlines(keepends=True)
    # A last line without its end was cut off when the run was killed.
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for i, line in enumerate(whole, 1) if _epoch(file, i, line) <= epochs_done]
    write_atomically(file, lambda handle: handle.write("".join(kept).encode()))


def _epoch(file: Path, number: int, line: str) -> int:
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file}: line {number} is damaged; delete that line and resume again") from error
