"""Building a teacher's network: a timm model, or a custom model that a user's function returns."""

import difflib
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from annotator.teacher.hub import cached_only, hub_problem
from annotator.teacher.weights import fit_weights, load_weights
from store.errors import RelabelError, TeacherError
from store.text import first_few, first_line, typed_line

# Arguments that have options of their own, or that would load files without the safe loader.
RESERVED_ARGS = frozenset({
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
    "num_classes", "in_chans", "device", "dtype", "features_only", "scriptable", "exportable", "no_jit",
})  # fmt: skip

SPEC = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")  # of a custom model
METHODS = ("features", "head")
HUB_NAME = re.compile(r"(?:hf[-_]hub:)?timm/(.+)")  # a timm model as the hub writes it


class Built(NamedTuple):
    """A network and the part of a checkpoint that its weights are from, empty for weights of one part."""

    network: nn.Module
    origin: str


def build_timm(
    name: str,
    args: dict[str, Any],
    num_classes: int | None,
    checkpoint: Path | None,
) -> Built:
    """Create a timm network with the weights of a checkpoint, or else timm's pretrained ones.

    Raises:
        TeacherError: unknown name or argument, weights that cannot be loaded or do not fit.
    """
    if reserved := sorted(RESERVED_ARGS & args.keys()):
        raise TeacherError(f"teacher argument {reserved[0]!r} cannot be set with --teacher-arg")
    if not timm.is_model(name):
        raise TeacherError(f"teacher {name!r}: timm knows no such model; {_near(name)}")
    if checkpoint is None:
        return Built(_create_pretrained(name, args, num_classes), "")
    weights = load_weights(checkpoint)
    network = _create(name, args, num_classes, pretrained=False)
    _refuse_without_classifier(name, network.num_classes)
    fit_weights(network, weights)
    return Built(network, weights.origin)


def _near(name: str) -> str:
    """What to write instead of a name that timm does not know."""
    on_hub = HUB_NAME.fullmatch(name)
    if on_hub and timm.is_model(on_hub[1]):
        return f"its own name for it is {on_hub[1]!r}"
    if "/" in name:
        return "models of a hub are not read by name; download the weights and pass --checkpoint FILE"
    near = difflib.get_close_matches(name, timm.list_models())
    return f"did you mean {first_few(near)}?" if near else "timm.list_models() gives the names"


def _refuse_without_classifier(name: str, num_classes: object) -> None:
    if num_classes == 0:
        raise TeacherError(
            f"teacher {name!r} has no classifier, only features; choose one that was trained to classify, or pass "
            "--num-classes with --checkpoint FILE of a fine-tuned one"
        )


def set_input_size(network: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Adapt position embeddings and windows to images of this height and width, in networks that have them.

    Raises:
        TeacherError: the network does not take this size.
    """
    if not hasattr(network, "set_input_size"):
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch about timm's interpolation
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
    _refuse_without_classifier(name, config.num_classes)
    if num_classes not in (None, config.num_classes):
        raise TeacherError(
            f"teacher {name!r}: its pretrained weights have {config.num_classes} classes, not {num_classes}; "
            "pass --checkpoint FILE with a head of that size"
        )
    problem = hub_problem() if config.hf_hub_id else None
    try:
        with cached_only() if problem else nullcontext():
            return _create(name, args, None, pretrained=True)
    except TeacherError:
        raise
    except Exception as error:  # the hub client raises errors of many libraries when there is no network
        raise TeacherError(
            f"teacher {name!r}: its pretrained weights could not be downloaded ({problem or first_line(error)}); "
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


def is_custom_name(name: str) -> bool:
    """Whether a teacher's name is that of a function, `package.module:function`."""
    return SPEC.fullmatch(name) is not None


def build_custom(name: str, args: dict[str, Any], checkpoint: Path | None) -> Built:
    """Build a custom model by calling the function of that name; a checkpoint replaces its weights.

    Args:
        name: `package.module:function`, importable.
        args: for the function.
        checkpoint: safetensors or PyTorch file.

    Raises:
        TeacherError: no such function, it fails, or its result lacks a method.
    """
    function = _find(name)
    with user_code_errors(f"teacher {name!r} cannot be built with {args or 'no arguments'}"):
        network = function(**args)
    missing = [method for method in METHODS if not callable(getattr(network, method, None))]
    if not isinstance(network, nn.Module) or missing:
        raise TeacherError(
            f"teacher {name!r} returns {type(network).__name__}, expected a torch.nn.Module with the methods "
            "features(images) -> (B, D, H, W) and head(cells) -> logits"
        )
    if not network.state_dict():
        raise TeacherError(
            f"teacher {name!r} has no registered parameters or buffers, so the store cannot identify it; "
            "assign its weights as submodules, nn.Parameter or register_buffer"
        )
    if checkpoint is None:
        return Built(network, "")
    weights = load_weights(checkpoint)
    fit_weights(network, weights)
    return Built(network, weights.origin)


def make_current_folder_importable() -> None:
    """Append the current folder to `sys.path`, for commands whose custom models are modules in it.

    Last, so that no file in it hides an installed package. It stays, because a model may import lazily.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _find(name: str) -> Callable[..., object]:
    module, _, function = name.partition(":")
    with user_code_errors(f"teacher {name!r}: {module} cannot be imported"):
        found = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise TeacherError(f"teacher {name!r}: {module} has no function {function}")
    return found  # type: ignore[no-any-return]


@contextmanager
def user_code_errors(what: str, hint: str = "") -> Iterator[None]:
    """Convert exceptions from user-supplied model code into a one-line TeacherError: `what`, the exception, `hint`.

    So is a call of `sys.exit`, which would end a run as if it were complete. A signal that ends the run raises a
    subclass of SystemExit, and passes. RelabelError and torch.OutOfMemoryError pass, too.
    """
    try:
        yield
    except (RelabelError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and type(error) is not SystemExit:
            raise
        raise TeacherError(f"{what}: {typed_line(error)}{hint}") from error
