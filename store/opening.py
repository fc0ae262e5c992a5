"""From a path or a URL to the place it names."""

from pathlib import Path

from store.local import LocalPlace
from store.place import Place


def open_place(location: Path | str) -> Place:
    """The place that a path or a URL names; nothing is read yet.

    Raises:
        StoreNotFoundError: a URL that cannot be one of an object store.
    """
    if isinstance(location, str) and "://" in location:
        from store.cloud import CloudPlace  # obstore is an extra

        return CloudPlace(location)
    return LocalPlace(Path(location))
