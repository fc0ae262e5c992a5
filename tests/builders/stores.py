"""Small shards and stores for tests."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from store.format.arrays import array_specs, encode_array
from store.format.schema import Preprocessing, StoreSchema, TarIdentity, TeacherIdentity, Undecodable, canonical, seal
from store.writer import GroupLabels, StoreWriter

Members = Sequence[tuple[str, bytes]]
TAR = TarIdentity(size=1 << 41, mtime_ns=2, sha256="00")
PROVENANCE = {"timm": "1.0", "torch": "2.9", "precision": "float32", "device": "cpu"}


def make_schema(
    *, num_classes: int = 20, top_k: int = 3, map_size: tuple[int, int] = (2, 4), digest: str = "d1gest"
) -> StoreSchema:
    return StoreSchema(
        score_kind="centred_logit",
        teacher=TeacherIdentity(architecture="resnet18", arguments={"pad_type": "same"}, digest=digest),
        preprocessing=Preprocessing(
            input_size=(64, 128), interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.1)
        ),
        num_classes=num_classes,
        top_k=top_k,
        map_size=map_size,
    )


def make_labels(schema: StoreSchema, rows: int, seed: int = 0, *, with_tail: bool = True) -> GroupLabels:
    """Random labels, a pure function of the arguments."""
    rng = np.random.default_rng(seed)
    shape = (rows, schema.top_k, *schema.map_size)
    order = rng.random((rows, schema.num_classes, *schema.map_size)).argsort(axis=1)
    return GroupLabels(
        classes=order[:, : schema.top_k].astype(np.uint16),
        scores=-np.sort(-np.abs(rng.normal(4, 3, shape)), axis=1).astype(np.float16),
        tail_logsumexp=rng.normal(2, 1, (rows, *schema.map_size)).astype(np.float16) if with_tail else None,
        keys=tuple(f"seed{seed}/row{row:04}" for row in range(rows)),
        offsets=rng.integers(0, 1 << 40, (rows, 2)).astype(np.uint64),
        digests=rng.integers(0, 1 << 63, rows).astype(np.uint64),
        labels=rng.integers(-1, schema.num_classes, rows).astype(np.int32),
    )


def mark_undecodable(labels: GroupLabels, row: int, reason: str) -> GroupLabels:
    """The same labels with a row that holds fill values."""
    fields = {name: getattr(labels, name) for name in GroupLabels.__slots__}
    for name, fill in (("classes", 65_535), ("scores", np.nan), ("tail_logsumexp", np.nan)):
        if fields[name] is not None:
            fields[name] = fields[name].copy()
            fields[name][row] = fill
    bad = Undecodable(row=row, key=labels.keys[row], reason=reason)
    return GroupLabels(**(fields | {"undecodable": (*labels.undecodable, bad)}))


def make_jpeg(seed: int = 0, *, width: int = 40, height: int = 30) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = coarse.repeat(-(-height // 4), axis=0).repeat(-(-width // 5), axis=1)[:height, :width]
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)
    return data


def make_members(count: int, *, first: int = 0) -> list[tuple[str, bytes]]:
    """`count` samples with a JPEG and a class each."""
    members = []
    for i in range(first, first + count):
        members += [(f"img{i:04}.jpg", make_jpeg(i)), (f"img{i:04}.cls", str(i % 5).encode())]
    return members


def write_tar(path: Path, members: Members, **options: int) -> Path:
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


ROWS = 70

SCHEMA = make_schema()


def write(path: Path, name: str, seed: int = 0, *, overwrite: bool = False) -> None:
    labels = make_labels(SCHEMA, ROWS, seed)
    writer = StoreWriter.open(path, SCHEMA)
    writer.write(name, labels, tar=TAR, provenance=PROVENANCE, overwrite=overwrite)


def reseal(path: Path, fields: dict[str, object]) -> None:
    """Change a commit record and seal it with a valid digest."""
    file = path / "a" / "zarr.json"
    document = json.loads(file.read_text())
    record = document["attributes"]["relabel.commit"] | fields
    del record["digest"]
    root = json.loads((path / "zarr.json").read_text())["attributes"]["relabel"]
    record["digest"] = seal(record, canonical(root))
    document["attributes"]["relabel.commit"] = record
    file.write_text(json.dumps(document))


def replace_array(path: Path, name: str, values: NDArray[Any]) -> None:
    """Replace an array of a group by a well-formed one of other values or another shape, and seal the record."""
    spec = next(spec for spec in array_specs(SCHEMA, len(values), with_tail=True) if spec.name == name)
    spec = replace(spec, shape=values.shape, dtype=str(values.dtype), fill=0)
    objects = json.loads((path / "a" / "zarr.json").read_text())["attributes"]["relabel.commit"]["objects"]
    for object_path, data in encode_array(spec, values).items():
        (path / "a" / object_path).write_bytes(data)
        objects[object_path] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(path, {"objects": objects})
