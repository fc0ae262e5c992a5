"""The objects of one label group, compared with its commit record and their first version whenever they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

from store.errors import DamagedStoreError, RelabelError, StoreReadError
from store.format.arrays import BIG_ARRAYS
from store.format.schema import GROUP_FILE, MAX_JSON_BYTES, CommitRecord
from store.storage.base import ObjectVersion, StorageBackend


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordVersion:
    """A group's `zarr.json` as it was read."""

    version: ObjectVersion
    sha256: str  # of its bytes


class GroupObjects:
    """The objects of a group by the paths in its commit record.

    A store may be copied over while it is read. Small objects are compared with their sha256 in the record. Big ones
    are read in parts: each part has to come from the version that the object had when the group was opened, else the
    whole object is compared with its sha256.
    """

    def __init__(self, backend: StorageBackend, name: str, commit: CommitRecord, record: RecordVersion) -> None:
        self.backend, self.name, self.commit, self.record = backend, name, commit, record
        self.versions: dict[str, ObjectVersion] = {}  # of big objects, when they were first looked at

    def __str__(self) -> str:
        return self.backend.at(self.name)

    def object_path(self, path: str) -> str:
        """An object's path in the store, from its path in the commit record."""
        return "/".join(part for part in (self.name, self.commit.prefix, path) if part)

    def read_object(self, path: str) -> bytes:
        """All bytes of an object, compared with the commit record.

        Raises:
            DamagedStoreError: it is missing or has other bytes.
            StoreReadError: the disk or network failed, or the group was replaced.
        """
        return self._read_whole(path)[0]

    def read_part(self, path: str, start: int, stop: int) -> bytes:
        """Some bytes of a big object, of the version that it had at first.

        Raises:
            DamagedStoreError: it is missing or has another size.
            StoreReadError: the disk or network failed, or the object was replaced or changed.
        """
        with self._read_errors(path):
            data, version = self.backend.read_part(self.object_path(path), start, stop)
        self._check_size(path, version)
        if version == self.versions.setdefault(path, version):
            return data
        whole, self.versions[path] = self._read_whole(path)  # perhaps the same bytes were copied there again
        return whole[start:stop]

    def check_sizes(self) -> None:
        """Compare the sizes of the big arrays' objects with the commit record, and note their versions.

        Raises:
            DamagedStoreError: one is missing or has another size.
        """
        for path in self.commit.objects:
            if path.partition("/")[0] in BIG_ARRAYS:
                self.check_size(path)

    def check_size(self, path: str) -> None:
        """Compare an object's size with the commit record; raises as `read_object`."""
        with self._read_errors(path):
            version = self.backend.version(self.object_path(path))
        self._check_size(path, version)
        if path.partition("/")[0] in BIG_ARRAYS:
            self.versions.setdefault(path, version)

    def check_not_replaced(self) -> None:
        """Check that the group was not replaced since it was opened: else its bytes are of another commit record.

        Raises:
            StoreReadError: the group was replaced.
        """
        path = f"{self.name}/{GROUP_FILE}"
        try:
            if self.backend.version(path) == self.record.version:
                return
            data, version = self.backend.read(path, MAX_JSON_BYTES)  # perhaps the same bytes were copied there again
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._replaced() from error
        except RelabelError:
            raise
        except OSError as error:
            raise StoreReadError(f"{self.backend.at(path)}: cannot be read: {error.strerror or error}") from error
        if sha256(data).hexdigest() != self.record.sha256:
            raise self._replaced()
        self.record = RecordVersion(version=version, sha256=self.record.sha256)

    def damaged(self, path: str, problem: str) -> DamagedStoreError:
        """The error for an object or an array with other bytes than were written."""
        return DamagedStoreError(
            f"{self.backend.at(self.object_path(path))}: damaged ({problem}); "
            "annotate its shard again (--overwrite with only this shard)"
        )

    def _read_whole(self, path: str) -> tuple[bytes, ObjectVersion]:
        record = self.commit.objects.get(path)
        if record is None:
            raise DamagedStoreError(f"{self}: the commit record has no object {path!r}")
        with self._read_errors(path):
            data, version = self.backend.read(self.object_path(path), record.size)
        self._check_size(path, version)
        if sha256(data).hexdigest() != record.sha256:
            raise self._changed(path, version, "other bytes than were written")
        return data, version

    @contextmanager
    def _read_errors(self, path: str) -> Iterator[None]:
        """Turn what a storage backend raises for an object into errors that name it."""
        try:
            yield
        except MemoryError as error:
            where = self.backend.at(self.object_path(path))
            raise StoreReadError(f"{where}: needs more memory than there is") from error
        except OSError as error:
            raise self._unread(path, error) from error

    def _unread(self, path: str, error: OSError) -> DamagedStoreError | OSError:
        """The error for an object that could not be read: damage where it is missing, else the disk or network."""
        if isinstance(error, RelabelError):
            return error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            self.check_not_replaced()
            return self._replaced(path) if path in self.versions else self.damaged(path, "missing")
        return StoreReadError(f"{self.backend.at(self.object_path(path))}: cannot be read: {error.strerror or error}")

    def _check_size(self, path: str, version: ObjectVersion) -> None:
        expected = self.commit.objects[path].size
        if version.size != expected:
            raise self._changed(path, version, f"{version.size} bytes, written with {expected}")

    def _changed(self, path: str, version: ObjectVersion, problem: str) -> DamagedStoreError | StoreReadError:
        """The error for an object that differs from the record: damage, unless it became so after it was opened."""
        self.check_not_replaced()
        is_same = self.versions.get(path, version) == version
        return self.damaged(path, problem) if is_same else self._replaced(path)

    def _replaced(self, path: str | None = None) -> StoreReadError:
        where = str(self) if path is None else self.backend.at(self.object_path(path))
        return StoreReadError(f"{where}: was replaced or changed while it was open; verify the store, then run again")
