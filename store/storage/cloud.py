"""Storage backend for object stores, through obstore: `s3://`, `gs://`, `az://`; `http://` and `https://` for reading.

Objects cannot be renamed there. Each attempt to write a group puts its arrays under a prefix of its own; the group's
`zarr.json`, which names the prefix, is put last, on condition that there is none.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import obstore
import zarr
from obstore.exceptions import AlreadyExistsError
from obstore.store import HTTPStore
from zarr.storage import ObjectStore

from store.errors import DamagedStoreError, GroupExistsError, StoreNotFoundError, StoreReadError, StoreWriteError
from store.format.parse import parse_attributes
from store.format.schema import COMMIT_ATTRIBUTE, GROUP_FILE, is_group_name
from store.storage.base import A, B, Leftover
from store.storage.bucket import REQUESTS, check_url, one_line_errors, open_bucket, refuse_fork

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore as Bucket

ATTEMPT = "attempt-"  # start of a prefix
PLAIN_GROUP = b'{"zarr_format": 3, "node_type": "group"}'  # so that xarray opens a prefix


class CloudBackend:
    """A prefix in a bucket. obstore reads the credentials from the environment."""

    min_age = 3600.0  # writers on other machines cannot be seen

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        check_url(self.url, StoreNotFoundError, "s3://bucket/labels.zarr")

    def __reduce__(self) -> tuple[type["CloudBackend"], tuple[str]]:
        return CloudBackend, (self.url,)  # a spawned worker opens its own connections

    def __str__(self) -> str:
        return self.url

    def at(self, path: str) -> str:
        """The URL of an object."""
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """All bytes of an object."""
        with self.errors(path):
            return bytes(obstore.get(self._objects, path).bytes())

    def size(self, path: str) -> int:
        """Bytes of an object."""
        with self.errors(path):
            return obstore.head(self._objects, path)["size"]

    def identity(self, name: str) -> object:
        """None: objects are never replaced under the same path."""
        return None

    def folders(self) -> list[str]:
        """Names of the prefixes that may be groups, sorted."""
        self._need_listing()
        with self.errors(""):
            found = obstore.list_with_delimiter(self._objects)["common_prefixes"]
        names = (path.rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if is_group_name(name))

    @contextmanager
    def errors(self, path: str) -> Iterator[None]:
        """Turn obstore's errors, many lines long, into an OSError of one."""
        with one_line_errors(self.at(path)):
            yield

    def array(self, path: str) -> Any:  # noqa: ANN401  (zarr's arrays are generic over their metadata)
        """The Zarr array at a path."""
        with self.errors(path):
            return zarr.open_array(ObjectStore(self._objects, read_only=True), path=path, mode="r", zarr_format=3)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Apply a function to all items, several requests at a time."""
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="request") as threads:
            yield from threads.map(function, items)

    def is_occupied(self) -> bool:
        """Whether any object is under the prefix."""
        return next(self._list(""), None) is not None

    def create_root(self, data: bytes) -> None:
        """Put the root's `zarr.json` unless there is one."""
        with suppress(FileExistsError):  # the caller compares the other writer's schema
            self._put(GROUP_FILE, data, create=True)

    def publish(
        self, name: str, objects: Mapping[str, bytes], record: Callable[[str], bytes], *, overwrite: bool
    ) -> None:
        """Put the objects under a prefix of this attempt, then the record on condition that there is none."""
        path = f"{name}/{GROUP_FILE}"
        exists = GroupExistsError(f"{self.at(name)}: already there; use --overwrite to replace it")
        if not overwrite and self._has_record(path):
            raise exists
        prefix = f"{ATTEMPT}{secrets.token_hex(8)}"
        paths = {f"{name}/{prefix}/{part}": data for part, data in {**objects, GROUP_FILE: PLAIN_GROUP}.items()}
        try:
            list(self.map(lambda item: self._put(*item), paths.items()))
        except OSError:
            self._delete_quietly(list(paths))
            raise
        try:
            self._put(path, record(prefix), create=not overwrite)
        except FileExistsError as error:
            self._delete_quietly(list(paths))
            raise exists from error
        except OSError as error:
            # The record may have arrived although its answer did not, so its objects must stay.
            raise StoreWriteError(
                f"{self.at(path)}: no answer whether the group was written: {error.strerror}; run again"
            ) from error

    def lease(self, name: str) -> AbstractContextManager[bool]:
        """Always true: writers on other machines cannot be seen."""
        del name
        return nullcontext(True)

    def set_aside(self) -> None:
        """Do nothing: object stores cannot rename."""
        return

    def leftovers(self, used_prefix: Callable[[str], str | None]) -> Iterator[Leftover]:
        """Prefixes that are not in their group's record; their age counts from when they were replaced."""
        for name in self.folders():
            try:
                used = used_prefix(name)
            except DamagedStoreError:
                continue  # an intact attempt may be the only copy of the group
            sizes: dict[str, int] = {}
            newest: dict[str, datetime] = {}
            for info in self._list(name):
                prefix, _, _ = str(info["path"]).removeprefix(f"{name}/").partition("/")
                sizes[prefix] = sizes.get(prefix, 0) + int(info["size"])
                newest[prefix] = max(newest.get(prefix, info["last_modified"]), info["last_modified"])
            replaced = newest.get(GROUP_FILE, datetime.min.replace(tzinfo=UTC))
            for prefix, size in sizes.items():
                if prefix.startswith(ATTEMPT) and prefix != used:
                    age = (datetime.now(UTC) - max(newest[prefix], replaced)).total_seconds()
                    yield Leftover(path=f"{name}/{prefix}", size=size, age=age)

    def clean(self, leftover: Leftover) -> None:
        """Delete the objects of a prefix, unless a record with it was put meanwhile."""
        name, _, prefix = leftover.path.partition("/")
        try:
            record = self.read(f"{name}/{GROUP_FILE}")
        except FileNotFoundError:
            record = b""
        if prefix.encode() not in record:
            self._delete([str(info["path"]) for info in self._list(leftover.path)])

    @cached_property
    def _opened(self) -> "Bucket":
        return open_bucket(self.url)

    @property
    def _objects(self) -> "Bucket":
        refuse_fork()
        return self._opened

    def _need_listing(self) -> None:
        if isinstance(self._objects, HTTPStore):
            raise StoreReadError(f"{self.url}: a web server cannot list its groups; name one, or copy the store")

    def _need_writing(self) -> None:
        if isinstance(self._objects, HTTPStore):
            raise StoreReadError(f"{self.url}: a web server is for reading; write to a path or a bucket")

    def _list(self, prefix: str) -> "Iterator[ObjectMeta]":
        self._need_listing()
        with self.errors(prefix):
            for page in obstore.list(self._objects, prefix):
                yield from page

    def _has_record(self, path: str) -> bool:
        try:
            attributes = parse_attributes(self.read(path), self.at(path))
        except FileNotFoundError:
            return False
        if COMMIT_ATTRIBUTE not in attributes:
            raise StoreWriteError(f"{self.at(path)}: not the record of a label group; delete it and run again")
        return True

    def _put(self, path: str, data: bytes, *, create: bool = False) -> None:
        """Put an object; FileExistsError where `create` finds other bytes."""
        self._need_writing()
        mode: Literal["create", "overwrite"] = "create" if create else "overwrite"
        with self.errors(path):
            try:
                obstore.put(self._objects, path, data, mode=mode, use_multipart=False)
            except AlreadyExistsError as error:
                # obstore repeats a put whose answer is lost, and then finds its own object.
                if self.read(path) != data:
                    raise FileExistsError(path) from error

    def _delete_quietly(self, paths: list[str]) -> None:
        """Delete objects after another error; those that cannot be deleted are left for gc."""
        with suppress(OSError):
            self._delete(paths)

    def _delete(self, paths: list[str]) -> None:
        self._need_writing()
        with self.errors(""):
            obstore.delete(self._objects, paths)
