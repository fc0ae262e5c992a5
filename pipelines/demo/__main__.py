"""The command `python -m pipelines.demo`: annotation and training on scenes of digits, as a whole or by stages.

`run` = shards -> annotate -> train twice (the dataset's labels, ReLabel) -> compare -> show a label map.
"""

if __name__ == "__main__":  # before the other imports, which take long enough for a Ctrl-C
    from pipelines.start import start

    start("pipelines.demo.__main__")

from pathlib import Path

import click

from pipelines.demo.stages import ARMS, annotate_scenes, make_shards, train_student
from store.cli.base import CONTEXT, Commands, examples
from store.cli.options import LocalPath

OUT = click.option(
    "--out",
    type=LocalPath(),
    default=Path("demo"),
    show_default=True,
    metavar="FOLDER",
    help="Folder for all outputs; finished ones are kept.",
)


@click.group(cls=Commands, context_settings=CONTEXT)
def main() -> None:
    """Annotate and train on scenes of handwritten digits, as a whole or by stages.

    The stages are shards, annotate and train, in this order; run does them all.

    Exit status: 0 all is done; 1 something failed, each thing named; 2 wrong usage.
    """


@main.command(epilog=examples("python -m pipelines.demo shards --out demo"))
@OUT
def shards(out: Path) -> None:
    """Write the training and validation shards."""
    make_shards(out)


@main.command(epilog=examples("python -m pipelines.demo annotate --out demo"))
@OUT
def annotate(out: Path) -> None:
    """Annotate the training shards with the demo's teacher."""
    annotate_scenes(out)


@main.command(epilog=examples("python -m pipelines.demo train --out demo"))
@OUT
def train(out: Path) -> None:
    """Train a student on the label maps, or resume its training."""
    train_student(out, "relabel")


@main.command(epilog=examples("python -m pipelines.demo run --out demo"))
@OUT
def run(out: Path) -> None:
    """Run all stages and compare with the dataset's labels.

    Trains twice, on the dataset's labels and on the label maps; prints both accuracies and one label map.
    """
    annotate_scenes(out)
    for target in ARMS:
        click.echo(f"\n{ARMS[target]}:", err=True)
        train_student(out, target)
    from pipelines.demo.result import show_result

    show_result(out)
