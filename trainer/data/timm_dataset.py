"""Label maps for timm's own `train.py`, without a change to it: `--device-modules trainer.data.timm_dataset`.

`train.py` imports the modules of that option before it makes its datasets with `create_dataset`. This one takes that
function's place there, for `--dataset relabel`; every other data set is made as before. `--data-dir` is a folder of
shards, and `--target-key` the label store, by default `labels.zarr` in the folder. The training set is `*train*.tar`,
with a pooled target for each crop that timm's transforms draw; timm's mixup and CutMix mix these targets. The
validation set is `*val*.tar`, with its own labels.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from store.errors import JoinError, SettingsError
from store.maps.pooling import pool_map, softmax
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import NO_LABEL, Sample, index_shard
from trainer.data.dataset import LabelledSamples
from trainer.data.division import current_ranks

NAME = "relabel"
CROP = "RandomResizedCropAndInterpolation"
# What may follow the crop: nothing that moves pixels to where the box does not describe them.
STAYING = {
    "RandomHorizontalFlip", "RandomVerticalFlip", "ColorJitter", "RandomGrayscale", "GaussianBlur", "RandomApply",
    "MaybeToTensor", "MaybePILToTensor", "ToTensor", "ToNumpy", "PILToTensor", "Normalize", "RandomErasing",
}  # fmt: skip

Place = tuple[int, int, int, int]  # top, left, height, width, pixels


class TimmTrainingSet(LabelledSamples):
    """Crops by timm's transforms, each with its pooled target (C,) float32.

    timm sets `transform` to its `Compose`, whose first step has to be its random resized crop.

    Raises:
        SettingsError: transforms that move pixels after the crop, or do not begin with timm's crop.
    """

    def __setattr__(self, name: str, value: object) -> None:
        """Let timm set its own kind of transform, which takes an image."""
        made = _CropAndTarget(value, self.num_classes) if name == "transform" and value is not None else value
        super().__setattr__(name, made)


class TimmValidationSet(Dataset[tuple[Any, int]]):
    """The images of some shards as timm's transforms take them, and their own labels.

    Raises:
        JoinError: a sample without a label.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.transform: Callable[[Image.Image], Any] | None = None
        self._samples: list[tuple[Path, Sample]] = []
        for path in shards:
            samples = index_shard(path).samples
            bad = [sample.key for sample in samples if sample.label == NO_LABEL]
            if bad:
                raise JoinError(f"{path}: {bad[0]!r} has no .cls label, which validation needs")
            self._samples += [(path, sample) for sample in samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        path, sample = self._samples[i]
        image = Image.fromarray(decode_image(read_image(path, sample)))
        return image if self.transform is None else self.transform(image), sample.label


def make_dataset(
    root: str | None, *, labels: str | None, is_training: bool, batch_size: int, seed: int
) -> TimmTrainingSet | TimmValidationSet:
    """The data set that `--dataset relabel` means.

    Args:
        root: a folder of image shards.
        labels: the label store, a path or a URL; default: `labels.zarr` in the folder.
        is_training: which of the two sets.
        batch_size: of one rank.
        seed: of the order.

    Raises:
        JoinError: no shards there.
        RelabelError: as `LabelledSamples`.
    """
    folder, pattern = Path(root or "."), "*train*.tar" if is_training else "*val*.tar"
    shards = sorted(folder.glob(pattern))
    if not shards:
        raise JoinError(f"{folder}: no shards {pattern}; give --data-dir the folder of the image shards")
    if not is_training:
        return TimmValidationSet(shards)
    world = current_ranks()[1]
    store = labels or folder / "labels.zarr"
    return TimmTrainingSet([str(shard) for shard in shards], store, batch_size=batch_size * world, seed=seed)


class _CropAndTarget:
    """From a sample to timm's transform of its image, and the target of the box that was drawn meanwhile."""

    def __init__(self, transform: Any, num_classes: int) -> None:  # noqa: ANN401 a Compose of timm
        steps = list(getattr(transform, "transforms", []))
        names = [type(step).__name__ for step in steps]
        if not names or names[0] != CROP:
            raise SettingsError(
                f"timm's transforms begin with {names[0] if names else type(transform).__name__}, not with {CROP}, "
                "whose box the target needs: leave out --no-aug, --train-crop-mode, --aug-splits and --naflex-loader"
            )
        if moving := [name for name in names[1:] if name not in STAYING]:
            raise SettingsError(f"{moving[0]} moves pixels out of the box that the target is of: leave out --aa")
        self._transform, self._num_classes, self._place = transform, num_classes, _Recorder(steps[0].get_params)
        steps[0].get_params = self._place

    def __call__(self, sample: dict[str, Any]) -> tuple[Any, Tensor]:
        pixels = self._transform(Image.fromarray(sample["image"]))
        height, width = sample["image"].shape[:2]
        top, left, h, w = self._place.last
        box = (left / width, top / height, (left + w) / width, (top + h) / height)
        logits = pool_map(sample["classes"], sample["scores"], num_classes=self._num_classes, box=box)
        return pixels, torch.from_numpy(np.asarray(softmax(logits)))


class _Recorder:
    """timm's drawing of a crop, which keeps the last one."""

    def __init__(self, draw: Callable[..., Place]) -> None:
        self._draw, self.last = draw, (0, 0, 0, 0)

    def __call__(self, *arguments: Any) -> Place:  # noqa: ANN401 as timm passes them
        self.last = self._draw(*arguments)
        return self.last


def install(script: Any) -> None:  # noqa: ANN401 a module
    """Take the place of timm's `create_dataset` in a training script.

    Raises:
        SettingsError: the script does not import it.
    """
    create = getattr(script, "create_dataset", None)
    if create is None:
        raise SettingsError("trainer.data.timm_dataset is for timm's train.py, which imports timm's create_dataset")

    def create_dataset(name: str, root: str | None = None, **options: Any) -> object:  # noqa: ANN401 timm's
        if name != NAME:
            return create(name, root=root, **options)
        for mixing in ("Mixup", "FastCollateMixup"):
            if hasattr(script, mixing):
                setattr(script, mixing, _mixing_of_targets(getattr(script, mixing)))
        return make_dataset(
            root,
            labels=options.get("target_key"),
            is_training=options["is_training"],
            batch_size=options["batch_size"],
            seed=options.get("seed", 0),
        )

    script.create_dataset = create_dataset


def _mixing_of_targets(mixing: Callable[..., object]) -> Callable[..., object]:
    """Mixup and CutMix of timm for targets that are class probabilities, instead of class numbers.

    timm smooths such targets toward one half each, as is right for binary classes; here they are not smoothed.
    """

    def make(**options: Any) -> object:  # noqa: ANN401 timm's
        return mixing(**{**options, "label_smoothing": 0.0, "multi_label": True})

    return make


if hasattr(sys.modules["__main__"], "create_dataset"):
    install(sys.modules["__main__"])
