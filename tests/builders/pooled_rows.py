"""`record` writes which rows a process pools to `rows<rank>.txt`: one line a call, a digest a row."""

import hashlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.targets.pooling import LabelPooling

_pool = LabelPooling.forward


def _record(self: LabelPooling, classes_BKHW: Tensor, scores_BKHW: Tensor, *rest: Any) -> Tensor:
    rows = zip(classes_BKHW, scores_BKHW, strict=True)  # label maps are random, and therefore all different
    digests = [
        hashlib.sha256(classes.numpy().tobytes() + scores.numpy().tobytes()).hexdigest() for classes, scores in rows
    ]
    with Path(f"rows{os.environ.get('RANK', '0')}.txt").open("a") as file:
        file.write(" ".join(digests) + "\n")
    return _pool(self, classes_BKHW, scores_BKHW, *rest)


def record() -> None:
    """Record every call of LabelPooling from now on, for the rest of this process."""
    LabelPooling.forward = _record  # type: ignore[method-assign,assignment]
