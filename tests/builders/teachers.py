"""Teachers with random weights: nothing is downloaded in tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from annotator.report import Summary
from annotator.run.annotate import annotate, make_ready, open_labels
from annotator.settings import RunSettings, TeacherSettings
from annotator.teacher.teacher import Teacher
from store.shards.remote import Shard


def save_weights(path: Path, name: str = "test_resnet", *, num_classes: int = 12, seed: int = 0, **args: Any) -> Path:
    """Weights of a timm network in which no bias or norm is left at its symmetric start."""
    torch.manual_seed(seed)
    network = timm.create_model(name, num_classes=num_classes, **args)
    state = {
        key: value + 0.2 * torch.rand_like(value) if value.is_floating_point() and value.ndim == 1 else value
        for key, value in network.state_dict().items()
    }
    save_file({key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}, path)
    return path


def make_teacher(
    folder: Path, name: str = "test_resnet", *, size: tuple[int, int] = (64, 96), seed: int = 0
) -> Teacher:
    weights = save_weights(folder / f"{name}-{seed}.safetensors", name, seed=seed)
    return Teacher(
        TeacherSettings(name=name, checkpoint=weights, num_classes=12, input_size=size, mean=(0.5,) * 3, device="cpu")
    )


def run_annotator(
    shards: Sequence[Shard],
    labels: Path | str,
    teacher: Teacher,
    class_names: tuple[str, ...] | None = None,
    **settings: Any,
) -> Summary:
    chosen = RunSettings(**({"batch_size": 4, "workers": 0} | settings))
    ready, summary = make_ready(teacher, chosen, class_names), Summary()
    writer = open_labels(shards, labels, ready.schema, summary, overwrite=chosen.overwrite)
    annotate(shards, writer, ready, chosen, summary)
    return summary
