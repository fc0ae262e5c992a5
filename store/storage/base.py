"""Where a store lies: a folder on a local disk, or a prefix in an object store.

A place holds objects under relative paths such as `imagenet1k-train-0000/keys/c/0`. Reading and the commit protocol
differ from one kind of place to the other; everything above does not care.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """What a server says of an object, named as in `os.stat_result`."""

    st_size: int  # bytes
    st_mtime_ns: int  # its Last-Modified, whole seconds; 0 where the server does not say
    etag: str | None  # as the server writes it, quotes included


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """Objects of a writer that was killed, or of a group that was replaced; nothing reads them."""

    path: str
    size: int  # bytes
    age: float  # seconds since its newest object was written
    only_copy_of: str | None = None  # a group that a writer was killed while replacing


class StorageBackend(Protocol):
    """The objects of one store. Methods that touch it raise OSError where the disk or the network does."""

    def at(self, path: str) -> str:
        """The full path or URL of an object, for messages."""

    def read(self, path: str) -> bytes:
        """A whole object; FileNotFoundError if there is none."""

    def size(self, path: str) -> int:
        """Bytes of an object; FileNotFoundError if there is none."""

    def identity(self, name: str) -> object:
        """Another value once a group has been replaced under the same paths; FileNotFoundError if there is none."""

    def folders(self) -> list[str]:
        """Names of what lies directly below the place and may be a group, sorted."""

    def errors(self, path: str) -> AbstractContextManager[None]:
        """Turns what reading an opened array may raise into OSError where the disk or the network is to blame."""

    def array(self, path: str) -> Any:  # noqa: ANN401  (zarr's arrays are generic over their metadata)
        """The Zarr array at a path, opened for reading."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Apply a function that reads to all items in order, several at a time where reading means waiting."""

    def is_occupied(self) -> bool:
        """Whether anything lies here."""

    def create_root(self, data: bytes) -> None:
        """Write the root's `zarr.json`, unless another writer came first."""

    def publish(
        self, name: str, objects: Mapping[str, bytes], record: Callable[[str], bytes], *, overwrite: bool
    ) -> None:
        """Make a group exist, whole or not at all.

        Args:
            name: of the group.
            objects: its objects by their path below the prefix.
            record: gives the group's `zarr.json` for the prefix under which the objects lie.
            overwrite: replace a group that is there.

        Raises:
            GroupExistsError: another writer has committed the group; nothing was changed.
        """

    def set_aside(self) -> str | None:
        """Rename the whole store and say where it is now; None where that cannot be done."""

    def leftovers(self, used_prefix: Callable[[str], str | None]) -> Iterator[Leftover]:
        """What no group holds and no writer is known to be at work on; nothing is changed.

        Args:
            used_prefix: the prefix that a group's record names, None where there is no `zarr.json`; raises
                DamagedStoreError where nobody can tell, and then nothing of that group is a leftover.
        """

    min_age: float  # seconds for which a leftover may belong to a writer that nobody can see from here

    def clean(self, leftover: Leftover) -> None:
        """Delete a leftover, or put it back where it is a group's only copy; spares what a writer has taken up."""
