"""What killed writers and replaced groups leave behind, found and removed."""

from collections.abc import Iterator

from store.errors import DamagedStoreError, LabelNotFoundError, SettingsError
from store.place import Leftover
from store.reader import LabelStore
from store.schema import GROUP_FILE
from store.writer import write_errors


def find_leftovers(store: LabelStore, *, min_age: float) -> Iterator[Leftover]:
    """Leftovers at least `min_age` seconds old; what a running writer holds is none.

    Raises:
        SettingsError: an age below the place's own minimum: there, a young leftover may be a writer's at work.
    """
    place = store.place
    if min_age < place.min_age:
        raise SettingsError(f"{place}: attempts younger than {place.min_age / 3600:g} hours may be in use there")

    def used_prefix(name: str) -> str | None:
        try:
            return store.unchecked_group(name).commit.prefix
        except LabelNotFoundError as error:
            try:
                place.size(f"{name}/{GROUP_FILE}")
            except FileNotFoundError:
                return None
            raise DamagedStoreError(f"{place.at(name)}: its {GROUP_FILE} holds no commit record") from error

    return (leftover for leftover in place.leftovers(used_prefix) if leftover.age >= min_age)


def clean(store: LabelStore, leftover: Leftover) -> None:
    """Delete a leftover, or put it back where it is a group's only copy.

    Raises:
        StoreWriteError: the disk or network refused.
    """
    with write_errors(store.place):
        store.place.clean(leftover)
