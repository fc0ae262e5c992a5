"""Builders of tiny shards, label stores, settings and runs for tests."""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from store.format.schema import Preprocessing, ScoreKind, StoreSchema, TarIdentity, TeacherIdentity, Undecodable
from store.shards.index import hash_file, image_digest, index_shard, tar_members
from store.writer import GroupLabels, StoreWriter
from trainer.batch import Batch
from trainer.run.loop import TrainResult, train
from trainer.run.records import EpochReport, StepReport
from trainer.settings import TrainSettings
from trainer.student.checkpoint import load_checkpoint, step_checkpoints
from trainer.student.student import Student

NUM_CLASSES = 5
TOP_K = 2
MAP_SIZE = (3, 4)


@dataclass
class Recorder:
    """A reporter that keeps all reports."""

    steps: list[StepReport] = field(default_factory=list)
    epochs: list[EpochReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, report: StepReport) -> None:
        self.steps.append(report)

    def epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Shards with their labels, and a shard to validate on."""

    shards: list[Path]
    labels: Path
    val: list[Path]


def png(seed: int, *, height: int = 20, width: int = 24) -> bytes:
    """A small image whose channel means depend on its class, seed % NUM_CLASSES."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng((1, seed % NUM_CLASSES)).integers(0, 255, (1, 1, 3))
    pixels = np.clip(base + rng.integers(-30, 30, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], *, format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_shard(path: Path, count: int, *, first: int = 0, labelled: bool = True) -> Path:
    """Samples `s<number>` with an image and its class."""
    members: list[tuple[str, bytes]] = []
    for number in range(first, first + count):
        members.append((f"s{number:05d}.png", png(number)))
        if labelled:
            members.append((f"s{number:05d}.cls", str(number % NUM_CLASSES).encode()))
    return write_tar(path, members)


def correct_labels(shard: Path, numbers: Sequence[int], *, to: int) -> None:
    """Overwrite the class of some samples `s<number>` in their shard; its size stays."""
    content = bytearray(shard.read_bytes())
    for member in tar_members(shard):
        if member.name in {f"s{number:05d}.cls" for number in numbers}:
            content[member.offset : member.offset + member.size] = str(to).encode()
    shard.write_bytes(content)


def rot(shard: Path, number: int) -> None:
    """Overwrite the end of one image of a shard, as a failing disk does: the shard's size and time stay."""
    sample, info = index_shard(shard).samples[number], shard.stat()
    with shard.open("r+b") as file:
        file.seek(sample.offset + 8)
        file.write(bytes(sample.length - 8))
    os.utime(shard, ns=(info.st_atime_ns, info.st_mtime_ns))


SQUASHED = Preprocessing(input_size=(24, 32), interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def make_schema(
    *,
    digest: str = "0" * 64,
    score_kind: ScoreKind = "centred_logit",
    preprocessing: Preprocessing = SQUASHED,
) -> StoreSchema:
    return StoreSchema(
        score_kind=score_kind,
        teacher=TeacherIdentity(architecture="test", arguments={}, digest=digest),
        preprocessing=preprocessing,
        num_classes=NUM_CLASSES,
        top_k=TOP_K,
        map_size=MAP_SIZE,
    )


def random_maps(rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
    """(N, K, H, W) class ids, different within a cell, and descending logits."""
    shape = (count, NUM_CLASSES, *MAP_SIZE)
    classes = rng.random(shape).argsort(axis=1)[:, :TOP_K].astype(np.uint16)
    scores = -np.sort(-np.abs(rng.normal(3, 2, shape)), axis=1)[:, :TOP_K].astype(np.float16)
    return classes, scores


def label_shard(
    store: Path,
    shard: Path,
    *,
    undecodable: Sequence[int] = (),
    with_tail: bool = True,
    digest: str = "0" * 64,
    score_kind: ScoreKind = "centred_logit",
    shift: float = 0.0,
    overwrite: bool = False,
    preprocessing: Preprocessing = SQUASHED,
) -> None:
    """Commit a group of random maps for a shard; `shift` is added to its scores."""
    schema = make_schema(digest=digest, score_kind=score_kind, preprocessing=preprocessing)
    writer = StoreWriter.open(store, schema)
    index = index_shard(shard)
    data = shard.read_bytes()
    images = [data[sample.offset : sample.offset + sample.length] for sample in index.samples]
    count = len(images)
    rng = np.random.default_rng(len(index.name) + count)
    classes, scores = random_maps(rng, count)
    classes[list(undecodable)], scores[list(undecodable)] = 65_535, np.nan
    tail_logsumexp = rng.normal(0, 1, (count, *MAP_SIZE)).astype(np.float16) if with_tail else None
    if tail_logsumexp is not None:
        tail_logsumexp[list(undecodable)] = np.nan
    labels = GroupLabels(
        classes=classes,
        scores=scores + np.float16(shift),
        tail_logsumexp=tail_logsumexp,
        keys=tuple(sample.key for sample in index.samples),
        offsets=np.array([(sample.offset, sample.length) for sample in index.samples], np.uint64),
        digests=np.array([image_digest(image) for image in images], np.uint64),
        labels=np.array([sample.label for sample in index.samples], np.int32),
        undecodable=tuple(Undecodable(row=row, key=index.samples[row].key, reason="test") for row in undecodable),
    )
    tar = TarIdentity(size=index.size, mtime_ns=index.mtime_ns, sha256=hash_file(shard))
    writer.write(index.name, labels, tar=tar, provenance={}, overwrite=overwrite)


def make_dataset(folder: Path, sizes: Sequence[int] = (70, 10, 48), **label_options: Any) -> Dataset:
    """Shards of these sizes, labelled, and a validation shard of 20 samples."""
    shards: list[Path] = []
    for i, size in enumerate(sizes):
        shards.append(write_shard(folder / f"train-{i}.tar", size, first=1000 * i))
        label_shard(folder / "labels", shards[-1], **label_options)
    val = write_shard(folder / "val.tar", 20, first=90_000)
    return Dataset(shards=shards, labels=folder / "labels", val=[val])


def small_settings(**changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "model": "test_resnet",
        "image_size": 32,
        "val_size": 32,
        "val_crop_pct": 1.0,
        "epochs": 2,
        "batch_size": 32,
        "lr": 0.05,
        "warmup_epochs": 0,
        "workers": 0,
        "device": "cpu",
        "log_interval": 2,
    }
    return TrainSettings(**(values | changes))


def run(
    data: Dataset,
    out: Path,
    *,
    resume: bool = False,
    val: bool = True,
    reporter: Recorder | None = None,
    **changes: Any,
) -> TrainResult:
    return train(
        small_settings(**changes),
        shards=data.shards,
        labels=data.labels,
        val_shards=data.val if val else [],
        out=out,
        resume=resume,
        reporter=reporter or Recorder(),
    )


def metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without fields that depend on the clock."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "images_per_second", "waiting")}
        for line in lines
    ]


def last(out: Path) -> Path:
    return step_checkpoints(out)[-1]


def assert_same_state(a: Path, b: Path) -> None:
    ours, theirs = load_checkpoint(last(a)), load_checkpoint(last(b))
    for name in ("epoch", "samples_seen", "loss_sum", "top1", "best_top1"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.model.keys() == theirs.model.keys()
    assert (ours.ema or {}).keys() == (theirs.ema or {}).keys()
    assert ours.optimiser["state"].keys() == theirs.optimiser["state"].keys() != set()
    for name, tensor in ours.model.items():
        assert torch.equal(tensor, theirs.model[name]), name
    assert (ours.ema is None) == (theirs.ema is None)
    for name, tensor in (ours.ema or {}).items():
        assert torch.equal(tensor, (theirs.ema or {})[name]), name
    assert ours.optimiser["param_groups"] == theirs.optimiser["param_groups"]
    for i, state in ours.optimiser["state"].items():
        assert torch.equal(state["momentum_buffer"], theirs.optimiser["state"][i]["momentum_buffer"])
    assert ours.scheduler == theirs.scheduler


def interrupted_run(data: Dataset, out: Path, *, at_step: int, **changes: Any) -> None:
    """A run that is interrupted before this step, counted from its start, four to an epoch."""
    update = Student.update

    def dying(self: Student, batch: Batch, done: int) -> Tensor:
        if done == at_step:
            raise KeyboardInterrupt
        return update(self, batch, done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Student, "update", dying)
        with pytest.raises(KeyboardInterrupt):
            run(data, out, **changes)


def assert_same(ours: Batch, theirs: Batch) -> None:
    for name in ("images", "boxes", "classes", "scores", "labels", "flips"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
