"""Builds timm classifiers: students with random weights, and settings for networks with weights from elsewhere."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from store.errors import SettingsError
from store.text import brief, first_line
from trainer.settings import TrainSettings

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
CLASSES = 1000  # of a network whose own number timm does not know
# Arguments that the trainer sets, that would read weights, or that would leave no classifier.
RESERVED_ARGS = frozenset({
    "model_name", "num_classes", "in_chans", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
    "pretrained_strict", "pretrained_filter_fn", "pretrained_model_args", "checkpoint_path", "cache_dir",
    "features_only", "scriptable", "exportable", "no_jit", "device", "dtype",
})  # fmt: skip


def build_student(settings: TrainSettings, num_classes: int) -> nn.Module:
    """Build a student with random weights from torch's global generator; `check_images` tries it out.

    Raises:
        SettingsError: no such model, or arguments it does not take.
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
    except Exception as error:  # timm's models refuse arguments with exceptions of any type
        raise SettingsError(
            f"model={settings.model!r} cannot be built with model_args={brief(settings.model_args)}: "
            f"{first_line(error)}"
        ) from error
    if not settings.zero_init_last:
        _start_norms_at_one(model)
    return model


def _start_norms_at_one(model: nn.Module) -> None:
    """Set the weights of norms that start at zero to one, with which all others start."""
    for module in model.modules():
        if isinstance(module, NORMS) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)


def synchronise_norms(model: nn.Module) -> nn.Module:
    """Turn the batch norms of a model into SyncBatchNorm, in place; weights and statistics stay the same tensors."""
    synchronised: nn.Module = convert_sync_batchnorm(model)  # torch's own would drop the activations in timm's norms
    return synchronised


def check_images(model: nn.Module, settings: TrainSettings, num_classes: int) -> None:
    """Run a black image of each of the settings' sizes through a model; leaves the model in evaluation mode.

    Raises:
        SettingsError: a size that the model does not take, or a result other than one logit per class.
    """
    model.eval()
    device = next(model.parameters()).device
    for size in {settings.image_size, settings.val_size}:
        try:
            with torch.inference_mode():
                logits = model(torch.zeros(1, 3, size, size, device=device))
        except Exception as error:  # timm's models fail with exceptions of any type
            raise SettingsError(
                f"model={settings.model!r} does not take images of {size} x {size} pixels ({first_line(error)}); "
                'change image_size and val_size, or give model_args={"img_size": ...} if it has that'
            ) from error
        if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
            raise SettingsError(f"model={settings.model!r} does not give one logit for each of {num_classes} classes")


def pretrained_settings(model: str, model_args: dict[str, Any], chosen: Mapping[str, Any]) -> tuple[TrainSettings, int]:
    """Settings to evaluate a network as timm does, and the number of classes of timm's weights; nothing is downloaded.

    Args:
        model: timm's name, with or without a tag such as `resnet50.tv_in1k`; `build_student` refuses unknown ones.
        model_args: for timm.create_model.
        chosen: settings that replace timm's.

    Raises:
        SettingsError: an unknown tag, a network whose images timm does not crop centrally, or a value out of range.
    """
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise SettingsError(f"model={model!r}: {first_line(error)}") from error
    preprocessing: dict[str, Any] = {}
    if config is not None:
        preprocessing = {
            "val_size": config.input_size[1],
            "val_crop_pct": float(config.crop_pct),
            "interpolation": config.interpolation,
            "mean": tuple(config.mean),
            "std": tuple(config.std),
        }
        if config.crop_mode != "center" and "val_crop_pct" not in chosen:
            raise SettingsError(
                f"model={model!r}: timm does not crop its images centrally (crop_mode={config.crop_mode}); "
                "give --crop-pct to do so nevertheless, 1 for the whole shorter side"
            )
    preprocessing |= chosen
    if "val_size" in preprocessing:
        preprocessing["image_size"] = preprocessing["val_size"]  # `check_images` tries both
    # Weights from elsewhere are evaluated in full precision.
    settings = TrainSettings(model=model, model_args=model_args, precision="float32", **preprocessing)
    return settings, CLASSES if config is None else config.num_classes
