"""The student: any timm classifier, built from scratch for the store's classes."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm
import torch
from torch import nn

from store.errors import SettingsError
from store.text import brief, first_line
from trainer.settings import TrainSettings

# The trainer sets these, or they would read weights or leave no classifier.
RESERVED_ARGS = frozenset({
    "model_name", "num_classes", "in_chans", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
    "pretrained_strict", "pretrained_filter_fn", "pretrained_model_args", "checkpoint_path", "cache_dir",
    "features_only", "scriptable", "exportable", "no_jit", "device", "dtype",
})  # fmt: skip


def build_student(settings: TrainSettings, num_classes: int) -> nn.Module:
    """A student with random weights that takes the settings' images and gives one logit per class.

    Raises:
        SettingsError: no such model, arguments it does not take, or an image size that does not fit it.
    """
    if not timm.is_model(settings.model):
        near = get_close_matches(settings.model, timm.list_models(), n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them"
        raise SettingsError(f"model={brief(settings.model)}: timm has no such model; {hint}")
    if reserved := sorted(RESERVED_ARGS & settings.model_args.keys()):
        raise SettingsError(f"model_args: {reserved[0]!r} cannot be set; leave it out")
    try:
        model: nn.Module = timm.create_model(
            settings.model, pretrained=False, num_classes=num_classes, **settings.model_args
        )
    except Exception as error:  # each of timm's hundreds of models has its own way to refuse arguments
        raise SettingsError(
            f"model={settings.model!r} cannot be built with model_args={brief(settings.model_args)}: "
            f"{first_line(error)}"
        ) from error
    for size in {settings.image_size, settings.val_size}:
        _try_out(model, settings.model, size, num_classes)
    return model


def _try_out(model: nn.Module, name: str, size: int, num_classes: int) -> None:
    """One image through the model, so that a size that does not fit is known before training."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(1, 3, size, size))
    except Exception as error:
        raise SettingsError(
            f"model={name!r} does not take images of {size} x {size} pixels ({first_line(error)}); "
            'change image_size and val_size, or give model_args={"img_size": ...} if it has that'
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
        raise SettingsError(f"model={name!r} does not give one logit for each of {num_classes} classes")
    model.train(was_training)


# Settings for a network that timm knows by name, to evaluate it with weights from elsewhere; nothing is downloaded.


CLASSES = 1000  # where timm knows none


def pretrained_settings(model: str, model_args: dict[str, Any], chosen: Mapping[str, Any]) -> tuple[TrainSettings, int]:
    """How timm prepares the images of a network, and how many classes its own weights have.

    Args:
        model: timm's name, which may carry a tag such as `resnet50.tv_in1k`; `build_student` refuses unknown ones.
        model_args: for timm.create_model.
        chosen: settings that replace timm's.

    Raises:
        SettingsError: an unknown tag, a network whose images timm crops in another way, or a value that cannot be.
    """
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise SettingsError(f"model={model!r}: {first_line(error)}") from error
    view: dict[str, Any] = {}
    if config is not None:
        view = {
            "val_size": config.input_size[1],
            "val_crop_pct": float(config.crop_pct),
            "interpolation": config.interpolation,
            "mean": tuple(config.mean),
            "std": tuple(config.std),
        }
        if config.crop_mode != "center" and "val_crop_pct" not in chosen:
            raise SettingsError(
                f"model={model!r}: timm does not cut its images out of the middle (crop_mode={config.crop_mode}); "
                "give --crop-pct to do so nevertheless, 1 for the whole shorter side"
            )
    view |= chosen
    if "val_size" in view:
        view["image_size"] = view["val_size"]  # `build_student` tries both
    # Exactly as the weights are: these were not trained here in another precision.
    settings = TrainSettings(model=model, model_args=model_args, precision="float32", **view)
    return settings, CLASSES if config is None else config.num_classes
