"""Recipes: functions that return complete training settings; `--set key=value` changes single fields."""

from collections.abc import Callable
from dataclasses import replace

from trainer.settings import TrainSettings


def demo() -> TrainSettings:
    """The digit scenes of `make demo`: a tiny student, minutes on two CPU cores."""
    return TrainSettings(
        model="test_resnet",
        image_size=64,
        crop_scale=(0.2, 0.4),  # about 64 x 64 of 120 x 120 pixels, so that digits keep their size
        flip=False,  # a mirrored digit is not that digit
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
    """ResNet-18 on ImageNet as in ReLabel (CVPR 2021), table 4: 72.5 % top-1, 71.7 % with the dataset's labels."""
    return _imagenet("resnet18")


def resnet50_relabel() -> TrainSettings:
    """ResNet-50 on ImageNet as in ReLabel, table 4: 78.9 % top-1, 77.5 % with the dataset's labels."""
    return _imagenet("resnet50")


def resnet101_relabel() -> TrainSettings:
    """ResNet-101 on ImageNet as in ReLabel, table 4: 80.7 % top-1, 78.1 % with the dataset's labels."""
    return _imagenet("resnet101")


def resnet18_relabel_cutmix() -> TrainSettings:
    """The same ResNet-18 with CutMix: 73.2 % top-1."""
    return _with_cutmix(resnet18_relabel())


def resnet50_relabel_cutmix() -> TrainSettings:
    """The same ResNet-50 with CutMix: 80.2 % top-1."""
    return _with_cutmix(resnet50_relabel())


def resnet101_relabel_cutmix() -> TrainSettings:
    """The same ResNet-101 with CutMix: 81.6 % top-1."""
    return _with_cutmix(resnet101_relabel())


def resnet50_relabel_timm() -> TrainSettings:
    """ResNet-50 with ReLabel and timm's habits: norms and biases without decay, the last norms of blocks from zero.

    These were the settings of `resnet50_relabel` in earlier releases; its run folders are resumed with this recipe.
    """
    return _with_timm_habits(resnet50_relabel())


def resnet50_relabel_cutmix_timm() -> TrainSettings:
    """The same with CutMix, and with timm's own wd_ratio of AdamP, 0.01."""
    return replace(_with_timm_habits(resnet50_relabel_cutmix()), opt_args={})


def _imagenet(model: str) -> TrainSettings:
    """The published settings: 300 epochs of SGD at batch 1,024, cosine schedule, colour jitter and PCA lighting.

    They are those of the official training code (docs/design/0008-published-recipes.md).
    """
    return TrainSettings(
        model=model,
        zero_init_last=False,
        image_size=224,
        crop_scale=(0.08, 1.0),
        flip=True,
        colour_jitter=0.4,
        lighting=0.1,
        val_size=224,
        val_crop_pct=0.875,
        epochs=300,
        batch_size=1024,
        opt="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        decay_all=True,
        sched="cosine",
        warmup_epochs=5,
        warmup_lr=0.0,
        decay_after_warmup=True,
        workers=8,
        log_interval=100,
        checkpoint_interval=500,
    )


def _with_cutmix(settings: TrainSettings) -> TrainSettings:
    """The published settings with CutMix: AdamP as its authors' package has it, and the last epochs without CutMix."""
    return replace(
        settings,
        opt="adamp",
        opt_args={"wd_ratio": 0.1},  # timm's default is 0.01
        lr=2e-3,
        weight_decay=1e-2,
        cutmix_prob=1.0,
        mixing_off_epochs=5,
    )


def _with_timm_habits(settings: TrainSettings) -> TrainSettings:
    return replace(
        settings,
        zero_init_last=True,
        decay_all=False,
        decay_after_warmup=False,
        warmup_lr=1e-4,
        label_smoothing=0.1,
    )


RECIPES: dict[str, Callable[[], TrainSettings]] = {
    recipe.__name__: recipe
    for recipe in (
        demo,
        resnet18_relabel,
        resnet50_relabel,
        resnet101_relabel,
        resnet18_relabel_cutmix,
        resnet50_relabel_cutmix,
        resnet101_relabel_cutmix,
        resnet50_relabel_timm,
        resnet50_relabel_cutmix_timm,
    )
}
