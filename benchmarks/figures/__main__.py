"""The command `python -m benchmarks.figures`: draws the figures of docs/explanation.md from the demo's scenes.

    python -m benchmarks.figures --out docs/images

It needs no data and no GPU, and prints every number that the page quotes.
"""

from pathlib import Path

import click

from benchmarks.figures import crop, rest, squash
from benchmarks.figures.parts import make_teacher
from store.cli.base import Command
from store.cli.options import LocalPath


@click.command(cls=Command)
@click.option("--out", type=LocalPath(file_okay=False), required=True, metavar="FOLDER",
              help="Folder for the pictures.")  # fmt: skip
@click.option("--scenes", type=click.IntRange(2), default=400, show_default=True,
              help="Number of scenes, and of pairs of scenes, to measure on.")  # fmt: skip
def main(out: Path, scenes: int) -> None:
    """Draw the figures and print their numbers."""
    out.mkdir(parents=True, exist_ok=True)
    teacher = make_teacher()
    numbers = [
        *crop.make(teacher, out / "crop_to_target.png"),
        *squash.make(teacher, out / "squash_or_centre.png", pairs=scenes),
        *rest.make(teacher, out / "rest.png", scenes=scenes),
    ]
    print(*numbers, sep="\n")


if __name__ == "__main__":
    main()
