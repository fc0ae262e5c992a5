"""The command `python -m pipelines.reproduce`: runs all arms of the ablation and writes their report and figure."""

if __name__ == "__main__":  # before the other imports, which take long enough for a Ctrl-C
    from pipelines.start import start

    start("pipelines.reproduce.__main__")

from pathlib import Path

import click

from store.cli.base import CONTEXT, Command, examples
from store.cli.options import LocalPath
from store.text import printable


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples("python -m pipelines.reproduce --out reproduce --seeds 10"),
)
@click.option(
    "--out",
    type=LocalPath(),
    default=Path("reproduce"),
    show_default=True,
    metavar="FOLDER",
    help="Scenes, label maps and students; finished ones are kept.",
)
@click.option(
    "--reports",
    type=LocalPath(),
    default=Path("reports"),
    show_default=True,
    metavar="FOLDER",
    help="Where ablation.md and ablation.png go.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=3),
    default=5,
    show_default=True,
    metavar="N",
    help="Students of each kind, 3 or more.",
)
def main(out: Path, reports: Path, seeds: int) -> None:
    """Train students on every kind of target and compare them.

    That is the paper's ablation on scenes of handwritten digits: most of an hour on two cores. Stop it
    whenever you like, and run it again to go on.

    Exit status: 0 all is done; 1 something failed, each thing named; 2 wrong usage.
    """
    from pipelines.reproduce.arms import ARMS
    from pipelines.reproduce.data import make_data
    from pipelines.reproduce.report import draw_ablation, write_report
    from pipelines.reproduce.statistics import compare
    from pipelines.reproduce.students import prepare, run_all
    from pipelines.reproduce.timing import time_epochs
    from store.files import make_folder
    from trainer.run.folder import locked_folder

    make_folder(reports)  # fails now, not after most of an hour
    with locked_folder(out):
        prepare()
        data = make_data(out)
        results = run_all(ARMS, seeds, data, out / "runs")
        times = time_epochs(ARMS, data, out / "times.json")
    write_report(reports / "ablation.md", results, compare(ARMS, results), times)
    draw_ablation(reports / "ablation.png", results, times)
    click.echo(printable(f"{reports / 'ablation.md'}, {reports / 'ablation.png'}"))
