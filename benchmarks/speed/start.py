"""How long `relabel-store` takes to start, as whole processes, against a bare Python and one that imports zarr.

    python -m benchmarks.speed.start --labels STORE

The processes take turns. The first round, which may still compile modules, is not counted.
"""

import subprocess
import sys

import click

from benchmarks.tables import ratios, table
from benchmarks.turns import time_turns
from store.cli.base import Command

PYTHON, ZARR = "python -c pass", "python -c 'import zarr'"
HELP, SHOW = "`relabel-store --help`", "`relabel-store show STORE`"
COMMAND = "from store.cli.start import main; main()"  # what the installed script runs


def run(code: str, *arguments: str) -> None:
    """One process of this Python, whose output nobody sees."""
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)


@click.command(cls=Command)
@click.option("--labels", required=True, help="The store to show.")
@click.option("--runs", default=15, show_default=True, type=click.IntRange(1))
def main(labels: str, runs: int) -> None:
    """Start the processes in turn."""
    found = time_turns(
        {
            PYTHON: lambda: run("pass"),
            ZARR: lambda: run("import zarr"),
            HELP: lambda: run(COMMAND, "--help"),
            SHOW: lambda: run(COMMAND, "show", labels),
        },
        runs,
    )
    table("whole process", {f"{name}: ms": values for name, values in found.items()} | {
        "`--help` / bare Python": ratios(found[HELP], found[PYTHON]),
        "`show` / bare Python": ratios(found[SHOW], found[PYTHON]),
        "`show` / import of zarr": ratios(found[SHOW], found[ZARR]),
    })  # fmt: skip


if __name__ == "__main__":
    main()
