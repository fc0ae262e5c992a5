"""Choice of the storage backend for a path or a URL."""

from pathlib import Path

from store.errors import StoreReadError, not_installed
from store.storage.base import StorageBackend
from store.storage.local import LocalBackend


def open_backend(location: Path | str) -> StorageBackend:
    """The storage backend of a path or a URL; nothing is read yet.

    Raises:
        StoreNotFoundError: a URL that cannot be one of an object store.
        StoreReadError: obstore, which opens URLs, is not installed.
    """
    if isinstance(location, str) and "://" in location:
        try:
            from store.storage.cloud import CloudBackend
        except ModuleNotFoundError as error:
            raise StoreReadError(not_installed(error.name, "cloud", use="URLs need it")) from error
        return CloudBackend(location)
    return LocalBackend(Path(location))
