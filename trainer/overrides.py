"""Settings from text and JSON: `--set key=value`, settings.json and what checkpoints hold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from store.errors import SettingsError
from store.text import brief
from trainer.settings import TrainSettings

# The result does not hang on these.
MAY_DIFFER = frozenset({"workers", "device", "log_interval", "checkpoint_interval", "keep_checkpoints"})
FIELD_TYPES: dict[str, Any] = get_type_hints(TrainSettings)


def with_overrides(settings: TrainSettings, assignments: Sequence[str]) -> TrainSettings:
    """Replace fields by texts such as `lr=0.1`, `crop_scale=0.25,1`, `flip=false`, `model_args={"drop_rate": 0.1}`.

    Raises:
        SettingsError: no such field, or a value that is not of the field's type or range.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"setting {brief(assignment)}: expected key=value, such as lr=0.1")
        _check_name(name)
        values[name] = _parse(name, text.strip())
    return replace(settings, **values)


def settings_to_json(settings: TrainSettings) -> dict[str, Any]:
    """The settings as JSON values; `settings_from_json` reads them back."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def settings_from_json(values: object) -> TrainSettings:
    """Read what `settings_to_json` wrote, possibly edited or damaged since.

    Raises:
        SettingsError: not an object of exactly the settings' fields, each of its type.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"settings should be a JSON object, found {type(values).__name__}")
    for name in values:
        _check_name(str(name))
    if missing := sorted(FIELD_TYPES.keys() - values.keys()):
        raise SettingsError(f"settings without {', '.join(missing)}: damaged, or written by another release")
    checked: dict[str, Any] = {str(name): _from_json(str(name), value) for name, value in values.items()}
    return TrainSettings(**checked)


def settings_differences(then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """Where settings that a run was started with part from those of now, both as JSON; some may differ."""
    for name in sorted((then.keys() | now.keys()) - MAY_DIFFER, key=str):
        if then.get(name) != now.get(name):
            yield f"{name}: {brief(then.get(name))} then, {brief(now.get(name))} now"


def _check_name(name: str) -> None:
    if name in FIELD_TYPES:
        return
    near = get_close_matches(name, FIELD_TYPES, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(FIELD_TYPES)}"
    raise SettingsError(f"no setting is called {brief(name)}; {hint}")


def _parse(name: str, text: str) -> object:
    """A field's value from the text after the equals sign."""
    kind = FIELD_TYPES[name]
    if kind is str or get_origin(kind) is Literal:
        return text
    if get_origin(kind) is tuple:
        return _from_json(name, [_number(name, part) for part in text.split(",")])
    if get_origin(kind) is dict or kind is bool:
        return _from_json(name, _json_value(name, text))
    number = _number(name, text)
    return _from_json(name, int(number) if kind is int and number.is_integer() else number)


def _json_value(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong_type(name, text) from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _wrong_type(name, text) from None


def _from_json(name: str, value: object) -> object:
    """A field's value from a JSON value of its type."""
    kind = FIELD_TYPES[name]
    if get_origin(kind) is tuple:
        if isinstance(value, list) and len(value) == len(get_args(kind)) and all(map(_is_number, value)):
            return tuple(float(item) for item in value)
    elif kind is float:
        if isinstance(value, int | float) and _is_number(value):
            return float(value)
    elif type(value) is (str if get_origin(kind) is Literal else get_origin(kind) or kind):
        return value
    raise _wrong_type(name, value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _wrong_type(name: str, value: object) -> SettingsError:
    kind = FIELD_TYPES[name]
    if get_origin(kind) is tuple:
        expected = f"{len(get_args(kind))} numbers with commas between them"
    elif get_origin(kind) is dict:
        expected = 'a JSON object such as {"drop_rate": 0.1}'
    else:
        expected = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")
    return SettingsError(f"{name}={brief(value)}: expected {expected}")
