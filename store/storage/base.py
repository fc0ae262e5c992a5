"""The interface of storage backends: the objects of one store, in a local folder or under a prefix in a bucket.

Objects have relative paths such as `imagenet1k-train-0000/keys/c/0`. Only reading, listing and the commit protocol
depend on the backend.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """Size, time and ETag of a remote object, named as in `os.stat_result`."""

    st_size: int  # bytes
    st_mtime_ns: int  # its Last-Modified, in whole seconds; 0 without one
    etag: str | None  # as sent by the server, with its quotes


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """Objects of a writer that was killed, or of a group that was replaced; nothing reads them."""

    path: str
    size: int  # bytes
    age: float  # seconds since its newest object was written
    only_copy_of: str | None = None  # name of a group whose writer was killed while replacing it


class StorageBackend(Protocol):
    """The objects of one store. Methods raise OSError where the disk or the network fails."""

    def at(self, path: str) -> str:
        """The full path or URL of an object, for messages."""

    def read(self, path: str) -> bytes:
        """All bytes of an object; FileNotFoundError if there is none."""

    def size(self, path: str) -> int:
        """Bytes of an object; FileNotFoundError if there is none."""

    def identity(self, name: str) -> object:
        """A value that differs after a group was replaced under the same paths; FileNotFoundError if there is none."""

    def folders(self) -> list[str]:
        """Names of the folders in the store that may be groups, sorted."""

    def errors(self, path: str) -> AbstractContextManager[None]:
        """A context that turns the backend's own errors of reading an opened array into OSError."""

    def array(self, path: str) -> Any:  # noqa: ANN401  (zarr's arrays are generic over their metadata)
        """The Zarr array at a path, opened for reading."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Apply a function that reads to all items, with results in order; a bucket is asked for several at a time."""

    def is_occupied(self) -> bool:
        """Whether the folder or prefix holds anything."""

    def create_root(self, data: bytes) -> None:
        """Write the root's `zarr.json` unless there is one."""

    def publish(
        self, name: str, objects: Mapping[str, bytes], record: Callable[[str], bytes], *, overwrite: bool
    ) -> None:
        """Commit a group: readers see all of it or nothing.

        Args:
            name: the group's name.
            objects: its objects by their path below the prefix.
            record: returns the group's `zarr.json` for the prefix of the objects.
            overwrite: replace an existing group.

        Raises:
            GroupExistsError: another writer has committed the group; nothing was changed.
        """

    def lease(self, name: str) -> AbstractContextManager[bool]:
        """A context that keeps other writers from working on a group too; false where another one does.

        It saves work and protects nothing: `publish` decides which group is kept. In a bucket it is always true: a
        lease there would have to be renewed, and would outlive a killed writer.
        """

    def set_aside(self) -> str | None:
        """Rename the whole store; returns its new path, or None where nothing can be renamed."""

    def leftovers(self, used_prefix: Callable[[str], str | None]) -> Iterator[Leftover]:
        """Objects that no group has and no known writer is working on; nothing is changed.

        Args:
            used_prefix: returns the prefix in a group's record, None where there is no `zarr.json`; raises
                DamagedStoreError where the record is damaged, and then nothing of that group is a leftover.
        """

    min_age: float  # seconds for which a leftover may belong to a writer on another machine

    def clean(self, leftover: Leftover) -> None:
        """Delete a leftover, or restore it as a group if it is the only copy; one that a writer now uses is kept."""
