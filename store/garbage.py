"""What killed writers and replaced groups leave behind, found and removed."""

from collections.abc import Iterator

from store.errors import SettingsError
from store.place import Leftover, Place
from store.writer import write_errors


def find_leftovers(place: Place, *, min_age: float) -> Iterator[Leftover]:
    """Leftovers at least `min_age` seconds old; what a running writer holds is none.

    Raises:
        SettingsError: an age below the place's own minimum: there, a young leftover may be a writer's at work.
    """
    if min_age < place.min_age:
        raise SettingsError(f"{place}: attempts younger than {place.min_age / 3600:g} hours may be in use there")
    return (leftover for leftover in place.leftovers() if leftover.age >= min_age)


def clean(place: Place, leftover: Leftover) -> None:
    """Delete a leftover, or put it back where it is a group's only copy.

    Raises:
        StoreWriteError: the disk or network refused.
    """
    with write_errors(place):
        place.clean(leftover)
