"""Building a timm network and giving it weights, from the hub or from a file that may be hostile."""

import difflib
import hashlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from store.errors import TeacherError
from store.text import first_few

# Settings with options of their own, or which would load files behind the back of the safe loader.
RESERVED_ARGS = frozenset({
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
    "num_classes", "in_chans", "features_only", "scriptable", "exportable", "no_jit",
})  # fmt: skip
STATE_KEYS = ("state_dict", "model", "model_state_dict")


def build_network(name: str, args: dict[str, Any], num_classes: int | None, checkpoint: Path | None) -> nn.Module:
    """Create a timm network in evaluation mode, with the file's weights or else timm's pretrained ones.

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
    return network.eval().requires_grad_(False)


def load_state(path: Path) -> dict[str, Tensor]:
    """Read tensors from a safetensors file or a PyTorch checkpoint, never running code from it.

    Raises:
        TeacherError: missing, damaged, or not a mapping of names to tensors.
    """
    if not path.is_file():
        raise TeacherError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused just below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TeacherError(f"{path}: holds more than tensors and is not loaded; save its state_dict alone") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TeacherError(f"{path}: not a readable checkpoint: {_first_line(error)}") from error
    return _tensors(content, path)


def fit_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load tensors into a network; all of them must be used, and no parameter left out.

    Raises:
        TeacherError: names or shapes differ; the message gives the first ones.
    """
    state = {name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, tensor in state.items()}
    own = network.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    for kind, names in (
        ("misses", sorted(name for name in own.keys() - state.keys() if not name.endswith("num_batches_tracked"))),
        ("has unknown", sorted(state.keys() - own.keys())),
        ("has other shapes:", sorted(wrong)),
    ):
        if names:
            raise TeacherError(f"{path}: does not fit the teacher: it {kind} {first_few(names)}")
    if bad := [name for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]:
        raise TeacherError(f"{path}: values that are not finite in {first_few(bad)}")
    network.load_state_dict(own | state)  # a counter that no evaluation reads may be missing


def digest_network(architecture: str, arguments: dict[str, Any], network: nn.Module) -> str:
    """Hex sha256 over architecture, arguments and the sorted tensors: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256(json.dumps([architecture, arguments], sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _create_pretrained(name: str, args: dict[str, Any], num_classes: int | None) -> nn.Module:
    config = timm.get_pretrained_cfg(name)
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
            f"teacher {name!r}: its pretrained weights could not be downloaded ({_first_line(error)}); "
            "check the network, or pass --checkpoint FILE"
        ) from error


def _create(name: str, args: dict[str, Any], num_classes: int | None, *, pretrained: bool) -> nn.Module:
    sizes = {} if num_classes is None else {"num_classes": num_classes}
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **sizes, **args)
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise TeacherError(
            f"teacher {name!r} cannot be built with {args or 'no arguments'}: {_first_line(error)}"
        ) from error
    return network


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint: the mapping itself, or under one of the usual keys."""
    if isinstance(content, dict):
        nested = [content[key] for key in STATE_KEYS if isinstance(content.get(key), dict)]
        state = nested[0] if nested else content
        if state and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
            return dict(state)
    raise TeacherError(f"{path}: expected a mapping of names to tensors, also under {' or '.join(STATE_KEYS)}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
