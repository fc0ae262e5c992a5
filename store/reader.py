"""Reading of a store: `LabelStore.open(path or URL)` gives its groups and finds keys.

Opening reads JSON only. Opening a group checks the sizes of its objects; reading small arrays checks their sha256.
"""

import difflib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from store.errors import DamagedStoreError, LabelNotFoundError, RelabelError, StoreNotFoundError, StoreReadError
from store.format.parse import parse_attributes, parse_commit, parse_schema, sealed_root
from store.format.schema import (
    COMMIT_ATTRIBUTE,
    GROUP_FILE,
    MAX_JSON_BYTES,
    ROOT_ATTRIBUTE,
    Json,
    StoreSchema,
    is_group_name,
)
from store.group import LabelGroup
from store.objects import RecordVersion
from store.storage.base import StorageBackend
from store.storage.open import open_backend
from store.text import brief, first_few

StoreFault = DamagedStoreError | StoreReadError


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFolder:
    """A folder that may be a group, with its commit record as stored."""

    name: str
    version: RecordVersion | None  # None where there is no `zarr.json` that can be read
    record: Json | StoreFault | None  # None where there is no commit record


class LabelStore:
    """A store opened for reading: a collection of label groups in the order of their names.

    `store["train-0000"]` is a group, `"train-0000" in store` tells whether there is one, `for group in store` goes
    through all of them, and `len(store)` counts them, which reads each group's record.
    """

    def __init__(self, backend: StorageBackend, root: str, schema: StoreSchema) -> None:
        self.backend, self.schema = backend, schema
        self.root = root  # canonical JSON of the root attributes, part of the records' digests
        self._counted = ""  # groups and rows as of the last survey, for the repr

    def __str__(self) -> str:
        return str(self.backend)

    def __repr__(self) -> str:
        schema, (height, width) = self.schema, self.schema.map_size
        facts = f"{schema.num_classes} classes, top {schema.top_k}, {height} x {width}"
        return f"LabelStore({str(self)!r}, {self._counted}{schema.teacher.architecture}, {facts})"

    def _repr_html_(self) -> str:
        """The store's facts as a table, for a notebook; reads each group's record."""
        from store.view.notebook import store_html  # upwards, when a notebook asks: data before display

        return store_html(self)

    @classmethod
    def open(cls, location: Path | str) -> "LabelStore":
        """Open a store at a path or an object store's URL.

        Raises:
            StoreNotFoundError: there is no store.
            FormatVersionError: a newer release wrote it.
            DamagedStoreError: its root attributes cannot be read.
            StoreReadError: the disk or network failed.
        """
        return cls.of(open_backend(location))

    @classmethod
    def of(cls, backend: StorageBackend) -> "LabelStore":
        """Open the store of a storage backend; raises as `open` does."""
        where = backend.at(GROUP_FILE)
        try:
            data, _ = _read_json(backend, GROUP_FILE)
        except (FileNotFoundError, NotADirectoryError) as error:
            problem = "a file, not a label store" if Path(str(backend)).is_file() else "no label store here"
            raise StoreNotFoundError(f"{backend}: {problem}; `relabel-annotate run` makes one") from error
        root = parse_attributes(data, where).get(ROOT_ATTRIBUTE, {})
        schema = parse_schema(root, where)
        return cls(backend, sealed_root(root, where), schema)

    def names(self) -> list[str]:
        """Names of the committed groups, sorted; a damaged one counts."""
        return [found.name for found in self._scan() if found.record is not None]

    def without_record(self) -> list[str]:
        """Names of folders that could be groups but have no commit record: unfinished, or the record was lost."""
        return [found.name for found in self._scan() if found.record is None]

    def __len__(self) -> int:
        """The number of groups; reads their commit records, as `names` does."""
        return len(self.names())

    def __bool__(self) -> bool:
        return True  # `if store` asks whether there is one, and must not read it

    def __getitem__(self, name: str) -> LabelGroup:
        """One group by its shard's name; raises as `group` does, and TypeError for what is no name."""
        if not isinstance(name, str):
            raise TypeError(f"groups have names, such as store['train-0000']: expected a text, not {name!r}")
        return self.group(name)

    def __iter__(self) -> Iterator[LabelGroup]:
        for _, group in self.survey():
            if not isinstance(group, LabelGroup):
                raise group
            yield group

    def survey(self) -> Iterator[tuple[str, LabelGroup | StoreFault]]:
        """Every committed group by name, one that is damaged or cannot be read as its error."""
        groups = rows = 0
        for name, group in self.backend.map(self._checked, (f for f in self._scan() if f.record is not None)):
            groups, rows = groups + 1, rows + (len(group) if isinstance(group, LabelGroup) else 0)
            yield name, group
        self._counted = f"{groups:,} groups, {rows:,} rows, "

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and is_group_name(name) and self._look(name).record is not None

    def group(self, name: str) -> LabelGroup:
        """One group by its shard's name.

        Raises:
            LabelNotFoundError: the store has no such group.
            DamagedStoreError: its commit record is damaged, or an object has another size.
            StoreReadError: the disk or network failed.
        """
        group = self.unchecked_group(name)
        group.check_sizes()
        return group

    def unchecked_group(self, name: str) -> LabelGroup:
        """One group by name, without a check of its objects' sizes; raises as `group` does."""
        found = self._look(name) if is_group_name(name) else None
        if found is None or found.record is None:
            raise LabelNotFoundError(f"{self}: no labels for the shard {name!r}; annotate it first")
        return self._open(found)

    def first_group(self) -> LabelGroup | None:
        """The first group that can be opened, without reading the records of those after it; None without any."""
        for name in self._folders():
            with suppress(LabelNotFoundError, DamagedStoreError):
                return self.unchecked_group(name)
        return None

    def find(self, key: str) -> tuple[LabelGroup, int]:
        """The group and row of a key; of other groups, only the keys are read.

        Raises:
            LabelNotFoundError: no group has that key.
            DamagedStoreError: no readable group has it, but some groups cannot be read.
        """
        damaged: list[StoreFault] = []
        committed = (found for found in self._scan() if found.record is not None)
        for name, row in self.backend.map(lambda found: (found.name, self._find_in(found, key)), committed):
            if isinstance(row, RelabelError):
                damaged.append(row)
            elif row is not None:
                return self.group(name), row
        if damaged:
            raise DamagedStoreError(f"{len(damaged)} groups could not be searched for {key!r}; the first: {damaged[0]}")
        raise LabelNotFoundError(f"{self}: no group and no key {key!r}; {self._near(key)}")

    def _near(self, key: str) -> str:
        """What to ask for instead: keys of the same name in other folders or with another suffix, or groups."""
        name = key.rpartition("/")[2].partition(".")[0]
        committed = (found for found in self._scan() if found.record is not None)
        keys = [
            near for named in self.backend.map(lambda found: self._named_in(found, name), committed) for near in named
        ]
        if near := keys or difflib.get_close_matches(key.removesuffix(".tar"), self.names()):
            return f"did you mean {first_few(near)}?"
        return "`relabel-store ls` lists the groups"

    def _named_in(self, found: FoundFolder, name: str) -> list[str]:
        with suppress(DamagedStoreError, StoreReadError):  # `find` has reported what cannot be read
            return self._open(found).keys_named(name)
        return []

    def _find_in(self, found: FoundFolder, key: str) -> int | StoreFault | None:
        try:
            return self._open(found).find(key)
        except (DamagedStoreError, StoreReadError) as error:
            return error

    def _scan(self) -> Iterator[FoundFolder]:
        """All folders that may be groups, with their commit records as stored."""
        return self.backend.map(self._look, self._folders())

    def _folders(self) -> list[str]:
        try:
            return self.backend.folders()
        except RelabelError:
            raise
        except OSError as error:
            raise StoreReadError(f"{self}: cannot be listed: {error.strerror or error}") from error

    def _look(self, name: str) -> FoundFolder:
        path = f"{name}/{GROUP_FILE}"
        try:
            data, version = _read_json(self.backend, path)
            record = parse_attributes(data, self.backend.at(path)).get(COMMIT_ATTRIBUTE)
        except (FileNotFoundError, NotADirectoryError):
            return FoundFolder(name=name, version=None, record=None)
        except (DamagedStoreError, StoreReadError) as error:
            return FoundFolder(name=name, version=None, record=error)
        return FoundFolder(name=name, version=version, record=record)

    def _open(self, found: FoundFolder) -> LabelGroup:
        if isinstance(found.record, RelabelError):
            raise found.record
        where = self.backend.at(f"{found.name}/{GROUP_FILE}")
        commit = parse_commit(found.record, self.root, where)
        if commit.teacher_digest != self.schema.teacher.digest:
            raise DamagedStoreError(
                f"{where}: made by another teacher ({brief(commit.teacher_digest)}) than the store's "
                f"({brief(self.schema.teacher.digest)}); annotate its shard again (--overwrite with only this shard)"
            )
        if commit.group not in (None, found.name):
            raise DamagedStoreError(
                f"{where}: holds the labels of the shard {brief(commit.group)}: the folder was renamed or exchanged; "
                "give it its name again"
            )
        assert found.version is not None
        return LabelGroup(self.backend, found.name, self.schema, commit, found.version)

    def _checked(self, found: FoundFolder) -> tuple[str, LabelGroup | StoreFault]:
        try:
            group = self._open(found)
            group.check_sizes()
        except (DamagedStoreError, StoreReadError) as error:
            return found.name, error
        return found.name, group


def _read_json(backend: StorageBackend, path: str) -> tuple[bytes, RecordVersion]:
    """The bytes of a `zarr.json`; FileNotFoundError if there is none."""
    try:
        data, version = backend.read(path, MAX_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError, RelabelError):
        raise
    except OSError as error:
        raise StoreReadError(f"{backend.at(path)}: cannot be read: {error.strerror or error}") from error
    if version.size > MAX_JSON_BYTES:
        raise DamagedStoreError(
            f"{backend.at(path)}: {version.size:,} bytes; none of ours is larger than {MAX_JSON_BYTES:,}"
        )
    return data, RecordVersion(version=version, sha256=sha256(data).hexdigest())
