"""What the demo ends with: two students compared, one label map in the terminal, and its picture."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from pipelines.demo import ARMS, make_shards
from pipelines.digits.truth import read_truth
from store.images import decode_image
from store.pooling import Box
from store.reader import LabelStore
from store.view.describe import describe_row
from store.view.figure import draw_map
from store.view.render import make_console, render_row
from trainer.evaluate import load_student, open_val, predict

CROP_SHARE = 0.6  # of a side: the two crops of the picture, top left and bottom right
CROPS: tuple[Box, Box] = ((0.0, 0.0, CROP_SHARE, CROP_SHARE), (1 - CROP_SHARE, 1 - CROP_SHARE, 1.0, 1.0))


def show_result(out: Path) -> None:
    """Compare the students in `out`, print a label map and draw it to `out/label_map.png`."""
    training, val = make_shards(out)
    key = _scene_with_digits_in_both_crops(training[0])
    store = LabelStore.open(out / "labels.zarr")
    group, row = store.find(key)
    console = make_console()
    console.print()
    console.print(render_row(describe_row(store.schema, group, row)))
    _draw(out / "label_map.png", training[0], store, key)
    console.print()
    _compare(console, out, val)
    click.echo(f"\nlook at {out / 'label_map.png'}, or at any image: relabel-store show {out / 'labels.zarr'} KEY")


def _compare(console: Console, out: Path, val: list[Path]) -> None:
    """A table of the students' accuracies on the validation scenes."""
    table = Table("trained with", "top-1 is a digit present", "top-1 is the label", box=None, pad_edge=False)
    present = {scene.key: set(scene.labels) for shard in val for scene in read_truth(shard)}
    for target, name in ARMS.items():
        model, settings = load_student(out / target / "last.pt")
        hits = label_hits = 0
        for prediction in predict(model, open_val(val, 10), settings):
            best = prediction.logits.argmax(1)
            label_hits += int((best == prediction.labels).sum())
            hits += sum(int(b) in present[key] for key, b in zip(prediction.keys, best, strict=True))
        table.add_row(name, f"{hits / len(present):.1%}", f"{label_hits / len(present):.1%}")
    console.print(table)
    console.print("One run each, one seed: differences of a point or two are noise.")


def _draw(file: Path, shard: Path, store: LabelStore, key: str) -> None:
    group, index = store.find(key)
    row = group.row(index)
    with shard.open("rb") as tar:
        tar.seek(row.offset)
        image = decode_image(tar.read(row.length))
    draw_map(file, image, row, store.schema, crops=CROPS)


def _scene_with_digits_in_both_crops(shard: Path) -> str:
    """The first scene whose crops show different digits, where localization shows best."""
    scenes = list(read_truth(shard))
    for scene in scenes:
        first, second = (scene.labels_inside(crop) for crop in CROPS)
        if first and second and not first & second and len(set(scene.labels)) >= 3:
            return scene.key
    return scenes[0].key
