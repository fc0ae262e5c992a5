"""Golden stores of format version 1: each made once by `python -m tests.builders.golden`, read by every later release.

Records of the first do not name their group, and its scores are of the kind `logit`. Those of the second do, and its
scores are centred and rounded; its other values are the same.
"""

import json
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from annotator.run.rounding import round_to
from store.format.schema import Preprocessing, StoreSchema, TarIdentity, TeacherIdentity, Undecodable
from store.reader import LabelStore
from store.storage.cloud import PLAIN_GROUP
from store.writer import GroupLabels, StoreWriter
from tests.builders.paths import ROOT

FOLDER, CENTRED = (ROOT / "tests" / "store" / name for name in ("golden_v1", "golden_v1_centred"))
STEP = 0.25  # of the centred scores
ROWS = {"train-0000": 65, "train-0001": 3, "train-0002": 2}  # more and fewer than one chunk, and under a prefix
BAD_ROW = 1  # of train-0001
PREFIX = "attempt-0123456789abcdef"  # of train-0002
NAMES = ("ant", "bee", "\u00e9l\u00e9phant", "<b>", "zebra", "yak")


def golden_schema(*, centred: bool) -> StoreSchema:
    return StoreSchema(
        score_kind="centred_logit" if centred else "logit",
        score_step=STEP if centred else None,
        teacher=TeacherIdentity(architecture="resnet18", arguments={"output_stride": 8}, digest="ab" * 32),
        preprocessing=Preprocessing(
            input_size=(96, 128), interpolation="bicubic", mean=(0.5, 0.25, 0.125), std=(0.5, 0.5, 0.25)
        ),
        num_classes=6,
        top_k=2,
        map_size=(3, 4),
        class_names=NAMES,
    )


def golden_labels(name: str, *, centred: bool = False) -> GroupLabels:
    """Values that follow from the row, k and cell, so that they need no generator."""
    n, offset = ROWS[name], list(ROWS).index(name)
    row, k, y, x = np.indices((n, 2, 3, 4))
    bad = [BAD_ROW] if offset == 1 else []
    classes = ((row + k * (y + 1) + x + offset) % 6).astype(np.uint16)
    scores = (8 - 2.5 * k - 0.5 * y + 0.25 * x - row / 64).astype(np.float16)
    tail_logsumexp = (row / 32 - y - x)[:, 0].astype(np.float16)
    if centred:
        scores, tail_logsumexp = (round_to(values, STEP) for values in (scores, tail_logsumexp))
    classes[bad], scores[bad], tail_logsumexp[bad] = 65_535, np.nan, np.nan
    rows = np.arange(n)
    return GroupLabels(
        classes=classes,
        scores=scores,
        tail_logsumexp=None if offset == 1 else tail_logsumexp,
        keys=tuple(f"{name}/im\u00e5ge_{i}" for i in range(n)),
        offsets=np.stack([512 + 4096 * rows, 3000 + rows], axis=1).astype(np.uint64),
        digests=np.uint64(1 << 63) + rows.astype(np.uint64),
        labels=(rows % 7 - 1).astype(np.int32),
        undecodable=tuple(
            Undecodable(row=i, key=f"{name}/im\u00e5ge_{i}", reason="damaged JPEG: premature end") for i in bad
        ),
    )


def move_under_prefix(folder: Path, name: str) -> None:
    """Move a group's arrays under a prefix, as in an object store."""
    store = LabelStore.open(folder)
    record = replace(store.group(name).commit, prefix=PREFIX)
    arrays = list((folder / name).iterdir())
    (folder / name / PREFIX).mkdir()
    (folder / name / PREFIX / "zarr.json").write_bytes(PLAIN_GROUP)
    for array in arrays:
        if array.is_dir():
            array.rename(folder / name / PREFIX / array.name)
    document = json.loads((folder / name / "zarr.json").read_text())
    document["attributes"]["relabel.commit"] = record.to_attributes(store.root)
    (folder / name / "zarr.json").write_text(json.dumps(document, indent=1))


def main() -> None:
    writer = StoreWriter.open(CENTRED, golden_schema(centred=True))
    for name in ROWS:
        tar = TarIdentity(size=1 << 20, mtime_ns=1_700_000_000_000_000_000, sha256="cd" * 32)
        writer.write(name, golden_labels(name, centred=True), tar=tar, provenance={"timm": "1.0.20"})
    move_under_prefix(CENTRED, "train-0002")


if __name__ == "__main__":
    main()
