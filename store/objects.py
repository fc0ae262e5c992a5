"""The objects of one label group, compared with its commit record whenever they are read."""

from hashlib import sha256

from store.errors import DamagedStoreError, RelabelError, StoreReadError
from store.format.arrays import BIG_ARRAYS
from store.format.schema import GROUP_FILE, CommitRecord
from store.storage.base import StorageBackend


class GroupObjects:
    """The objects of a group by the paths in its commit record, with which they are compared when they are read."""

    def __init__(self, backend: StorageBackend, name: str, commit: CommitRecord, identity: object) -> None:
        self.backend, self.name, self.commit, self.identity = backend, name, commit, identity

    def __str__(self) -> str:
        return self.backend.at(self.name)

    def object_path(self, path: str) -> str:
        """An object's path in the store, from its path in the commit record."""
        return "/".join(part for part in (self.name, self.commit.prefix, path) if part)

    def read_object(self, path: str) -> bytes:
        """All bytes of an object, compared with the commit record.

        Raises:
            DamagedStoreError: it is missing or has other bytes.
            StoreReadError: the disk or network failed.
        """
        record = self.commit.objects.get(path)
        if record is None:
            raise DamagedStoreError(f"{self}: the commit record has no object {path!r}")
        self.check_size(path)
        try:
            data = self.backend.read(self.object_path(path))
        except MemoryError as error:
            raise StoreReadError(
                f"{self.backend.at(self.object_path(path))}: needs more memory than there is"
            ) from error
        except OSError as error:
            raise self.unread(path, error) from error
        self.check_not_replaced()
        if sha256(data).hexdigest() != record.sha256:
            raise self.damaged(path, "other bytes than were written")
        return data

    def check_sizes(self) -> None:
        """Compare the sizes of the big arrays' objects with the commit record.

        Raises:
            DamagedStoreError: one is missing or has another size.
        """
        for path in self.commit.objects:
            if path.partition("/")[0] in BIG_ARRAYS:
                self.check_size(path)

    def check_size(self, path: str) -> None:
        """Compare an object's size with the commit record; raises as `read_object`."""
        expected = self.commit.objects[path].size
        try:
            size = self.backend.size(self.object_path(path))
        except OSError as error:
            raise self.unread(path, error) from error
        if size != expected:
            raise self.damaged(path, f"{size} bytes, written with {expected}")

    def check_array(self, name: str, *, deep: bool) -> None:
        """Compare one array with the commit record and the format.

        Args:
            name: the array's name.
            deep: read every byte and compare sha256, instead of sizes.

        Raises:
            DamagedStoreError: an object is missing or has other bytes.
            StoreReadError: the disk or network failed.
        """
        for path in self.objects_of(name):
            self.read_object(path) if deep else self.check_size(path)

    def objects_of(self, name: str) -> list[str]:
        """Paths of an array's objects in the commit record."""
        paths = [path for path in self.commit.objects if path.startswith(name + "/")]
        if f"{name}/{GROUP_FILE}" not in paths or len(paths) < 2:
            raise DamagedStoreError(f"{self}: the commit record lacks array {name!r} or a part of it")
        return paths

    def check_not_replaced(self) -> None:
        """Check after a read that the group was not replaced meanwhile: else the bytes are of another commit record.

        Raises:
            StoreReadError: the group was replaced.
        """
        try:
            same = self.backend.identity(self.name) == self.identity
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreReadError(f"{self}: was replaced while it was open; open the store again")

    def damaged(self, path: str, problem: str) -> DamagedStoreError:
        """The error for an object or an array with other bytes than were written."""
        return DamagedStoreError(
            f"{self.backend.at(self.object_path(path))}: damaged ({problem}); "
            "annotate its shard again (--overwrite with only this shard)"
        )

    def unread(self, path: str, error: OSError) -> DamagedStoreError | OSError:
        """The error for an object that could not be read: damage where it is missing, else the disk or network."""
        if isinstance(error, RelabelError):
            return error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return self.damaged(path, "missing")
        return StoreReadError(f"{self.backend.at(self.object_path(path))}: cannot be read: {error.strerror or error}")
