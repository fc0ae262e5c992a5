"""What the annotator tells of its progress, and the sum of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Reporter(Protocol):
    """Receives events while a run goes on; called from the main thread only."""

    def annotated(self, images: int, path: Path, position: int) -> None:
        """A batch came out of the teacher, the last of its images from this byte of this shard."""

    def set_aside(self, kept: str) -> None:
        """The store of another teacher was renamed to make room."""

    def committed(self, path: Path, rows: int) -> None:
        """A shard's labels are in the store."""

    def skipped(self, path: Path) -> None:
        """A shard's labels were there already."""

    def failed(self, path: Path, reason: str) -> None:
        """A shard was left out; the run goes on without it."""

    def quarantined(self, path: Path, key: str, reason: str) -> None:
        """An image could not be decoded; its row holds fill values."""


@dataclass(slots=True)
class Summary:
    """What became of a run; itself a reporter that passes every event on."""

    reporter: Reporter
    images: int = 0
    committed_shards: int = 0
    skipped_shards: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)
    bad_images: list[tuple[Path, str, str]] = field(default_factory=list)  # shard, key, reason

    def annotated(self, images: int, path: Path, position: int) -> None:
        """Count images."""
        self.images += images
        self.reporter.annotated(images, path, position)

    def set_aside(self, kept: str) -> None:
        """Pass it on."""
        self.reporter.set_aside(kept)

    def committed(self, path: Path, rows: int) -> None:
        """Count a finished shard."""
        self.committed_shards += 1
        self.reporter.committed(path, rows)

    def skipped(self, path: Path) -> None:
        """Count a shard that was done before."""
        self.skipped_shards += 1
        self.reporter.skipped(path)

    def failed(self, path: Path, reason: str) -> None:
        """Remember a shard that was left out."""
        self.failures.append((path, reason))
        self.reporter.failed(path, reason)

    def quarantined(self, path: Path, key: str, reason: str) -> None:
        """Remember an image that could not be decoded."""
        self.bad_images.append((path, key, reason))
        self.reporter.quarantined(path, key, reason)
