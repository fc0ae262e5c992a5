"""Fields of a settings class that carry their range and meaning as data, for checks, parsing and reference pages."""

import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from store.errors import SettingsError
from store.text import brief

MAX_NESTING = 8  # levels of a setting that is a JSON object, so that later code can use recursion

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from low to high, both included unless `above` or `below` excludes one; NaN is in no range."""

    low: float
    high: float
    above: bool = False  # low is excluded
    below: bool = False  # high is excluded

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        low, high = f"{self.low:,}", f"{self.high:,}"
        if self.above:
            return f"above {low}, at most {high}"
        return f"{low} up to, but not including, {high}" if self.below else f"{low} to {high}"


def setting(default: T, meaning: str, within: Range | None = None) -> T:
    """A field of a settings class: its default, one line of help, and the range of its number or numbers."""
    metadata = {"meaning": meaning, "within": within}
    if isinstance(default, dict):
        mutable: Any = field(default_factory=default.copy, metadata=metadata)
        return mutable  # type: ignore[no-any-return]
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The description of one field."""

    name: str
    kind: Any  # its type: int, float, bool, str, a Literal, a tuple of floats (two are low,high) or a dict
    default: object  # None where it has none
    within: Range | None  # of its number or numbers
    meaning: str

    @property
    def type(self) -> str:
        """The type's name as people write it: `int`, `text`, `2 floats`, `JSON object`."""
        if get_origin(self.kind) is tuple:
            return f"{len(get_args(self.kind))} floats"
        if get_origin(self.kind) is dict:
            return "JSON object"
        return self.kind.__name__ if self.kind in (int, float, bool) else "text"

    @property
    def range(self) -> str:
        """The values it takes; empty where those are all of its type."""
        if get_origin(self.kind) is Literal:
            return f"one of {', '.join(get_args(self.kind))}"
        if get_origin(self.kind) is dict:
            return f"JSON of finite numbers, nested at most {MAX_NESTING} deep"
        if self.within is None:
            return ""
        if get_origin(self.kind) is not tuple:
            return str(self.within)
        if len(get_args(self.kind)) != 2:
            return f"{len(get_args(self.kind))} numbers from {self.within}"
        least = "<" if self.within.above else "<="
        return f"low,high with {self.within.low:,} {least} low <= high <= {self.within.high:,}"

    def check(self, value: object) -> None:
        """Raise SettingsError unless a value is of the field's type and within its range."""
        if not _is_of(self.kind, value):
            raise unexpected(self.name, value, _expected_type(self.kind))
        if get_origin(self.kind) is Literal:
            valid = value in get_args(self.kind)
        elif isinstance(value, dict):
            valid = _is_plain(value, MAX_NESTING)
        else:
            numbers: Any = value if isinstance(value, tuple) else (value,)
            valid = self.within is None or all(number in self.within for number in numbers)
            valid = valid and (len(numbers) != 2 or numbers[0] <= numbers[1])
        if not valid:
            raise unexpected(self.name, value, self.range)

    def parse(self, text: str) -> object:
        """Read the text after `name=`; what cannot be read is returned as text, which `check` refuses."""
        if get_origin(self.kind) is tuple:
            return tuple(_number(part) for part in text.split(","))
        if get_origin(self.kind) is dict or self.kind is bool:
            return _json_value(text)
        if self.kind in (int, float):
            number = _number(text)
            return int(number) if self.kind is int and isinstance(number, float) and number.is_integer() else number
        return text

    def from_json(self, value: object) -> object:
        """The field's value from its JSON value; what is not of its type is returned for `check` to refuse."""
        if get_origin(self.kind) is tuple and isinstance(value, list):
            return tuple(map(_to_float, value))
        return _to_float(value) if self.kind is float else value


def describe(settings: type) -> dict[str, Setting]:
    """The descriptions of a settings class's fields by name, in their order."""
    return {described.name: described for described in _described(settings)}


def _described(settings: type) -> Iterator[Setting]:
    types = get_type_hints(settings)
    for found in fields(settings):
        default = found.default if found.default_factory is MISSING else found.default_factory()
        yield Setting(
            name=found.name,
            kind=types[found.name],
            default=None if default is MISSING else default,
            within=found.metadata.get("within"),
            meaning=found.metadata["meaning"],
        )


def unexpected(name: str, value: object, expected: str) -> SettingsError:
    """The error for a value that a field does not take."""
    return SettingsError(f"{name}={brief(value)}: expected {expected}")


def _is_of(kind: Any, value: object) -> bool:  # noqa: ANN401  (a type)
    """Whether a value is of a field's type; true and false are no numbers, whole numbers are floats too."""
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and len(value) == len(get_args(kind)) and all(map(_is_number, value))
    if kind is float:
        return _is_number(value)
    return type(value) is (str if get_origin(kind) is Literal else get_origin(kind) or kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _expected_type(kind: Any) -> str:  # noqa: ANN401  (a type)
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers with commas between them"
    if get_origin(kind) is dict:
        return 'a JSON object such as {"drop_rate": 0.1}'
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")


def _is_plain(value: object, levels: int) -> bool:
    """Whether this is JSON of finite numbers, nested at most so many levels deep."""
    if isinstance(value, dict):
        return levels > 0 and all(isinstance(k, str) and _is_plain(v, levels - 1) for k, v in value.items())
    if isinstance(value, list | tuple):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _json_value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> float | str:
    """The number that a text is; the text if it is none, or has digits that are not ASCII, which Python takes too."""
    try:
        return float(text) if text.isascii() else text
    except ValueError:
        return text


def _to_float(value: object) -> object:
    """A JSON number as a float, infinite where a whole number is too large for one; anything else as it is."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return float(value) if abs(value) < 2**1000 else math.inf
