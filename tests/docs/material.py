"""What the pages take for granted, small: shards under the names they use, weights, label stores, a student."""

import io
import json
import os
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
import timm
import torch
from safetensors.torch import save_file

from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import write_shards
from store.shards.index import index_shard
from tests.builders.paths import ROOT
from tests.builders.published import label_shard, pt_bytes, write_map
from tests.builders.stores import make_jpeg, make_schema, write_tar
from tests.builders.teachers import run_annotator, save_weights
from tests.builders.training import small_settings
from trainer.student.checkpoint import TrainState, save_checkpoint
from trainer.student.device import resolve_device
from trainer.student.student import Student
from trainer.student.trained import export_student

KEY = "n02415577_0349"  # the image that the pages look at
ROWS = 8  # of a shard
BOX = (0.0, 0.6, 0.3, 1.0)  # where each image's class is, for the pages that ask boxes
WNIDS, NAMES = ("n01440764", "n01443537", "n02415577"), ("tench, Tinca tinca", "goldfish", "bighorn, bighorn sheep")
DEVKIT_ORDER = (WNIDS[2], WNIDS[0], WNIDS[1])
VAL_CLASSES = (*WNIDS, *DEVKIT_ORDER)  # of the validation images, in the order of their numbers
TRAIN = ("train", "imagenet1k-train", "imagenet-train")  # as the pages name the same four shards
VAL = ("val", "imagenet1k-validation", "imagenetv2-matched-frequency")


