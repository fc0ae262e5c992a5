"""Recipes: complete settings under a name. Single fields are changed with `--set key=value`."""

from collections.abc import Callable

from trainer.settings import TrainSettings


def demo() -> TrainSettings:
    """The digit scenes of `make demo`: a tiny student, minutes on two CPU cores."""
    return TrainSettings(
        model="test_resnet",
        image_size=64,
        crop_scale=(0.2, 0.4),  # of 120 x 120 scenes: about 64 x 64, so that digits keep their size
        flip=False,  # a mirrored digit is another sign
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        val_size=120,
        val_crop_pct=1.0,
        epochs=8,
        batch_size=32,
        opt="adamw",
        lr=4e-3,
        weight_decay=0.02,
        warmup_epochs=1,
        label_smoothing=0.1,
        workers=2,
        log_interval=25,
    )


def resnet18_relabel() -> TrainSettings:
    """ResNet-18 on ImageNet as in ReLabel (CVPR 2021), table 4: 72.5 % top-1, 71.7 % with original labels."""
    return TrainSettings(
        model="resnet18",
        image_size=224,
        crop_scale=(0.08, 1.0),
        flip=True,
        val_size=224,
        val_crop_pct=0.875,
        epochs=300,
        batch_size=1024,
        opt="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        sched="cosine",
        warmup_epochs=5,
        label_smoothing=0.1,
        workers=8,
        log_interval=100,
    )


RECIPES: dict[str, Callable[[], TrainSettings]] = {"demo": demo, "resnet18_relabel": resnet18_relabel}
