"""The data set for timm's train.py, with timm's transforms, loader and task; and that script itself, where given."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
from timm.data import create_dataset, create_loader, create_transform
from timm.task import ClassificationTask
from torchvision.transforms.functional import resized_crop, to_pil_image

from store.errors import JoinError, SettingsError
from store.maps.pooling import pool_map, softmax
from tests.builders.paths import ROOT
from tests.builders.training import NUM_CLASSES, Dataset, make_dataset, write_shard
from trainer.data.dataset import LabelledSamples
from trainer.data.timm_dataset import TimmTrainingSet, TimmValidationSet, install

TRAIN_PY = os.environ.get("TIMM_TRAIN_PY", "")  # timm's script, which its package does not hold


def made(data: Dataset, *, is_training: bool = True, name: str = "relabel", **options: Any) -> Any:
    """As `train.py` makes its data sets."""
    script = SimpleNamespace(create_dataset=create_dataset)
    install(script)
    options = {"batch_size": 32, "seed": 0, "split": "train", "target_key": str(data.labels)} | options
    return script.create_dataset(name, root=str(data.shards[0].parent), is_training=is_training, **options)


def transform(**options: Any) -> Any:
    return create_transform(16, is_training=True, use_prefetcher=True, **({"hflip": 0, "color_jitter": None} | options))


def test_target_is_that_of_the_crop_which_timm_draws(dataset: Dataset) -> None:
    ours, top_left_h_w = made(dataset), (2, 3, 10, 12)
    steps = transform(interpolation="bilinear")
    steps.transforms[0].get_params = lambda image, scale, ratio: top_left_h_w
    ours.transform = steps
    plain = iter(LabelledSamples([str(shard) for shard in dataset.shards], dataset.labels, batch_size=32))
    for (pixels, target), sample in zip(ours, plain, strict=True):
        box = (3 / 24, 2 / 20, 15 / 24, 12 / 20)
        expected = pool_map(sample["classes"], sample["scores"], num_classes=NUM_CLASSES, box=box)
        assert np.array_equal(target, softmax(expected))
        crop = resized_crop(to_pil_image(sample["image"]), *top_left_h_w, [16, 16])
        assert np.array_equal(pixels, np.asarray(crop).transpose(2, 0, 1))


def test_each_rank_of_timms_loader_reads_its_part_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, ...]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        loader = create_loader(
            made(dataset, batch_size=16), input_size=(3, 16, 16), batch_size=16, is_training=True, scale=(1, 1),
            ratio=(1.2, 1.2), num_workers=2, distributed=True, device=torch.device("cpu"), persistent_workers=False,
        )  # fmt: skip
        batches = list(loader)
        assert [images.shape for images, _ in batches] == [(16, 3, 16, 16)] * len(loader) == [(16, 3, 16, 16)] * 4
        seen += [tuple(target.tolist()) for _, targets in batches for target in targets]
        task = ClassificationTask(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(5)),
                                  torch.nn.CrossEntropyLoss(), verbose=False)  # fmt: skip
        assert task(*batches[0])["loss"].isfinite()
    assert len(set(seen)) == len(seen) == 128, "whole crops of random maps all differ"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto_augment": "rand-m9-mstd0.5"}, "RandAugment moves pixels .* leave out --aa"),
        ({"no_aug": True}, "begin with Resize, not with RandomResizedCropAndInterpolation"),
        ({"train_crop_mode": "rkrc"}, "begin with ResizeKeepRatio"),
    ],
)
def test_transforms_that_lose_the_box_are_refused(dataset: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        made(dataset).transform = transform(**options)


def test_augmentations_that_stay_in_the_box_are_taken(dataset: Dataset) -> None:
    made(dataset).transform = transform(
        hflip=0.5, vflip=0.5, color_jitter=0.4, color_jitter_prob=0.8, grayscale_prob=0.2, gaussian_blur_prob=0.1
    )


def test_validation_reads_the_datasets_own_labels(dataset: Dataset, tmp_path: Path) -> None:
    ours = made(dataset, is_training=False)
    assert isinstance(ours, TimmValidationSet)
    assert [ours[i][1] for i in range(len(ours))] == [i % NUM_CLASSES for i in range(len(ours))]
    write_shard(tmp_path / "val-0.tar", 3, labelled=False)
    with pytest.raises(JoinError, match=r"'s00000' has no \.cls label"):
        TimmValidationSet([tmp_path / "val-0.tar"])
    with pytest.raises(JoinError, match=r"no shards \*train\*.tar"):
        made(Dataset(shards=[tmp_path / "val-0.tar"], labels=dataset.labels, val=[]))


@pytest.mark.parametrize("name", ["Mixup", "FastCollateMixup"])
def test_timms_mixing_mixes_pooled_targets(dataset: Dataset, name: str) -> None:
    script = SimpleNamespace(create_dataset=create_dataset, **{name: getattr(timm.data, name)})
    install(script)
    assert getattr(script, name) is getattr(timm.data, name), "before the data set is ours"
    options = {"is_training": True, "batch_size": 32, "target_key": str(dataset.labels)}
    script.create_dataset("relabel", root=str(dataset.shards[0].parent), **options)
    mix = getattr(script, name)(mixup_alpha=1.0, label_smoothing=0.1, num_classes=5)
    images, targets = torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8), torch.rand(8, 5).softmax(1)
    np.random.seed(0)
    together = (images.float(), targets) if name == "Mixup" else (list(zip(images.numpy(), targets, strict=True)),)
    _, mixed = mix(*together)
    share = ((mixed - targets.flip(0)) / (targets - targets.flip(0)))[0, 0]
    assert 0 < share < 1
    assert torch.allclose(mixed, share * targets + (1 - share) * targets.flip(0), atol=1e-5)


def test_other_data_sets_are_timms(dataset: Dataset, tmp_path: Path) -> None:
    assert isinstance(made(dataset), TimmTrainingSet)
    with pytest.raises(RuntimeError, match="Found 0 images"):  # of timm's reader of folders
        made(dataset, name="", target_key=None)
    with pytest.raises(SettingsError, match="imports timm's create_dataset"):
        install(SimpleNamespace())


@pytest.mark.slow
@pytest.mark.skipif(not TRAIN_PY, reason="TIMM_TRAIN_PY does not name timm's train.py")
def test_unmodified_train_py_trains(tmp_path: Path) -> None:
    make_dataset(tmp_path, (40, 30, 65))
    # In one process: on CPUs timm gives DistributedDataParallel a device, which torch refuses.
    options = (
        "--device cpu --device-modules trainer.data.timm_dataset --dataset relabel --data-dir . --target-key labels "
        "--model test_resnet --num-classes 5 --img-size 32 -b 32 --epochs 2 --warmup-epochs 0 --smoothing 0 -j 1 "
        "--mixup 0.2 --cutmix 1.0"
    )
    done = subprocess.run(
        [sys.executable, TRAIN_PY, *options.split()],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Train: 1 [   3/4 (100%)]" in done.stderr
    assert '"top1"' in done.stdout