class Material:
    """Makes each thing once and links or copies it into a page's folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.givers: dict[str, Callable[[Path], None]] = {
            "labels of train": lambda folder: self._labels(folder, "train"),
            "labels of imagenet1k-train": lambda folder: self._labels(folder, "imagenet1k-train"),
            "demo": self._demo,
            "digits": self._digits,
            "student": self._student,
            "exported": self._exported,
            "evaluated": self._evaluated,
            "real": self._real,
            "labels of real": self._real_labels,
            "published": self._published,
            "folders": self._folders,
            "ImageNet's tars": self._imagenet,
        }

    def prepare(self, folder: Path, given: tuple[str, ...]) -> None:
        """A clone's Makefile and commands, the shards under all their names, and what is given besides."""
        for name in ("Makefile", "pyproject.toml", "constraints.txt", ".venv", "pipelines"):
            (folder / name).symlink_to(ROOT / name)
        for below in (folder, folder / "data"):
            below.mkdir(exist_ok=True)
            self._shards(below)
        (folder / "inbox").mkdir()
        for number in range(4):
            os.link(self.cache / f"train-{number}.tar", folder / "inbox" / f"new-{number}.tar")
        self._teachers(folder)
        for name in given:
            self.givers[name](folder)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.cache / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
        return path

    def _shards(self, folder: Path) -> None:
        for number in range(4):
            tar = self.once(f"train-{number}.tar", partial(_write_shard, split="train", number=number))
            for name in TRAIN:
                os.link(tar, folder / f"{name}-{number:04}.tar")
        for number in range(2):
            tar = self.once(f"val-{number}.tar", partial(_write_shard, split="val", number=number))
            for name in VAL:
                os.link(tar, folder / f"{name}-{number:02}.tar")
            os.link(self.cache / f"train-{number}.tar", folder / f"photos-{number:03}.tar")
        (folder / "imagenet_classes.txt").write_text("".join(f"class {i}\n" for i in range(1000)))

    def _teachers(self, folder: Path) -> None:
        weights = self.once("teacher.safetensors", lambda path: save_weights(path, num_classes=1000))
        os.link(weights, folder / "small_teacher.safetensors")

    def _labels(self, folder: Path, prefix: str) -> None:
        schema = make_schema(num_classes=1000, top_k=5, map_size=(7, 7))

        def make(path: Path) -> None:
            for number in range(4):
                label_shard(path, folder / f"{prefix}-{number:04}.tar", schema, seed=number)

        shutil.copytree(self.once(f"{prefix}.zarr", make), folder / "labels.zarr")

    def _digits(self, folder: Path) -> None:
        """The demo's shards, which `make demo-shards` would draw, with fewer scenes."""

        def make(path: Path) -> None:
            write_shards(path, "train", 256, 4, 0)
            write_shards(path, "val", 64, 1, 0)

        shutil.copytree(self.once("digits", make), folder / "demo" / "shards")

    def _demo(self, folder: Path) -> None:
        self._digits(folder)
        schema = make_schema(num_classes=len(CLASS_NAMES), top_k=5, map_size=(15, 15))
        for shard in sorted((folder / "demo" / "shards").glob("digits-train-*.tar")):
            label_shard(folder / "demo" / "labels.zarr", shard, schema)

    def _student(self, folder: Path) -> None:
        def make(path: Path) -> None:
            settings = resolve_device(small_settings(model="resnet18", batch_size=2))
            student = Student(settings, num_classes=1000, steps_per_epoch=1)
            save_checkpoint(path, student.checkpoint(TrainState(epoch=1, top1=None, best_top1=None)))

        (folder / "runs" / "resnet18").mkdir(parents=True)
        os.link(self.once("best.pt", make), folder / "runs" / "resnet18" / "best.pt")

    def _exported(self, folder: Path) -> None:
        if not (folder / "runs").exists():
            self._student(folder)
        best = folder / "runs" / "resnet18" / "best.pt"
        shutil.copy(self.once("student.safetensors", lambda path: export_student(best, path)), folder)

    def _evaluated(self, folder: Path) -> None:
        """What docs/evaluate.md scores besides: published weights, and the labels of ReaL."""

        def published(path: Path) -> None:
            torch.save({"state_dict": timm.create_model("resnet50").state_dict()}, path)

        os.link(self.once("relabel_resnet50.pth", published), folder / "relabel_resnet50.pth")
        (folder / "real.json").write_text(json.dumps([[0]] * 50_000))
        self._real(folder)
        for file in (folder / "real").iterdir():
            if not (folder / file.name).exists():
                os.link(file, folder / file.name)

    def _real(self, folder: Path) -> None:
        """The files of docs/real_photographs.md under their names, with random pictures and weights."""
        real, name = folder / "real", "mobilenetv2_100_same.fp16.safetensors"
        real.mkdir()

        def weights(path: Path) -> None:
            network = timm.create_model("mobilenetv2_100", pad_type="same")
            save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)

        os.link(self.once(name, weights), real / name)
        for number in range(2):
            os.link(self.cache / f"train-{number}.tar", real / f"imagenet-sample-{number:04}.tar")
        shutil.copy(folder / "imagenet_classes.txt", real)

    def _real_labels(self, folder: Path) -> None:
        shards, name = sorted((folder / "real").glob("*.tar")), "mobilenetv2_100"
        settings = TeacherSettings(
            name=name, args={"pad_type": "same"}, checkpoint=next((folder / "real").glob(f"{name}*")),
            input_size=(96, 96), mean=(0.5,) * 3, std=(0.5,) * 3, device="cpu",
        )  # fmt: skip
        labels = self.once("real.zarr", lambda path: run_annotator(shards, path, Teacher(settings)))
        shutil.copytree(labels, folder / "real.zarr")

    def _published(self, folder: Path) -> None:
        """Maps of the published kind, in xy order, in which each sample's class leads where its box is."""

        def make(path: Path) -> None:
            maps = self.cache / "maps"
            for number in range(4):
                for sample in index_shard(folder / f"imagenet-train-{number:04}.tar").samples:
                    write_map(maps, f"{sample.key.partition('_')[0]}/{sample.key}", _map_xy(sample.label))
            with tarfile.open(path, "w") as tar:
                tar.add(maps, "relabel_imagenet")

        os.link(self.once("relabel_imagenet.tar", make), folder / "relabel_imagenet.tar")
        self._labels(folder, "imagenet-train")

    def _folders(self, folder: Path) -> None:
        """Images in class folders."""
        for split, count in (("train", 16), ("val", 4)):
            for number in range(count):
                below = folder / "pets" / "images" / split / ("cat", "dog")[number % 2]
                below.mkdir(parents=True, exist_ok=True)
                (below / f"{number}.jpg").write_bytes(make_jpeg(number))

    def _imagenet(self, folder: Path) -> None:
        """A small imitation of ImageNet's official archives: a tar of class tars, validation images, the devkit."""
        classes = []
        for i, wnid in enumerate(WNIDS):
            images = [(f"{wnid}_{number}.JPEG", make_jpeg(10 * i + number)) for number in range(8)]
            classes.append((f"{wnid}.tar", write_tar(folder / "class.tar", images).read_bytes()))
        (folder / "class.tar").unlink()
        write_tar(folder / "ILSVRC2012_img_train.tar", classes[::-1])
        val = [(f"ILSVRC2012_val_{n + 1:08}.JPEG", make_jpeg(100 + n)) for n in range(len(VAL_CLASSES))]
        write_tar(folder / "ILSVRC2012_img_val.tar", val)
        _write_devkit(folder)
        save_weights(folder / "three.safetensors", num_classes=len(WNIDS)).replace(folder / "small_teacher.safetensors")


