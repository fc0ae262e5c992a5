"""Building a timm network, with its own pretrained weights or those of a file."""

import difflib
import warnings
from pathlib import Path
from typing import Any

import timm
from torch import nn

from annotator.weights import fit_state, load_state
from store.errors import TeacherError
from store.text import first_few, first_line

# Settings with options of their own, or which would load files behind the back of the safe loader.
RESERVED_ARGS = frozenset({
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
    "num_classes", "in_chans", "device", "dtype", "features_only", "scriptable", "exportable", "no_jit",
})  # fmt: skip


def build_timm(
    name: str,
    args: dict[str, Any],
    num_classes: int | None,
    checkpoint: Path | None,
) -> nn.Module:
    """Create a timm network, with the file's weights or else timm's pretrained ones.

    Raises:
        TeacherError: unknown name or argument, weights that cannot be had or do not fit.
    """
    if reserved := sorted(RESERVED_ARGS & args.keys()):
        raise TeacherError(f"teacher argument {reserved[0]!r} cannot be set with --teacher-arg")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models())
        hint = f"did you mean {first_few(near)}?" if near else "timm.list_models() gives the names"
        raise TeacherError(f"teacher {name!r}: timm knows no such model; {hint}")
    if checkpoint is None:
        network = _create_pretrained(name, args, num_classes)
    else:
        state = load_state(checkpoint)
        network = _create(name, args, num_classes, pretrained=False)
        fit_state(network, state, checkpoint)
    return network


def set_input_size(network: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Fit position embeddings and windows to images of this height and width, for networks that have such.

    Raises:
        TeacherError: the network cannot be fitted to it.
    """
    if not hasattr(network, "set_input_size"):
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, about how timm interpolates
            network.set_input_size(img_size=size)  # type: ignore[operator]
    except Exception as error:  # each architecture fails in its own way
        raise TeacherError(f"teacher {name!r} does not take images of {size} pixels: {first_line(error)}") from error


def _create_pretrained(name: str, args: dict[str, Any], num_classes: int | None) -> nn.Module:
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = first_few(timm.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise TeacherError(f"teacher {name!r}: {first_line(error)}; timm knows {tags}") from error
    if config is None or not config.has_weights:
        raise TeacherError(f"teacher {name!r}: timm has no pretrained weights for it; pass --checkpoint FILE")
    if num_classes not in (None, config.num_classes):
        raise TeacherError(
            f"teacher {name!r}: its pretrained weights have {config.num_classes} classes, not {num_classes}; "
            "pass --checkpoint FILE with a head of that size"
        )
    try:
        return _create(name, args, None, pretrained=True)
    except TeacherError:
        raise
    except Exception as error:  # the hub client raises errors of many libraries when there is no network
        raise TeacherError(
            f"teacher {name!r}: its pretrained weights could not be downloaded ({first_line(error)}); "
            "check the network, or pass --checkpoint FILE"
        ) from error


def _create(name: str, args: dict[str, Any], num_classes: int | None, *, pretrained: bool) -> nn.Module:
    sizes = {} if num_classes is None else {"num_classes": num_classes}
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **sizes, **args)
    except Exception as error:  # each architecture fails in its own way
        if pretrained:
            raise
        raise TeacherError(
            f"teacher {name!r} cannot be built with {args or 'no arguments'}: {first_line(error)}"
        ) from error
    return network
