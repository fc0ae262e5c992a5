"""A teacher that timm does not know: a function of the user's own that builds a module with `features` and `head`."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from annotator.guard import one_line
from annotator.weights import fit_state, load_state
from store.errors import TeacherError

SPEC = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
METHODS = ("features", "head")


def is_own(name: str) -> bool:
    """Whether a teacher's name means a function, as `package.module:function`."""
    return SPEC.fullmatch(name) is not None


def build_own(name: str, args: dict[str, Any], checkpoint: Path | None) -> nn.Module:
    """Call the function of that name; a checkpoint replaces the weights that it gives.

    Args:
        name: `package.module:function`; the module may lie in the current folder.
        args: for the function.
        checkpoint: safetensors or PyTorch file.

    Raises:
        TeacherError: no such function, it fails, or what it gives lacks a method.
    """
    function = _find(name)
    with one_line(f"teacher {name!r} cannot be built with {args or 'no arguments'}"):
        network = function(**args)
    missing = [method for method in METHODS if not callable(getattr(network, method, None))]
    if not isinstance(network, nn.Module) or missing:
        raise TeacherError(
            f"teacher {name!r} gives {type(network).__name__}, expected a torch.nn.Module with the methods "
            "features(images) -> (B, D, H, W) and head(cells) -> logits"
        )
    if not network.state_dict():
        raise TeacherError(
            f"teacher {name!r} has no registered parameters or buffers, so nothing tells its labels from another's; "
            "assign its weights as submodules, nn.Parameter or register_buffer"
        )
    if checkpoint is not None:
        fit_state(network, load_state(checkpoint), checkpoint)
    return network


def _find(name: str) -> Callable[..., object]:
    module, _, function = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that nothing here hides an installed package
    with one_line(f"teacher {name!r}: {module} cannot be imported"):
        found = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise TeacherError(f"teacher {name!r}: {module} has no function {function}")
    return found  # type: ignore[no-any-return]
