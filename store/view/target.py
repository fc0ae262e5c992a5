"""The training target of a crop, by kind and fill: the numpy twin of `trainer.targets`, which a test holds equal to it.

Shape letters: C classes.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from store.errors import LabelMapError
from store.format.schema import StoreSchema
from store.group import LabelRow
from store.pooling import WHOLE_IMAGE, Box, Fill, pool_map, softmax

TargetKind = Literal["relabel", "global", "local-single", "global-single", "original"]
KINDS: tuple[TargetKind, ...] = get_args(TargetKind)
FILLS: tuple[Fill, ...] = get_args(Fill)


def crop_target(
    schema: StoreSchema, row: LabelRow, *, box: Box = WHOLE_IMAGE, fill: Fill = "zero", kind: TargetKind = "relabel"
) -> NDArray[np.float32]:
    """What the student would be trained on for a crop, without label smoothing.

    Args:
        schema: of the row's store.
        row: one that is not quarantined.
        box: of the crop, normalised by the whole image.
        fill: the logit of the classes outside a cell's top K.
        kind: `relabel` pools the box, `global` the whole map, the `-single` kinds keep only the largest class of
            these, `original` is the dataset's own label.

    Returns:
        (C,) float32 probabilities.

    Raises:
        LabelMapError: a box without area or outside the image, a fill without its tail, or no original label.
    """
    if kind == "original":
        if not has_label(schema, row):
            raise LabelMapError(f"{row.key!r} has no original label")
        return _one_hot(row.target, schema.num_classes)
    logits_C = pool_map(
        row.classes,
        row.scores,
        num_classes=schema.num_classes,
        box=WHOLE_IMAGE if kind.startswith("global") else box,
        fill=fill,
        tail_HW=row.tail,
    )
    if kind.endswith("-single"):
        return _one_hot(int(logits_C.argmax()), schema.num_classes)
    return softmax(logits_C)


def has_label(schema: StoreSchema, row: LabelRow) -> bool:
    """Whether the row's original label is a class of the teacher's."""
    return 0 <= row.target < schema.num_classes


def fills_of(row: LabelRow) -> tuple[Fill, ...]:
    """The fills that a row's map allows."""
    return tuple(fill for fill in FILLS if fill != "tail" or row.tail is not None)


def _one_hot(class_id: int, num_classes: int) -> NDArray[np.float32]:
    target_C = np.zeros(num_classes, np.float32)
    target_C[class_id] = 1
    return target_C
