"""The command `relabel-train`: train a student on shards and their labels; evaluate and export students."""

if __name__ == "__main__":  # before the other imports, which take long enough for a Ctrl-C
    from pipelines.start import start

    start("pipelines.train.__main__")

import os
import sys
from pathlib import Path
from typing import Any

import click

from pipelines.options import sources_option
from pipelines.train.evaluate_command import evaluate
from pipelines.train.export import export
from pipelines.train.recipes import RECIPES
from pipelines.train.settings_command import settings as settings_command
from store.cli.base import CONTEXT, Commands, examples
from store.cli.options import LocalPath, Location
from store.errors import PeerError
from store.shards.patterns import expand_shards, expand_sources
from store.text import brief, counted, printable
from trainer.settings import near_names


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="relabel")
def main() -> None:
    """Train a classifier on image shards and their label store.

    Exit status: 0 done; 1 error, printed as one line; 2 wrong usage.
    """


class RecipeName(click.ParamType[str]):
    """The name of a recipe."""

    name = "recipe"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        """Refuse other names, with those that are near."""
        if value not in RECIPES:
            self.fail(f"no recipe is called {brief(value)}; {near_names(value, list(RECIPES))}", param, ctx)
        return str(value)


@click.command(
    epilog=examples(
        "relabel-train run --recipe resnet18_relabel --out runs/resnet18 \\\n"
        "    --shards 'train-{0000..1023}.tar' --labels labels.zarr \\\n"
        "    --val 'val-{00..49}.tar'"
    )
)
@click.option(
    "--recipe",
    type=RecipeName(),
    required=True,
    metavar="NAME",
    help=f"Settings to start from: {', '.join(RECIPES)}.",
)
@sources_option
@click.option(
    "--labels",
    type=Location(),
    metavar="STORE",
    required=True,
    help="The label store made from these shards: a path, or a URL such as s3://bucket/labels.zarr.",
)
@click.option(
    "--out",
    metavar="FOLDER",
    type=LocalPath(),
    required=True,
    help="Folder for checkpoints and metrics; new or empty, unless --resume.",
)
@click.option(
    "--val",
    type=Location(),
    metavar="PATTERN",
    multiple=True,
    help="Labelled image shards to evaluate on after every epoch, local paths. Repeatable. Default: no evaluation.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting of the recipe, such as lr=0.05; `relabel-train settings` lists them. Repeatable.",
)
@click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint, if it has one.")
def run(
    recipe: str,
    patterns: tuple[str, ...],
    labels: str,
    val: tuple[str, ...],
    out: Path,
    assignments: tuple[str, ...],
    resume: bool,
) -> None:
    """Train a student; under torchrun, in all its processes.

    Writes to FOLDER: settings.json (settings and data), metrics.jsonl and TensorBoard's files (loss and accuracy),
    step-*.pt (checkpoints to resume from) and best.pt (the best on the validation shards).

    Ctrl-C, SIGTERM and SIGHUP end the run after the current step, with a checkpoint and exit status 0. The same command
    with --resume continues a run, also after a kill or a power cut.
    """
    # Imported here: torch takes seconds, and help should not.
    from pipelines.train.progress import TrainProgress
    from trainer.run.loop import train
    from trainer.settings import with_overrides

    settings = with_overrides(RECIPES[recipe](), assignments)
    train_shards, val_shards = expand_sources(patterns), expand_shards(val)
    with TrainProgress() as progress:
        try:
            result = train(
                settings,
                shards=train_shards,
                labels=labels,
                val_shards=val_shards,
                out=out,
                resume=resume,
                reporter=progress,
            )
        except PeerError:  # the other rank prints its error
            sys.exit(1)
    if os.environ.get("RANK", "0") != "0":
        return
    best = "" if result.best_top1 is None else f", best top-1 {result.best_top1:.2%}"
    step = f" and {counted(result.steps, 'step')}" if result.steps else ""
    click.echo(f"{counted(result.epochs, 'epoch')}{step} done{best}: {printable(str(out))}")
    if not result.finished:
        click.echo("stopped by a signal; the same command with --resume continues from here", err=True)


for command in (run, evaluate, export, settings_command):
    main.add_command(command)
