"""Leases on shards: two annotators of one store take different shards instead of doing all work twice."""

from contextlib import ExitStack
from threading import Lock

from store.storage.base import StorageBackend
from store.writer import write_errors


class Leases:
    """The shards that this run is annotating, by name; a context that releases all of them at its end.

    A lease only saves work: of two annotators that write one group, the store keeps the first one's labels.
    """

    def __init__(self, backend: StorageBackend) -> None:
        self._backend = backend
        self._held: dict[str, ExitStack] = {}
        self._lock, self._ended = Lock(), False

    def __enter__(self) -> "Leases":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # a thread may still be indexing when a run is stopped
            self._ended = True
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Take the lease of a shard that this run does not hold; false where another annotator holds it.

        Raises:
            StoreWriteError: the disk refused.
        """
        with self._lock, ExitStack() as stack, write_errors(self._backend):
            if self._ended or not stack.enter_context(self._backend.lease(name)):
                return False
            self._held[name] = stack.pop_all()
            return True

    def release(self, name: str) -> None:
        """Give a lease back; does nothing where it is not held."""
        if (held := self._held.pop(name, None)) is not None:
            held.close()
