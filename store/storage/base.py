"""The interface of storage backends: the objects of one store, in a local folder or under a prefix in a bucket.

Objects have relative paths such as `imagenet1k-train-0000/keys/c/0`. Only reading, listing and the commit protocol
depend on the backend.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """Size, time and ETag of a remote object, named as in `os.stat_result`."""

    st_size: int  # bytes
    st_mtime_ns: int  # its Last-Modified, in whole seconds; 0 without one
    etag: str | None  # as sent by the server, with its quotes


class ObjectVersion(NamedTuple):
    """What an object was when it was looked at or read: another version may have other bytes."""

    size: int  # bytes
    mark: Hashable  # differs after the object was replaced or changed: of a file's inode, or an ETag


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """Objects of a writer that was killed, or of a group that was replaced; nothing reads them."""

    path: str
    size: int  # bytes
    age: float  # seconds since its newest object was written
    only_copy_of: str | None = None  # name of a group whose writer was killed while replacing it


@dataclass(frozen=True, kw_only=True, slots=True)
class NewGroup:
    """A group to be committed."""

    objects: Mapping[str, bytes]  # by their path below the prefix
    record: Callable[[str], bytes]  # returns the group's `zarr.json` for the prefix of the objects
    check_root: Callable[[bytes], None]  # raises StoreMismatchError for the bytes of another root than the group's


class StorageBackend(Protocol):
    """The objects of one store. Methods raise OSError where the disk or the network fails."""

    def at(self, path: str) -> str:
        """The full path or URL of an object, for messages."""

    def read(self, path: str, limit: int) -> tuple[bytes, ObjectVersion]:
        """All bytes of an object, or none if it has more than `limit`, and the version that they are of.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: not a regular file; reading a pipe would never end.
        """

    def read_part(self, path: str, start: int, stop: int) -> tuple[bytes, ObjectVersion]:
        """Bytes `start` to `stop` of an object, fewer where it ends before; else as `read`."""

    def version(self, path: str) -> ObjectVersion:
        """An object's version; FileNotFoundError if there is none."""

    asks_are_cheap: bool  # whether `version` takes microseconds, not a request

    def folders(self) -> list[str]:
        """Names of the folders in the store that may be groups, sorted."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Apply a function that reads to all items, with results in order; a bucket is asked for several at a time."""

    def is_occupied(self) -> bool:
        """Whether the folder or prefix holds anything."""

    def create_root(self, data: bytes) -> None:
        """Write the root's `zarr.json` unless there is one."""

    def publish(self, name: str, group: "NewGroup", *, overwrite: bool) -> None:
        """Commit a group: readers see all of it or nothing.

        Args:
            name: the group's name.
            group: its objects and record.
            overwrite: replace an existing group.

        Raises:
            GroupExistsError: another writer has committed the group; nothing was changed.
            StoreMismatchError: the root is no longer the one that the group was made for; nothing was changed.
        """

    def lease(self, name: str) -> AbstractContextManager[bool]:
        """A context that keeps other writers from working on a group too; false where another one does.

        It saves work and protects nothing: `publish` decides which group is kept. In a bucket it is always true: a
        lease there would have to be renewed, and would outlive a killed writer.
        """

    def set_aside(self) -> str | None:
        """Rename the whole store; returns its new path, or None where nothing can be renamed."""

    def interrupted(self) -> list[Leftover]:
        """Groups that are not in the store because their writer was killed while replacing them."""

    def leftovers(self, used_prefix: Callable[[str], str | None]) -> Iterator[Leftover]:
        """Objects that no group has and no known writer is working on; nothing is changed.

        Args:
            used_prefix: returns the prefix in a group's record, None where there is no `zarr.json`; raises
                DamagedStoreError where the record is damaged, and then nothing of that group is a leftover.
        """

    min_age: float  # seconds for which a leftover may belong to a writer on another machine

    def clean(self, leftover: Leftover) -> None:
        """Delete a leftover, or restore it as a group if it is the only copy; one that a writer now uses is kept."""
