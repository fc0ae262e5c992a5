"""`python -m pipelines.reproduce`: all arms of the ablation, their table and their picture."""

from pathlib import Path

import click

from store.command import Command
from store.text import printable


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reproduce"),
    show_default=True,
    help="Folder of scenes, maps and students; a run that was stopped goes on there.",
)
@click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reports"),
    show_default=True,
    help="Folder of the results, ablation.md and ablation.png.",
)
@click.option(
    "--seeds", type=click.IntRange(min=2), default=5, show_default=True, help="Students of each kind; 2 or more."
)
def main(out: Path, reports: Path, seeds: int) -> None:
    """Train students on every kind of target and compare them.

    Stop it whenever you like, and run it again to go on: finished students are kept.
    """
    from pipelines.reproduce.arms import ARMS
    from pipelines.reproduce.material import make_material
    from pipelines.reproduce.plot import draw_ablation
    from pipelines.reproduce.report import write_report
    from pipelines.reproduce.runs import run_all
    from pipelines.reproduce.significance import compare
    from pipelines.reproduce.timing import time_epochs

    material = make_material(out)
    results = run_all(ARMS, seeds, material, out / "runs")
    times = time_epochs(ARMS, material, out / "times.json")
    write_report(reports / "ablation.md", results, compare(ARMS, results), times)
    draw_ablation(reports / "ablation.png", results, times)
    click.echo(printable(f"{reports / 'ablation.md'}, {reports / 'ablation.png'}"))


if __name__ == "__main__":
    main()
