"""Runs all benchmarks one after the other: `make bench`, `make bench-report` and `make bench-gpu`.

    python -m benchmarks.suite quick                                 # a few minutes on two cores
    python -m benchmarks.suite full --report benchmarks/reports     # half an hour
    python -m benchmarks.suite gpu --report benchmarks/reports      # variants for CUDA

benchmarks/listed.py has the list: all modules of `benchmarks/speed`. Every figure is a ratio to a peer or a floor that
is measured in the same run, or one of the two values of such a ratio.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import click

from benchmarks.listed import BENCHMARKS, ROOT, Benchmark, environment, fill, words
from benchmarks.material import Material, annotate, demo_material, real_material
from benchmarks.report import Outcome, commit, render, slug
from benchmarks.stages import stop_on_sigterm
from pipelines import machine
from store.cli.base import Command, OneLineError
from store.cli.options import LocalPath
from store.text import printable

MADE_BY = {
    "quick": "`make bench` (quick: small sizes and few runs, to try the benchmarks, not to cite)",
    "full": "`make bench-report`",
    "gpu": "`make bench-gpu`",
}
RESERVED_CORES = 2


def run_all(chosen: Sequence[Benchmark], use: str, material: Material) -> list[Outcome]:
    """Run each of the chosen benchmarks, also after one that fails."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="relabel-bench-") as folder:
        workers = max(machine.cores() - RESERVED_CORES, 1)
        variables = {"SCRATCH": f"{folder}/scratch", "WORKERS": str(workers), **material.variables}
        for i, benchmark in enumerate(chosen, 1):
            click.echo(f"\n{benchmark.title} ({i} of {len(chosen)}), against {benchmark.peer}", err=True)
            arguments = fill(benchmark.arguments(use) or "", material.options())
            outcomes.append(run_one(benchmark, arguments, variables))
    return outcomes


def run_one(benchmark: Benchmark, arguments: str, variables: dict[str, str]) -> Outcome:
    """Run one benchmark as a process of its own, and print its output."""
    command = f"python -m benchmarks.{benchmark.module} {arguments}".strip()
    click.echo(command + "\n")
    line = [sys.executable, *words(command, variables)[1:]]
    printed, start = [], time.perf_counter()
    with running(line) as process:
        assert process.stdout is not None
        for text in process.stdout:
            click.echo(text, nl=False)
            printed.append(text)
    seconds = time.perf_counter() - start
    how = f"failed with exit status {process.returncode}" if process.returncode else "done"
    click.echo(f"{benchmark.module} {how} after {seconds:,.0f} s", err=True)
    return Outcome(
        benchmark=benchmark, command=command, output="".join(printed), status=process.returncode, seconds=seconds
    )


@contextmanager
def running(line: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, which is killed with all its children if the block ends early."""
    with subprocess.Popen(
        line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, errors="backslashreplace",
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def hardware(use: str) -> str:
    """The hardware that the measurements depend on."""
    if use != "gpu":
        return f"{machine.processor()}, {machine.cores()} cores"
    import torch

    if not torch.cuda.is_available():
        raise OneLineError("bench-gpu: torch finds no CUDA device here; `make bench` needs none")
    return f"{torch.cuda.get_device_name()}, {machine.processor()}, {machine.cores()} cores"


def write_report(outcomes: Sequence[Outcome], use: str, facts: dict[str, str], folder: Path) -> None:
    """Write `all_<hardware>_<yyyymm>.md`, or `gpu_...`, over an earlier report of the same month."""
    name = f"{'gpu' if use == 'gpu' else 'all'}_{slug(facts['hardware'])}_{date.today():%Y%m}.md"
    text = render(outcomes, facts)
    (folder / name).write_text(text, encoding="utf-8")
    click.echo(f"\nthe report: {printable(str(folder / name))}", err=True)


@click.command(cls=Command)
@click.argument("use", type=click.Choice(list(MADE_BY)))
@click.option("--real", type=LocalPath(), help="The folder of docs/real_photographs.md.")
@click.option("--material", "folder", type=LocalPath(), default=ROOT / "build" / "bench",
              help="Folder of shards and labels; missing ones are made.")  # fmt: skip
@click.option("--report", type=LocalPath(), help="The folder for a report.")
def main(use: str, real: Path | None, folder: Path, report: Path | None) -> None:
    """Run all benchmarks of a use; the exit status is 1 if any failed."""
    where = hardware(use)
    for needed in (folder, report or folder):
        needed.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=needed):  # fails now, not after half an hour
            pass
    made = real_material(real.absolute(), folder.absolute()) if real else demo_material(folder.absolute())
    annotate(made)
    facts = {  # recorded before the measurements
        "made by": f"{MADE_BY[use]}, {date.today():%B %Y}",
        "hardware": where,
        "memory": f"{machine.memory_gib():.0f} GiB",
        "versions": machine.versions(),
        "commit": commit(),
        "material": made.description,
    }
    chosen = [benchmark for benchmark in BENCHMARKS if benchmark.arguments(use) is not None]
    outcomes = run_all(chosen, use, made)
    if report:
        write_report(outcomes, use, facts, report)
    if failed := [outcome.benchmark.module for outcome in outcomes if outcome.status]:
        raise OneLineError(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    stop_on_sigterm()
    main()
