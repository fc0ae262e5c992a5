"""Settings for a network that timm knows by name, to evaluate it with weights from elsewhere; nothing is downloaded."""

from collections.abc import Mapping
from typing import Any

import timm

from store.errors import SettingsError
from store.text import reason
from trainer.settings import TrainSettings

CLASSES = 1000  # where timm knows none


def named_settings(model: str, model_args: dict[str, Any], chosen: Mapping[str, Any]) -> tuple[TrainSettings, int]:
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
        raise SettingsError(f"model={model!r}: {reason(error)}") from error
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
