"""How many images `relabel-annotate import --axes auto` needs: its verdicts on random draws of a few of them.

    python -m benchmarks.studies.axes maps --shards 'photos/*.tar' --teacher NAME --input-size 480 ...

The maps are published files in the order yx, of images squashed to `--input-size`, as `relabel-annotate export
--axes yx` writes them. Exchanged axes only change the sign of every vote, so one order is enough.
"""

from pathlib import Path

import click
import numpy as np

from annotator.published.crops import ask_teacher
from annotator.published.source import open_source
from annotator.published.verdict import Verdict
from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from pipelines.options import teacher_options
from store.cli.base import Command
from store.cli.options import shards_option
from store.shards.patterns import expand_shards

SIZES = (4, 5, 6, 8, 11, 16, 24, 40)


@click.command(cls=Command)
@click.argument("root", type=click.Path(path_type=Path), metavar="FOLDER_OR_TAR")
@shards_option("Image shards", required=True)
@teacher_options
@click.option("--draws", default=2000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(root: Path, patterns: tuple[str, ...], teacher: TeacherSettings, draws: int, seed: int) -> None:
    """Measure how often few images show the right order of their maps."""
    network, shards = Teacher(teacher), expand_shards(patterns)
    whole = ask_teacher(
        shards, open_source(root), network, network.preprocessing, num_classes=network.num_classes
    )  # fmt: skip
    print(f"{teacher.name} at {network.preprocessing.input_size[0]} pixels, {draws} draws, seed {seed}")
    print(f"{whole}; mean over root mean square {whole.ratio:.2f}")
    print("\n| images | right by the sum | decided | decided wrongly |\n|---|---|---|---|")
    rng, votes = np.random.default_rng(seed), np.array(whole.votes)
    for size in (size for size in SIZES if size <= len(votes)):
        found = [
            Verdict(unit="images", votes=tuple(rng.choice(votes, size, replace=False).tolist())) for _ in range(draws)
        ]
        right = np.mean([verdict.ratio > 0 for verdict in found])
        decided = np.mean([verdict.axes is not None for verdict in found])
        wrong = np.mean([verdict.axes == "xy" for verdict in found])
        print(f"| {size} | {right:.1%} | {decided:.1%} | {wrong:.2%} |")


if __name__ == "__main__":
    main()