def put_files(url: str, bucket: str, folder: Path, names: list[Path]) -> None:
    """Upload files to the server under their paths below the folder."""
    for file in names:
        address = f"{url}/{bucket}/{file.relative_to(folder).as_posix()}"
        # urllib would call it a form, as which the server would read it.
        headers = {"Content-Type": "application/octet-stream"}
        put = urllib.request.Request(address, data=file.read_bytes(), headers=headers, method="PUT")
        urllib.request.urlopen(put, timeout=30).read()


def _write_shard(path: Path, *, split: str, number: int) -> None:
    members: list[tuple[str, bytes]] = []
    for row in range(ROWS):
        i = number * ROWS + row
        key = KEY if split == "train" and i == 0 else f"n01440764_{i}"
        if split == "val":
            key = f"ILSVRC2012_val_{i + 1:08}"
        picture = make_jpeg(i if split == "train" else 1000 + i, width=64, height=48)
        boxes = json.dumps({"boxes": [BOX], "labels": [i % 10]}).encode()
        members += [(f"{key}.jpg", picture), (f"{key}.cls", str(i % 10).encode()), (f"{key}.json", boxes)]
    write_tar(path, members)


def _map_xy(label: int) -> bytes:
    """[2, 5, 7, 7] scores and class ids, indexed x, then y; the label leads in BOX."""
    content = torch.zeros(2, 5, 7, 7)
    content[0] = torch.arange(5, 0, -1)[:, None, None]
    content[1] = torch.arange(500, 505)[:, None, None]
    x1, y1, x2, y2 = (round(7 * corner) for corner in BOX)
    content[:, 0, x1:x2, y1:y2] = torch.tensor([20.0, label])[:, None, None]
    return pt_bytes(content)


def _write_devkit(folder: Path) -> None:
    """The devkit's two files: its own class numbers, in another order than that of the wnids, and the validation's."""
    fields = [("ILSVRC2012_ID", int), ("WNID", object), ("words", object), ("num_children", int)]
    leaves = [(WNIDS.index(wnid), wnid) for wnid in DEVKIT_ORDER]
    rows = [(i + 1, wnid, NAMES[n], 0) for i, (n, wnid) in enumerate(leaves)]
    synsets = np.array([*rows, (len(rows) + 1, "n00001740", "entity", 2)], fields)  # the last has no images
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": synsets})
    truth = "".join(f"{DEVKIT_ORDER.index(wnid) + 1}\n" for wnid in VAL_CLASSES).encode()
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        for name, data in (("meta.mat", buffer.getvalue()), ("ILSVRC2012_validation_ground_truth.txt", truth)):
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
