"""The figures of one label group, read in blocks so that the memory it takes is bounded.

Letters: N usable rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.audit.maps import PRESENT_PROBABILITY, ImageFigures, image_figures
from store.errors import LabelMapError
from store.group import LabelGroup, LabelRows
from store.layout import CHUNK_ROWS
from store.pooling import Fill

READ_ROWS = 4 * CHUNK_ROWS
BLOCK_ROWS = CHUNK_ROWS  # whose arrays stay in the processor's cache: several times faster than 256


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditSettings:
    """What an audit is asked for.

    Raises:
        LabelMapError: a threshold that is no probability, or fewer than no images.
    """

    fill: Fill = "zero"  # the logit of classes outside a cell's top K
    threshold: float = PRESENT_PROBABILITY  # with which a class must lead in a cell to count there
    top: int = 10  # images and classes listed

    def __post_init__(self) -> None:
        """Check what is counted with."""
        if not 0 <= self.threshold <= 1 or self.top < 0:
            raise LabelMapError(f"threshold {self.threshold}, top {self.top}: expected 0 to 1, and 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupAudit:
    """The usable rows of a group with their figures."""

    name: str
    rows: NDArray[np.int32]  # (N,) in the group
    keys: list[str]  # N
    targets: NDArray[np.int32]  # (N,)
    figures: ImageFigures  # of N images


def audit_group(group: LabelGroup, settings: AuditSettings) -> GroupAudit:
    """Read a group and compute its figures; quarantined rows are left out.

    Raises:
        DamagedStoreError: its labels cannot be read.
        StoreReadError: the disk or network failed.
        LabelMapError: a fill that needs a tail where the group has none.
    """
    if settings.fill == "tail" and not group.has_tail and group.schema.top_k < group.schema.num_classes:
        raise LabelMapError(f"{group}: fill 'tail' needs a tail, which this group does not have; use 'zero' or 'min'")
    usable, targets, keys = group.usable(), group.targets, group.keys
    rows = np.flatnonzero(usable).astype(np.int32)
    parts = [
        image_figures(
            maps,
            block_targets,
            num_classes=group.schema.num_classes,
            fill=settings.fill,
            threshold=settings.threshold,
        )
        for maps, block_targets in _blocks(group, usable, targets)
    ]
    kept = [keys[row] for row in rows.tolist()]
    return GroupAudit(name=group.name, rows=rows, keys=kept, targets=targets[rows], figures=_join(parts))


def _blocks(
    group: LabelGroup, usable: NDArray[np.bool_], targets: NDArray[np.int32]
) -> Iterator[tuple[LabelRows, NDArray[np.int32]]]:
    """Label maps and original labels of some usable rows at a time, at least one block, be it empty."""
    for start in range(0, max(len(group), 1), READ_ROWS):
        maps = group.read(start, min(start + READ_ROWS, len(group)))
        found = np.flatnonzero(usable[start : start + READ_ROWS])
        for first in range(0, max(len(found), 1), BLOCK_ROWS):
            rows = found[first : first + BLOCK_ROWS]
            block = LabelRows(
                classes=maps.classes[rows],
                scores=maps.scores[rows],
                tail=None if maps.tail is None else maps.tail[rows],
            )
            yield block, targets[start + rows]


def _join(parts: list[ImageFigures]) -> ImageFigures:
    first_rows = np.cumsum([0, *(len(part.top) for part in parts)])
    return ImageFigures(
        label_whole=np.concatenate([part.label_whole for part in parts]),
        label_best=np.concatenate([part.label_best for part in parts]),
        top=np.concatenate([part.top for part in parts]),
        top_probability=np.concatenate([part.top_probability for part in parts]),
        entropy=np.concatenate([part.entropy for part in parts]),
        present_rows=np.concatenate([part.present_rows + i for part, i in zip(parts, first_rows, strict=False)]),
        present=np.concatenate([part.present for part in parts]),
    )
