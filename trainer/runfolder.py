"""The folder of one run: started empty, continued only with the same settings and labels."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import RunFolderError
from store.schema import StoreSchema
from store.shards import ShardIndex
from trainer.files import write_atomically
from trainer.join import JoinedShard
from trainer.overrides import settings_to_json
from trainer.settings import TrainSettings

SETTINGS = "settings.json"
MAY_DIFFER = frozenset({"workers", "device", "log_interval"})  # the result does not hang on these


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """What a run was started with."""

    settings: dict[str, Any]  # resolved
    schema: dict[str, Any]  # of the label store: teacher, view and sizes
    shards: dict[str, int]  # rows by name, in order
    val_shards: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The content of settings.json."""
        return {
            "settings": self.settings,
            "labels": {"schema": self.schema, "shards": self.shards},
            "val_shards": self.val_shards,
        }


def run_identity(
    settings: TrainSettings, schema: StoreSchema, joined: Sequence[JoinedShard], val: Sequence[ShardIndex]
) -> RunIdentity:
    """What is written at a run's start and compared when it is resumed."""
    return RunIdentity(
        settings=settings_to_json(settings),
        schema={name: value for name, value in schema.to_attributes().items() if name != "class_names"},
        shards={shard.group.name: len(shard.group) for shard in joined},
        val_shards={index.name: len(index.samples) for index in val},
    )


def open_run_folder(folder: Path, identity: RunIdentity, *, resume: bool) -> None:
    """Start a run in an empty or new folder, or check that this one may be continued.

    Raises:
        RunFolderError: a folder that is not empty without `resume`, is no run folder, cannot be written, or belongs
            to a run with other settings or labels; the differences are listed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A kill while settings.json was first written leaves its aside file alone.
        is_empty = not any(file.name != f".{SETTINGS}.partial" for file in folder.iterdir())
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be used as a run folder: {error.strerror or error}") from error
    if is_empty:
        text = json.dumps(identity.to_json(), indent=1) + "\n"
        write_atomically(folder / SETTINGS, lambda handle: handle.write(text.encode()))
    elif not resume:
        raise RunFolderError(f"{folder}: not empty; choose another folder, or continue its run with --resume")
    elif differences := list(_differences(_read_identity(folder / SETTINGS), identity.to_json())):
        raise RunFolderError(
            f"{folder}: started with other settings or data ({'; '.join(differences)}); "
            "resume with what it was started with, or choose another folder"
        )


def _read_identity(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise RunFolderError(f"{file.parent}: not a run folder (it holds no {file.name}); choose another") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{file}: cannot be read: {error}") from error
    parts = (document, document.get("settings"), document.get("labels")) if isinstance(document, dict) else (None,)
    if not all(isinstance(part, dict) for part in parts):
        raise RunFolderError(f"{file}: damaged; expected the settings of a run")
    identity: dict[str, Any] = document
    return identity


def _differences(started: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Each difference as `name: then, now`."""
    for name in sorted((started["settings"].keys() | now["settings"].keys()) - MAY_DIFFER):
        then_value, now_value = started["settings"].get(name), now["settings"].get(name)
        if then_value != now_value:
            yield f"{name}: {json.dumps(then_value)} then, {json.dumps(now_value)} now"
    if started["labels"].get("schema") != now["labels"]["schema"]:
        yield "labels: another teacher's, or another view or size"
    for what, then_shards, now_shards in (
        ("shards", started["labels"].get("shards"), now["labels"]["shards"]),
        ("val", started.get("val_shards"), now["val_shards"]),
    ):
        # Order matters: rows are numbered, and crops drawn, in the order of the shards.
        if then_shards is None or list(then_shards.items()) != list(now_shards.items()):
            yield f"{what}: {len(then_shards or {})} shards then, {len(now_shards)} now, of other names, sizes or order"
