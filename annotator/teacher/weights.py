"""Weights: read from a file that may be hostile, loaded into a network that they fit, and digested."""

import hashlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from store.errors import TeacherError
from store.text import first_few, first_line

STATE_KEYS = ("state_dict", "model", "model_state_dict")


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
        with warnings.catch_warnings(action="ignore"):  # about pickles that torch refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TeacherError(f"{path}: holds more than tensors and is not loaded; save its state_dict alone") from error
    except Exception as error:  # damaged bytes make the unpickler raise errors of any type
        raise TeacherError(f"{path}: not a readable checkpoint: {first_line(error)}") from error
    return _tensors(content, path)


def fit_state(network: nn.Module, state: dict[str, Tensor], path: Path, *, role: str = "teacher") -> None:
    """Load tensors into a network; each must match one of its tensors, and no parameter may be missing.

    Args:
        network: on the CPU.
        state: from `load_state`.
        path: of their file, for messages.
        role: of the network, for messages.

    Raises:
        TeacherError: names or shapes differ, or values are not finite; the message gives the first ones.
    """
    state = {name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, tensor in state.items()}
    own = network.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    for problem, names in (
        ("misses", sorted(name for name in own.keys() - state.keys() if not name.endswith("num_batches_tracked"))),
        ("has unknown", sorted(state.keys() - own.keys())),
        ("has other shapes:", sorted(wrong)),
    ):
        if names:
            raise TeacherError(f"{path}: does not fit the {role}: it {problem} {first_few(names)}")
    if odd := [name for name, tensor in state.items() if not _is_plain(tensor)]:
        raise TeacherError(f"{path}: sparse, quantized, complex or without values: {first_few(odd)}")
    if bad := [name for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]:
        raise TeacherError(f"{path}: values that are not finite in {first_few(bad)}")
    network.load_state_dict(own | state)  # a counter that evaluation does not read may be missing


def digest_network(architecture: str, arguments: dict[str, Any], network: nn.Module) -> str:
    """Hex sha256 over architecture, arguments and the sorted tensors: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256(json.dumps([architecture, arguments], sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint: the mapping itself, or the value of one of the usual keys."""
    if isinstance(content, dict):
        nested = [content[key] for key in STATE_KEYS if isinstance(content.get(key), dict)]
        state = nested[0] if nested else content
        if state and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
            return dict(state)
    raise TeacherError(f"{path}: expected a mapping of names to tensors, also under {' or '.join(STATE_KEYS)}")


def _is_plain(tensor: Tensor) -> bool:
    return not (tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta)
