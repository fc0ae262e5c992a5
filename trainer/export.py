"""A trained student's weights as safetensors, for timm, torchvision and whatever else reads them."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from store.errors import RunFolderError
from store.files import write_atomically
from trainer.trained import Trained, Weights, load_trained

SUFFIX = ".safetensors"  # timm and others tell the format by it


def export_student(checkpoint: Path, out: Path, weights: Weights | None = None) -> Trained:
    """Write the weights of a checkpoint's student, and what is needed to use them, to a new file.

    Args:
        checkpoint: of this project.
        out: a name that ends in .safetensors.
        weights: which of them; None for the moving average where there is one.

    Returns:
        The student whose weights were written.

    Raises:
        RunFolderError: the checkpoint cannot be used, the file is there already, or the disk refused.
    """
    if out.suffix != SUFFIX:
        raise RunFolderError(f"{out}: the name must end in {SUFFIX}; timm tells the format by it")
    if os.path.lexists(out):
        raise RunFolderError(f"{out}: exists already; choose another name, or move it away")
    student = load_trained(checkpoint, weights)
    content = save(plain_tensors(student.model), metadata(student))
    write_atomically(out, lambda handle: handle.write(content))
    return student


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A network's state: tensors on the CPU, contiguous, none sharing memory with another."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def metadata(student: Trained) -> dict[str, str]:
    """What is known of a student: texts, of which `model_args`, `mean` and `std` are JSON."""
    settings = student.settings
    known = {
        "format": "pt",
        "architecture": settings.model,
        "model_args": json.dumps(settings.model_args),
        "num_classes": str(student.num_classes),
        "image_size": str(settings.val_size),
        "crop_pct": str(settings.val_crop_pct),
        "mean": json.dumps(settings.mean),
        "std": json.dumps(settings.std),
        "interpolation": settings.interpolation,
        "weights": student.weights,
        "epoch": str(student.epoch),
    }
    return known if student.top1 is None else known | {"top1": str(student.top1)}
