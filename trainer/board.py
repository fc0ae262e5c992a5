"""A run's numbers for TensorBoard, beside `metrics.jsonl`."""

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Board:
    """Event files in the run folder.

    Args:
        folder: of the run.
        updates_done: what an earlier process wrote after these is gone through again, and hidden.
    """

    def __init__(self, folder: Path, updates_done: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=updates_done + 1)

    def add(self, group: str, record: Mapping[str, object], updates: int) -> None:
        """Add the numbers of a record under `group/name`, after so many updates."""
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{group}/{name}", value, updates)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
