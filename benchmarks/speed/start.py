"""Times the start of `relabel-store` as whole processes, against a bare Python and one that imports zarr.

    python -m benchmarks.speed.start --labels STORE

The processes take turns. The first round may compile modules and is not counted.
"""

import subprocess
import sys

import click

from benchmarks.measure import ratios, table, time_turns
from store.cli.base import Command

PYTHON, ZARR = "python -c pass", "python -c 'import zarr'"
HELP, SHOW = "`relabel-store --help`", "`relabel-store show STORE`"
COMMAND = "from pipelines.start import store; store()"  # as the installed script


def run(code: str, *arguments: str) -> None:
    """Run code in a process of this Python and discard its output."""
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)


@click.command(cls=Command)
@click.option("--labels", required=True, help="The store to show.")
@click.option("--runs", default=15, show_default=True, type=click.IntRange(1))
def main(labels: str, runs: int) -> None:
    """Time the processes in turns."""
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
