"""Reading a store: `LabelStore.open(path or URL)`, its groups, their rows.

Opening reads JSON only. Sizes are checked when a group is opened, small arrays against their sha256 when they are read.
"""

from collections.abc import Iterator
from pathlib import Path

from store.errors import DamagedStoreError, LabelNotFoundError, StoreNotFoundError, StoreReadError
from store.group import LabelGroup
from store.opening import open_place
from store.parse import parse_attributes, parse_commit, parse_schema
from store.place import GROUP_FILE, Place, is_group_name
from store.schema import COMMIT_ATTRIBUTE, ROOT_ATTRIBUTE, Json, StoreSchema


class LabelStore:
    """A store opened for reading; iterating gives its committed groups by name."""

    def __init__(self, place: Place, root: Json, schema: StoreSchema) -> None:
        self.place, self.schema = place, schema
        self._root = root

    def __str__(self) -> str:
        return str(self.place)

    @classmethod
    def open(cls, location: Path | str) -> "LabelStore":
        """Open a store at a path or an object store's URL.

        Raises:
            StoreNotFoundError: there is none.
            FormatVersionError: a newer release wrote it.
            DamagedStoreError: its root attributes cannot be read.
            StoreReadError: the disk or network failed.
        """
        return cls.of(open_place(location))

    @classmethod
    def of(cls, place: Place) -> "LabelStore":
        """Open the store at a place; raises as `open` does."""
        where = place.at(GROUP_FILE)
        try:
            data = place.read(GROUP_FILE)
        except (FileNotFoundError, NotADirectoryError) as error:
            what = "a file, not a label store" if Path(str(place)).is_file() else "no label store here"
            raise StoreNotFoundError(f"{place}: {what}; `relabel-annotate run` makes one") from error
        except OSError as error:
            raise StoreReadError(f"{where}: cannot be read: {error.strerror or error}") from error
        root = parse_attributes(data, where).get(ROOT_ATTRIBUTE, {})
        return cls(place, root, parse_schema(root, where))

    def names(self) -> list[str]:
        """Names of the committed groups, sorted; a damaged one counts."""
        return [name for name, _ in self._scan()]

    def __iter__(self) -> Iterator[LabelGroup]:
        for _, group in self.survey():
            if not isinstance(group, LabelGroup):
                raise group
            yield group

    def survey(self) -> Iterator[tuple[str, LabelGroup | DamagedStoreError]]:
        """Every committed group by name, a damaged one as its error."""
        return self.place.map(self._checked, self._scan())

    def __contains__(self, name: str) -> bool:
        return is_group_name(name) and self._record(name) is not None

    def group(self, name: str) -> LabelGroup:
        """One group by its shard's name.

        Raises:
            LabelNotFoundError: the store has no such group.
            DamagedStoreError: its commit record does not hold, or an object has another size.
        """
        group = self.unchecked_group(name)
        group.check_sizes()
        return group

    def unchecked_group(self, name: str) -> LabelGroup:
        """One group by name, none of its objects looked at; raises as `group` does."""
        record = self._record(name) if is_group_name(name) else None
        if record is None:
            raise LabelNotFoundError(f"{self}: no labels for the shard {name!r}; annotate it first")
        return self._open(name, record)

    def find(self, key: str) -> tuple[LabelGroup, int]:
        """The group and row of a sample; only the `keys` of other groups are read.

        Raises:
            LabelNotFoundError: no group has that key.
            DamagedStoreError: none that can be read has it, but some cannot be.
        """
        damaged: list[DamagedStoreError] = []
        for name, row in self.place.map(lambda item: (item[0], self._find_in(item, key)), self._scan()):
            if isinstance(row, DamagedStoreError):
                damaged.append(row)
            elif row is not None:
                return self.group(name), row
        if damaged:
            raise DamagedStoreError(f"{len(damaged)} groups could not be searched for {key!r}; the first: {damaged[0]}")
        raise LabelNotFoundError(f"{self}: no group and no key {key!r}; `relabel-store ls` lists the groups")

    def _find_in(self, item: tuple[str, "Json | DamagedStoreError"], key: str) -> int | DamagedStoreError | None:
        try:
            return self._open(*item).find(key)
        except DamagedStoreError as error:
            return error

    def _scan(self) -> Iterator[tuple[str, "Json | DamagedStoreError"]]:
        """Names and commit records as they lie in the store."""
        try:
            names = self.place.folders()
        except OSError as error:
            raise StoreReadError(f"{self}: cannot be listed: {error.strerror or error}") from error
        for name, record in zip(names, self.place.map(self._record, names), strict=True):
            if record is not None:
                yield name, record

    def _record(self, name: str) -> "Json | DamagedStoreError | None":
        """A group's commit record, what is wrong with its file, or None if it is no group."""
        path = f"{name}/{GROUP_FILE}"
        try:
            return parse_attributes(self.place.read(path), self.place.at(path)).get(COMMIT_ATTRIBUTE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamagedStoreError as error:
            return error
        except OSError as error:
            raise StoreReadError(f"{self.place.at(path)}: cannot be read: {error.strerror or error}") from error

    def _open(self, name: str, record: "Json | DamagedStoreError") -> LabelGroup:
        if isinstance(record, DamagedStoreError):
            raise record
        commit = parse_commit(record, self._root, self.place.at(f"{name}/{GROUP_FILE}"))
        return LabelGroup(self.place, name, self.schema, commit)

    def _checked(self, item: tuple[str, "Json | DamagedStoreError"]) -> tuple[str, LabelGroup | DamagedStoreError]:
        try:
            group = self._open(*item)
            group.check_sizes()
        except DamagedStoreError as error:
            return item[0], error
        return item[0], group
