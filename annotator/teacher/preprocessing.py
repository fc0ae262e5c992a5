"""A teacher's preprocessing: its own mean, standard deviation, input size and interpolation."""

from collections.abc import Mapping
from typing import Any

from PIL import Image
from timm.data import resolve_model_data_config
from torch import nn

from store.errors import SettingsError, TeacherError
from store.format.schema import Preprocessing

OPTIONS = {"input_size": "--input-size", "mean": "--mean", "std": "--std"}


def timm_config(network: nn.Module) -> dict[str, Any]:
    """The preprocessing that timm records for a network, by timm's names."""
    return dict(resolve_model_data_config(network))


def custom_config(network: nn.Module) -> dict[str, Any]:
    """The preprocessing in a custom model's attribute `pretrained_cfg`, by timm's names."""
    config = getattr(network, "pretrained_cfg", {})
    return {"interpolation": "bicubic", **(config if isinstance(config, Mapping) else {})}


def make_preprocessing(name: str, config: Mapping[str, Any], chosen: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing `squash`: the whole image, resized to the teacher's input size without keeping its aspect.

    Args:
        name: of the teacher, for messages.
        config: `input_size` (channels, height, width), `mean`, `std` and `interpolation` by timm's names.
        chosen: `input_size` (height, width), `mean` and `std` that replace those, or None.

    Raises:
        TeacherError: the teacher does not take 3 channels, or its preprocessing is not known.
        SettingsError: an impossible mean or standard deviation.
    """
    missing = [OPTIONS[key] for key in OPTIONS if chosen[key] is None and key not in config]
    if missing:
        raise TeacherError(f"teacher {name!r} does not define its preprocessing; pass {', '.join(missing)}")
    if problem := _malformed(config):
        raise TeacherError(f"teacher {name!r}: its pretrained_cfg has {problem}")
    if "input_size" in config and config["input_size"][0] != 3:
        raise TeacherError(f"teacher {name!r} takes {config['input_size'][0]} channels; images have 3")
    if str(config["interpolation"]).upper() not in Image.Resampling.__members__:
        raise TeacherError(f"teacher {name!r}: interpolation {config['interpolation']!r} is not one of Pillow's")
    mean, std = (tuple(map(float, chosen[key] or config[key])) for key in ("mean", "std"))
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise SettingsError(
            f"mean and std are of pixels in [0, 1] and std must be positive, not mean {mean}, std {std}"
        )
    height, width = chosen["input_size"] or config["input_size"][1:]
    return Preprocessing(input_size=(height, width), interpolation=str(config["interpolation"]), mean=mean, std=std)


def _malformed(config: Mapping[str, Any]) -> str | None:
    """A description of the first entry that is not three numbers, None if all are."""
    for key, types in (("input_size", int), ("mean", (int, float)), ("std", (int, float))):
        value = config.get(key, (1, 1, 1))
        if not isinstance(value, tuple | list) or len(value) != 3 or not all(isinstance(x, types) for x in value):
            return f"{key}={value!r:.60}, expected three numbers"
    return None
