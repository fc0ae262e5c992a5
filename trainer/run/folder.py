"""The folder of one run: started empty, continued only with the same settings and labels."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import RelabelError, RunFolderError
from store.files import make_folder, partial_file, read_whole, write_atomically
from store.format.schema import StoreSchema
from store.shards.index import ShardIndex
from store.text import brief
from trainer.data.join import JoinedShard
from trainer.run.records import finished_epochs
from trainer.settings import TrainSettings, settings_differences, settings_to_json
from trainer.student.checkpoint import BEST, was_saving
from trainer.targets.custom import CustomTargets

SETTINGS = "settings.json"
LOCK = ".lock"
LAUNCH = ".launch"  # which call of torchrun last began or continued the run


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """What a run was started with."""

    settings: dict[str, Any]  # resolved
    custom_targets: str | None  # their name; None for those of the settings
    schema: dict[str, Any]  # of the label store: teacher, view and sizes
    shards: dict[str, int]  # rows by name, in order
    val_shards: dict[str, int]
    labels_digest: str  # of labels and images, by the commit records of the label groups
    val_digest: str  # of keys, places and labels

    def to_json(self) -> dict[str, Any]:
        """The content of settings.json."""
        return {
            "settings": self.settings,
            "own_targets": self.custom_targets,
            "labels": {"schema": self.schema, "shards": self.shards, "digest": self.labels_digest},
            "val_shards": self.val_shards,
            "val_digest": self.val_digest,
        }


def run_identity(
    settings: TrainSettings,
    schema: StoreSchema,
    joined: Sequence[JoinedShard],
    val: Sequence[ShardIndex],
    custom_targets: CustomTargets | None,
) -> RunIdentity:
    """What is written at a run's start and compared when it is resumed."""
    return RunIdentity(
        settings=settings_to_json(settings),
        custom_targets=None if custom_targets is None else custom_targets.name,
        schema={name: value for name, value in schema.to_attributes().items() if name != "class_names"},
        shards={shard.group.name: len(shard.group) for shard in joined},
        val_shards={index.name: len(index.samples) for index in val},
        labels_digest=_digest(
            (name, record.sha256) for shard in joined for name, record in sorted(shard.group.commit.objects.items())
        ),
        val_digest=_digest((s.key, s.offset, s.length, s.label) for index in val for s in index.samples),
    )


def _digest(values: Iterable[tuple[object, ...]]) -> str:
    found = hashlib.sha256()
    for value in values:
        found.update(repr(value).encode())
    return found.hexdigest()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a run's folder and keep other processes out of it; the lock goes with this process, however it ends.

    Raises:
        RunFolderError: another process is at work there, or the folder cannot be made.
    """
    make_folder(folder)
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise RunFolderError(
            f"{folder}: another process trains there; wait for it, or choose another folder"
        ) from error
    except OSError as error:
        if isinstance(error, RelabelError) or error.filename != str(folder / LOCK):
            raise
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error


def open_run_folder(folder: Path, identity: RunIdentity, *, resume: bool) -> None:
    """Start a run in a folder that is empty but for its lock, or check that this one may be continued.

    Raises:
        RunFolderError: a folder that is not empty without `resume`, is no run folder, cannot be written, or belongs
            to a run with other settings or labels; the differences are listed.
    """
    launch = _launch()
    # A kill while settings.json was first written leaves its temporary file alone.
    is_empty = set(folder.iterdir()) <= {partial_file(folder / SETTINGS), folder / LOCK, folder / LAUNCH}
    if is_empty:
        text = json.dumps(identity.to_json(), indent=1) + "\n"
        with write_atomically(folder / SETTINGS) as handle:
            handle.write(text.encode())
    elif not (resume or _is_restart(folder, launch)):
        raise RunFolderError(f"{folder}: not empty; choose another folder, or continue its run with --resume")
    elif differences := list(_differences(_read_identity(folder / SETTINGS), identity.to_json())):
        raise RunFolderError(
            f"{folder}: started with other settings or data ({'; '.join(differences)}); "
            "resume with what it was started with, or choose another folder"
        )
    if launch:
        with write_atomically(folder / LAUNCH) as handle:
            handle.write(launch.encode())
    else:
        (folder / LAUNCH).unlink(missing_ok=True)


def _launch() -> str:
    """Names the call of torchrun that this process belongs to; empty without one."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"none {os.getppid()}" if launch == "none" else launch  # torchrun's default: its process tells it apart


def _is_restart(folder: Path, launch: str) -> bool:
    """Whether torchrun has started this very run again, which is no reason to ask for `resume`."""
    if not launch or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return False
    try:
        return read_whole(folder / LAUNCH) == launch.encode()
    except FileNotFoundError:
        return False


def check_never_saved(folder: Path) -> None:
    """Check that a run without a checkpoint never had one, before it starts again.

    Raises:
        RunFolderError: epochs were finished, so its checkpoint was lost.
    """
    finished = max(finished_epochs(folder), int((folder / BEST).exists()))
    # The metrics of an epoch are written first: a run that was killed while it saved its first one may start again.
    if finished > int(was_saving(folder)):
        raise RunFolderError(
            f"{folder}: its step-*.pt are missing, though epoch {finished} was finished; "
            "put one back to continue, or train again in another folder"
        )


def _read_identity(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_whole(file))
    except FileNotFoundError as error:
        raise RunFolderError(f"{file.parent}: not a run folder (it holds no {file.name}); choose another") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(file) from error
    settings, labels, val = (_object(document, name, file) for name in ("settings", "labels", "val_shards"))
    return {
        "settings": settings,
        "own_targets": document.get("own_targets"),
        "labels": {
            "schema": labels.get("schema"),
            "shards": _object(labels, "shards", file),
            "digest": labels.get("digest"),
        },
        "val_shards": val,
        "val_digest": document.get("val_digest"),
    }


def _object(values: object, name: str, file: Path) -> dict[str, Any]:
    """The JSON object under a name of another."""
    value = values.get(name) if isinstance(values, dict) else None
    if not isinstance(value, dict):
        raise _damaged(file)
    return value


def _damaged(file: Path) -> RunFolderError:
    return RunFolderError(f"{file}: damaged; restore it, or train again in another folder")


def _differences(started: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Each difference as `name: then, now`."""
    yield from settings_differences(started["settings"], now["settings"])
    if started["own_targets"] != now["own_targets"]:
        then, here = (values["own_targets"] or "the settings'" for values in (started, now))
        yield f"targets: {brief(then)} then, {brief(here)} now"
    if started["labels"]["schema"] != now["labels"]["schema"]:
        yield "labels: another teacher's, or another view or size"
    for what, then_shards, now_shards in (
        ("shards", started["labels"]["shards"], now["labels"]["shards"]),
        ("val", started["val_shards"], now["val_shards"]),
    ):
        # Order matters: rows are numbered, and crops drawn, in the order of the shards.
        if list(then_shards.items()) != list(now_shards.items()):
            yield f"{what}: {len(then_shards)} shards then, {len(now_shards)} now, of other names, sizes or order"
    if started["labels"]["digest"] != now["labels"]["digest"]:
        yield "labels: other label maps or images than then, under whatever names"
    if started["val_digest"] != now["val_digest"]:
        yield "val: other images or labels than then, under whatever names"
