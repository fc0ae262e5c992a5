"""Command lines as text with variables, which are what a report shows, and as what is run."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def fill(command: str, values: Mapping[str, str]) -> str:
    """The text with these variables replaced, and no others.

    >>> fill("$LABELS --scratch $SCRATCH", {"LABELS": "--labels a.zarr"})
    '--labels a.zarr --scratch $SCRATCH'
    """
    return Template(command).safe_substitute(values)


def words(command: str, variables: Mapping[str, str]) -> list[str]:
    """What a shell would make of it; a variable's value is never split.

    >>> words('--labels "$MATERIAL/demo.zarr"', {"MATERIAL": "a folder"})
    ['--labels', 'a folder/demo.zarr']
    """
    return [fill(word, variables) for word in shlex.split(command)]


def environment() -> dict[str, str]:
    """This process's, with one thread for every library's pool, and output as it is printed."""
    return {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONUNBUFFERED": "1"}
