"""Shows the demo's result: both students' accuracies, one label map in the terminal and as a picture."""

import glob
import shlex
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from pipelines.demo.stages import ARMS, make_shards
from pipelines.digits.shards import read_truth
from store.group import GroupRow
from store.maps.types import Box
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.text import printable
from store.view.describe import describe_row
from store.view.figure import draw_map
from store.view.images import ShardImages
from store.view.terminal import make_console, render_row
from trainer.data.loading import worker_deaths
from trainer.evaluation.evaluate import open_val, predict
from trainer.student.checkpoint import step_checkpoints
from trainer.student.trained import load_trained

# The two crops of the picture, top left and bottom right.
CROPS: tuple[Box, Box] = ((0.0, 0.0, 0.6, 0.6), (0.4, 0.4, 1.0, 1.0))


@worker_deaths()
def show_result(out: Path) -> None:
    """Print a label map, draw it to `out/label_map.png`, and compare the students in `out`."""
    training, val = make_shards(out)
    key = _scene_that_shows_localization(training[0])
    group, number = LabelStore.open(out / "labels.zarr").find(key)
    row = group[number]
    console = make_console()
    console.print()
    console.print(render_row(describe_row(row)))
    _draw(out / "label_map.png", training[0], row)
    console.print()
    _compare(console, out, val)
    labels, shards = str(out / "labels.zarr"), str(training[0].with_name("digits-train-*.tar"))
    show = shlex.join([command("relabel-store"), "show", labels, key])
    browse = shlex.join([command("relabel-store"), "browse", labels, "--shards", shards])
    click.echo()
    for line in (f"open {out / 'label_map.png'}, or view this and other maps:", f"  {show}", f"  {browse}"):
        click.echo(printable(line))


def command(name: str) -> str:
    """Path of an installed command, beside this Python, relative to the current folder where possible."""
    script = Path(sys.executable).with_name(name)
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _compare(console: Console, out: Path, val: list[Path]) -> None:
    """Print the students' accuracies on the validation scenes."""
    table = Table("trained with", "top-1 is a digit present", "top-1 is the label", box=None, pad_edge=False)
    present = {scene.key: set(scene.labels) for shard in val for scene in read_truth(shard)}
    for target, name in ARMS.items():
        student = load_trained(step_checkpoints(out / target)[-1])
        hits = label_hits = 0
        for prediction in predict(student.model, open_val(val, 10), student.settings):
            best = prediction.logits.argmax(1)
            label_hits += int((best == prediction.labels).sum())
            hits += sum(int(b) in present[key] for key, b in zip(prediction.keys, best, strict=True))
        table.add_row(name, f"{hits / len(present):.1%}", f"{label_hits / len(present):.1%}")
    console.print(table)
    console.print("One run each, one seed: differences of a point or two are noise.")


def _draw(file: Path, shard: Path, row: GroupRow) -> None:
    """Draw a row's label map on its image, after a check that it is the one that was annotated."""
    image = decode_image(ShardImages([glob.escape(str(shard))]).read(row.group, row.number))
    draw_map(file, image, row, row.group.schema, crops=CROPS)


def _scene_that_shows_localization(shard: Path) -> str:
    """Key of the first scene of three or more different digits whose two crops share none and cut none."""
    scenes = list(read_truth(shard))
    for scene in scenes:
        first, second = (scene.labels_inside(crop) for crop in CROPS)
        whole = all(scene.labels_inside(crop) == scene.labels_touching(crop) for crop in CROPS)
        if whole and first and second and not first & second and len(set(scene.labels)) == len(scene.labels) >= 3:
            return scene.key
    return scenes[0].key
