"""The orders that an audit gives the rows of a store."""

import time
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from store.audit.index import AuditIndex, store_digest
from store.browse.groups import Groups, Spot
from store.errors import AuditIndexError

Sort = Literal["disagreement", "entropy", "classes"]
FRESH = 5.0  # seconds that a look at the store is trusted
SORTS: tuple[Sort, ...] = get_args(Sort)


class Sorting:
    """N rows of a store by the figures of its audit; NaN, without an original label, comes last.

    Args:
        index: of the store as it is.
        groups: of that store.

    Raises:
        LabelNotFoundError: a group of the index is not in the store.
    """

    def __init__(self, index: AuditIndex, groups: Groups) -> None:
        self._group = np.repeat([groups.number(name) for name in index.group.tolist()], index.rows).astype(np.int32)
        self._row = index.row
        self._figures: dict[Sort, NDArray[Any]] = {
            "disagreement": index.disagreement,
            "entropy": index.entropy,
            "classes": index.classes,
        }
        self._orders: dict[Sort, NDArray[np.int32]] = {}
        self._store, self._digest, self._checked = groups.store, index.store_digest, time.monotonic()
        self.left_out: list[str] = index.left_out.tolist()  # names of groups that the audit could not read

    def refuse_stale(self) -> None:
        """Look every few seconds whether these figures are still of the store's labels.

        Raises:
            AuditIndexError: groups were added, removed or replaced.
        """
        if time.monotonic() - self._checked < FRESH:
            return
        if store_digest(self._store) != self._digest:
            raise AuditIndexError(
                f"{self._store} has changed since its audit; audit it again, then start `browse` anew"
            )
        self._checked = time.monotonic()

    def __len__(self) -> int:
        return len(self._row)

    def place(self, by: Sort, rank: int) -> Spot:
        """The row that comes at a rank, the largest figure at 0."""
        i = self._order(by)[rank]
        return Spot(int(self._group[i]), int(self._row[i]))

    def figure(self, by: Sort, rank: int) -> float:
        """Its figure."""
        return float(self._figures[by][self._order(by)[rank]])

    def _order(self, by: Sort) -> NDArray[np.int32]:
        if by not in self._orders:
            values = self._figures[by].astype(np.float32)
            self._orders[by] = np.argsort(-values, kind="stable").astype(np.int32)
        return self._orders[by]
