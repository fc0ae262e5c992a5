"""Weights: read from a file that may be hostile, loaded into a network that they fit, and digested."""

import hashlib
import json
import pickle
import warnings
from argparse import Namespace
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from store.archives import saved_problem
from store.errors import TeacherError
from store.text import first_few, first_line

# Where checkpoints of a training keep their weights. An average comes first, as timm takes it.
AVERAGES = ("state_dict_ema", "model_ema", "ema")  # timm's; DeiT's and torchvision's; this project's
STATE_KEYS = (*AVERAGES, "state_dict", "model", "model_state_dict")

# Parts of names that wrappers add, in any order and anywhere: DataParallel, torch.compile, Lightning's usual attribute,
# FSDP and activation checkpoints.
WRAPPERS = frozenset({"module", "_orig_mod", "model", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
COUNTERS = ("num_batches_tracked", "n_averaged")  # of norms and of torch's AveragedModel; evaluation reads neither


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Weights:
    """The tensors of a file, by name."""

    path: Path
    key: str  # in a checkpoint of several parts, the one that was taken; empty for a file of weights alone
    tensors: dict[str, Tensor]

    @property
    def origin(self) -> str:
        """The part of the checkpoint that was taken, for people; empty for a file of weights alone."""
        return f"moving average ({self.key})" if self.key in AVERAGES else self.key


def load_weights(path: Path) -> Weights:
    """Read tensors from a safetensors file or a PyTorch checkpoint, never running code from it.

    Raises:
        TeacherError: missing, damaged, or not a mapping of names to tensors.
    """
    if not path.is_file():
        raise TeacherError(f"{path}: no such checkpoint")
    try:
        problem = saved_problem(path)
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read: {error.strerror or error}") from error
    if problem is not None:
        raise TeacherError(f"{path}: not a readable checkpoint: {problem}")
    if path.suffix == ".safetensors":
        try:
            return Weights(path=path, key="", tensors=load_file(path))
        except Exception as error:  # safetensors has an error type for most damage, but not for all
            raise TeacherError(f"{path}: not a readable checkpoint: {first_line(error)}") from error
    return _state_of(_unpickle(path), path)


def fit_weights(network: nn.Module, weights: Weights, *, role: str = "teacher") -> None:
    """Load weights into a network; each must match one of its tensors, and no parameter may be missing.

    Args:
        network: on the CPU.
        weights: from `load_weights`; names may have parts that a wrapper added.
        role: of the network, for messages.

    Raises:
        TeacherError: names or shapes differ, or values are not finite; the message gives the first ones.
    """
    own, path = network.state_dict(), weights.path
    state = _by_own_names(weights, own)
    wrong = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    for problem, names in (
        ("misses", sorted(name for name in own.keys() - state.keys() if not name.endswith(COUNTERS))),
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


def _unpickle(path: Path) -> object:
    """The content of a file of torch.save; of torch's own messages none is passed on, since they advise to run code."""
    try:
        # The arguments of a training script: a bag of values, whose constructor runs nothing.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _foreign_types(path)
        raise TeacherError(
            f"{path}: holds more than tensors and is not loaded{f' ({found})' if found else ''}; "
            "save its state_dict alone"
        ) from error
    except Exception as error:  # damaged bytes make the unpickler raise errors of any type
        raise TeacherError(
            f"{path}: not a readable checkpoint: damaged, or not written by torch.save ({type(error).__name__})"
        ) from error


def _foreign_types(path: Path) -> str:
    """The first few classes and functions in a checkpoint that are not loaded; empty where they cannot be listed."""
    with suppress(Exception), torch.serialization.safe_globals([Namespace]):  # hostile bytes, or torch's older format
        return first_few(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    return ""


def _state_of(content: object, path: Path) -> Weights:
    """The weights of a checkpoint: the mapping itself, or the value of one of the usual keys."""
    if isinstance(content, dict):
        key = next((key for key in STATE_KEYS if isinstance(content.get(key), dict) and content[key]), "")
        state = content[key] if key else content
        if state and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
            return Weights(path=path, key=key, tensors=dict(state))
    raise TeacherError(f"{path}: expected a mapping of names to tensors, also under {' or '.join(STATE_KEYS)}")


def _by_own_names(weights: Weights, own: Iterable[str]) -> dict[str, Tensor]:
    """The tensors by the network's own names, where they differ by the parts of wrappers alone."""
    names = set(own)
    if weights.tensors.keys() <= names:
        return weights.tensors
    bare_to_own: dict[str, list[str]] = {}
    for name in names:
        bare_to_own.setdefault(_bare(name), []).append(name)
    found: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        if name not in names and name.endswith(COUNTERS[1]):
            continue
        matches = bare_to_own.get(_bare(name), [])
        target = matches[0] if len(matches) == 1 else name
        if target in found:
            raise TeacherError(f"{weights.path}: holds two tensors for {target!r}; save one network's state_dict alone")
        found[target] = tensor
    return found


def _bare(name: str) -> str:
    """A tensor's name without the parts of wrappers."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _is_plain(tensor: Tensor) -> bool:
    return not (tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta)
