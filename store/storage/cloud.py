"""Storage backend for object stores, through obstore: `s3://`, `gs://`, `az://`; `http://` and `https://` for reading.

Objects cannot be renamed there. Each attempt to write a group puts its arrays under a prefix of its own; the group's
`zarr.json`, which names the prefix, is put last, on condition that there is none.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import HTTPStore

from store.errors import (
    DamagedStoreError,
    GroupExistsError,
    RelabelError,
    StoreNotFoundError,
    StoreReadError,
    StoreWriteError,
)
from store.format.parse import parse_attributes
from store.format.schema import COMMIT_ATTRIBUTE, GROUP_FILE, MAX_JSON_BYTES, is_group_name
from store.storage.base import A, B, Leftover, NewGroup, ObjectVersion
from store.storage.bucket import REQUESTS, check_url, one_line_errors, open_bucket, refuse_fork

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, UpdateVersion
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

    def read(self, path: str, limit: int) -> tuple[bytes, ObjectVersion]:
        """All bytes of an object, or none if it has more than `limit`."""
        with self._errors(path):
            answer = obstore.get(self._objects, path)
            data = bytes(answer.bytes()) if answer.meta["size"] <= limit else b""
            return data, _version(answer.meta)

    def read_part(self, path: str, start: int, stop: int) -> tuple[bytes, ObjectVersion]:
        """Bytes of an object, with the version that the same answer names."""
        with self._errors(path):
            answer = obstore.get(self._objects, path, options={"range": (start, stop)})
            return bytes(answer.bytes()), _version(answer.meta)

    def version(self, path: str) -> ObjectVersion:
        """Size and ETag of an object; without an ETag, when it was written."""
        with self._errors(path):
            return _version(obstore.head(self._objects, path))

    asks_are_cheap = False  # every answer to `read_part` names its object's version

    def folders(self) -> list[str]:
        """Names of the prefixes that may be groups, sorted."""
        self._need_listing()
        with self._errors(""):
            found = obstore.list_with_delimiter(self._objects)["common_prefixes"]
        names = (path.rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if is_group_name(name))

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
            self._put(GROUP_FILE, data, mode="create")

    def publish(self, name: str, group: NewGroup, *, overwrite: bool) -> None:
        """Put the objects under a prefix of this attempt, then the record on condition that no other was put.

        The root is compared after the look at the record that is to be replaced, so that no record of another store in
        this one's place is lost, and again at the end, so that none is reported as written that is of no use there.
        """
        path = f"{name}/{GROUP_FILE}"
        exists = GroupExistsError(f"{self.at(name)}: already there; use --overwrite to replace it")
        before = self._record_version(path, checked=not overwrite)
        if before is not None and not overwrite:
            raise exists
        prefix = f"{ATTEMPT}{secrets.token_hex(8)}"
        objects = {**group.objects, GROUP_FILE: PLAIN_GROUP}
        paths = {f"{name}/{prefix}/{part}": data for part, data in objects.items()}
        try:
            list(self.map(lambda item: self._put(*item), paths.items()))
            group.check_root(self.read(GROUP_FILE, MAX_JSON_BYTES)[0])
        except (OSError, RelabelError):
            self._delete_quietly(list(paths))
            raise
        try:
            self._put(path, group.record(prefix), mode="create" if before is None else before or "overwrite")
        except FileExistsError as error:
            self._delete_quietly(list(paths))
            raise exists from error
        except OSError as error:
            # The record may have arrived although its answer did not, so its objects must stay.
            raise StoreWriteError(
                f"{self.at(path)}: no answer whether the group was written: {error.strerror}; run again"
            ) from error
        group.check_root(self.read(GROUP_FILE, MAX_JSON_BYTES)[0])

    def lease(self, name: str) -> AbstractContextManager[bool]:
        """Always true: writers on other machines cannot be seen."""
        del name
        return nullcontext(True)

    def set_aside(self) -> None:
        """Do nothing: object stores cannot rename."""
        return

    def interrupted(self) -> list[Leftover]:
        """None: a record is replaced by a single put."""
        return []

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
            record, _ = self.read(f"{name}/{GROUP_FILE}", MAX_JSON_BYTES)
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
        with self._errors(prefix):
            for page in obstore.list(self._objects, prefix):
                yield from page

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        """Turn obstore's errors, many lines long, into an OSError of one."""
        with one_line_errors(self.at(path)):
            yield

    def _record_version(self, path: str, *, checked: bool) -> "UpdateVersion | None":
        """Which object is a group's record, None where there is none.

        Raises:
            StoreWriteError: if `checked`, an object that is no record.
        """
        try:
            with self._errors(path):
                answer = obstore.get(self._objects, path)
                data = bytes(answer.bytes())
        except FileNotFoundError:
            return None
        if checked and COMMIT_ATTRIBUTE not in parse_attributes(data, self.at(path)):
            raise StoreWriteError(f"{self.at(path)}: not the record of a label group; delete it and run again")
        found: UpdateVersion = {}
        if answer.meta["e_tag"] is not None:
            found["e_tag"] = answer.meta["e_tag"]
        if answer.meta["version"] is not None:
            found["version"] = answer.meta["version"]
        return found

    def _put(self, path: str, data: bytes, *, mode: "PutMode" = "overwrite") -> None:
        """Put an object; FileExistsError where another than the mode asks for is found, with other bytes."""
        self._need_writing()
        with self._errors(path):
            try:
                obstore.put(self._objects, path, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as error:
                # obstore repeats a put whose answer is lost, and then finds its own object.
                if self.read(path, len(data))[0] != data:
                    raise FileExistsError(path) from error

    def _delete_quietly(self, paths: list[str]) -> None:
        """Delete objects after another error; those that cannot be deleted are left for gc."""
        with suppress(OSError):
            self._delete(paths)

    def _delete(self, paths: list[str]) -> None:
        self._need_writing()
        with self._errors(""):
            obstore.delete(self._objects, paths)


def _version(meta: "ObjectMeta") -> ObjectVersion:
    return ObjectVersion(meta["size"], meta["e_tag"] or meta["last_modified"])
