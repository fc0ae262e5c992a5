"""The folder of one run: locked while it trains, started empty, resumed only with the same settings and data."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import RelabelError, RunFolderError
from store.files import flock, make_folder, partial_file, read_whole, write_atomically
from store.format.schema import StoreSchema
from store.shards.index import ShardIndex
from store.text import brief
from trainer.data.join import JoinedShard
from trainer.order.first_order import ORDERS
from trainer.run.changes import Rows, label_digests, newly_undecodable, undecodable_by_group
from trainer.run.records import finished_epochs
from trainer.settings import TrainSettings, settings_differences, settings_to_json
from trainer.student.checkpoint import BEST, was_saving
from trainer.targets.custom import CustomTargets

SETTINGS = "settings.json"
LOCK = ".lock"
LAUNCH = ".launch"  # the call of torchrun that last started or resumed the run


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """The settings and data of a run."""

    settings: dict[str, Any]  # resolved
    custom_targets: str | None  # their name; None for targets by the settings
    schema: dict[str, Any]  # of the label store: teacher, preprocessing and sizes
    shards: dict[str, int]  # rows by name, in order
    val_shards: dict[str, int]
    labels_digest: str  # of labels and images, from the commit records of the label groups
    label_digests: dict[str, list[str]]  # of each group, as `changes.label_digests` gives them
    undecodable: Rows
    val_digest: str  # of keys, offsets, lengths and labels
    order_version: int  # of the order of samples

    def to_json(self) -> dict[str, Any]:
        """The content of settings.json."""
        return {
            "settings": self.settings,
            "own_targets": self.custom_targets,
            "labels": {
                "schema": self.schema,
                "shards": self.shards,
                "digest": self.labels_digest,
                "groups": self.label_digests,
                "undecodable": self.undecodable,
            },
            "val_shards": self.val_shards,
            "val_digest": self.val_digest,
            "order": self.order_version,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStart:
    """What a run keeps of its start, also if the labels have changed since."""

    undecodable: Rows | None  # by group; None if an earlier release started the run
    order_version: int


def run_identity(
    settings: TrainSettings,
    schema: StoreSchema,
    joined: Sequence[JoinedShard],
    val: Sequence[ShardIndex],
    custom_targets: CustomTargets | None,
    *,
    order_version: int,
) -> RunIdentity:
    """The identity to write at a run's start and to compare when it is resumed."""
    return RunIdentity(
        settings=settings_to_json(settings),
        custom_targets=None if custom_targets is None else custom_targets.name,
        schema={name: value for name, value in schema.to_attributes().items() if name != "class_names"},
        shards={shard.group.name: len(shard.group) for shard in joined},
        val_shards={index.name: len(index.samples) for index in val},
        labels_digest=_digest(
            (name, record.sha256) for shard in joined for name, record in sorted(shard.group.commit.objects.items())
        ),
        label_digests=label_digests(joined),
        undecodable=undecodable_by_group(joined),
        val_digest=_digest((s.key, s.offset, s.length, s.label) for index in val for s in index.samples),
        order_version=order_version,
    )


def _digest(values: Iterable[tuple[object, ...]]) -> str:
    found = hashlib.sha256()
    for value in values:
        found.update(repr(value).encode())
    return found.hexdigest()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a run's folder and lock it against other processes; the lock ends with this process.

    Raises:
        RunFolderError: another process has locked it, or the folder cannot be made.
    """
    make_folder(folder)
    try:
        with (folder / LOCK).open("w") as lock:
            flock(lock.fileno(), wait=False)  # without locks, as on some network disks, the run starts all the same
            yield
    except BlockingIOError as error:
        raise RunFolderError(
            f"{folder}: another process trains there; wait for it, or choose another folder"
        ) from error
    except OSError as error:
        if isinstance(error, RelabelError) or error.filename != str(folder / LOCK):
            raise
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error


def run_start(folder: Path) -> RunStart | None:
    """The start of a folder's run; None if no run is there.

    Raises:
        RunFolderError: settings.json is damaged.
    """
    if not (folder / SETTINGS).is_file():
        return None
    started = _read_identity(folder / SETTINGS)
    labels = started["labels"]
    return RunStart(undecodable=labels["undecodable"] if labels["groups"] else None, order_version=started["order"])


def open_run_folder(folder: Path, identity: RunIdentity, *, resume: bool) -> Rows:
    """Start a run in a folder that is empty except for its lock, or check that its run may be resumed.

    Returns:
        The rows that became undecodable since the run was started, by group; settings.json records them.

    Raises:
        RunFolderError: a folder that is not empty without `resume`, is no run folder, cannot be written, or belongs
            to a run with other settings or data; the differences are listed.
    """
    launch, left_out = _launch(), Rows()
    # A run killed while it first wrote settings.json leaves only the temporary file.
    is_empty = set(folder.iterdir()) <= {partial_file(folder / SETTINGS), folder / LOCK, folder / LAUNCH}
    if is_empty:
        _write_identity(folder, identity.to_json())
    elif not (resume or _is_restart(folder, launch)):
        raise RunFolderError(f"{folder}: not empty; choose another folder, or continue its run with --resume")
    else:
        started, now = _read_identity(folder / SETTINGS), identity.to_json()
        if differences := list(_differences(started, now)):
            raise RunFolderError(
                f"{folder}: started with other settings or data ({'; '.join(differences)}); "
                "resume with what it was started with, or choose another folder"
            )
        left_out = newly_undecodable(started["labels"], now["labels"]) or {}
        if left_out != started["labels"]["left_out"]:
            _write_identity(folder, started | {"labels": started["labels"] | {"left_out": left_out}})
    if launch:
        with write_atomically(folder / LAUNCH) as handle:
            handle.write(launch.encode())
    else:
        (folder / LAUNCH).unlink(missing_ok=True)
    return left_out


def _write_identity(folder: Path, values: dict[str, Any]) -> None:
    with write_atomically(folder / SETTINGS) as handle:
        handle.write((json.dumps(values, indent=1) + "\n").encode())


def _launch() -> str:
    """An id of the call of torchrun that started this process; empty without torchrun."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"none {os.getppid()}" if launch == "none" else launch  # torchrun's default id


def _is_restart(folder: Path, launch: str) -> bool:
    """Whether torchrun restarts the run of this folder, which then needs no `resume`."""
    if not launch or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return False
    try:
        return read_whole(folder / LAUNCH) == launch.encode()
    except FileNotFoundError:
        return False


def check_never_saved(folder: Path) -> None:
    """Check that a run without a checkpoint never had one, before it starts from the beginning.

    Raises:
        RunFolderError: it finished epochs, so its checkpoints were lost.
    """
    finished = max(finished_epochs(folder), int((folder / BEST).exists()))
    # Metrics are written before checkpoints, so a run that was killed while it saved its first one may start again.
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
            "groups": _digests(labels, file),
            "undecodable": _rows(labels, "undecodable", file),
            "left_out": _rows(labels, "left_out", file),
        },
        "val_shards": val,
        "val_digest": document.get("val_digest"),
        "order": _order_version(document, file),
    }


def _object(values: object, name: str, file: Path) -> dict[str, Any]:
    """The JSON object under a name of a JSON object."""
    value = values.get(name) if isinstance(values, dict) else None
    if not isinstance(value, dict):
        raise _damaged(file)
    return value


def _digests(labels: dict[str, Any], file: Path) -> dict[str, list[str]]:
    """Two digests by group; none where an earlier release wrote the file."""
    found = _object({"groups": {}} | labels, "groups", file)
    if not all(isinstance(digests, list) and len(digests) == 2 for digests in found.values()):
        raise _damaged(file)
    return found


def _rows(labels: dict[str, Any], name: str, file: Path) -> Rows:
    """Row numbers by group; none where an earlier release wrote the file."""
    found = _object({name: {}} | labels, name, file)
    if not all(isinstance(rows, list) and all(type(row) is int for row in rows) for rows in found.values()):
        raise _damaged(file)
    return found


def _order_version(document: dict[str, Any], file: Path) -> int:
    """The version of the order of samples; the first one where an earlier release wrote the file."""
    version = document.get("order", 1)
    if type(version) is not int or version not in ORDERS:
        known = " or ".join(map(str, ORDERS))
        raise RunFolderError(
            f'{file}: "order": {brief(version)}, expected {known}: damaged, or a newer release started the run; '
            "resume it with that release, or choose another folder"
        )
    return version


def _damaged(file: Path) -> RunFolderError:
    return RunFolderError(f"{file}: damaged; restore it, or train again in another folder")


def _differences(started: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield each difference as `name: then, now`."""
    yield from settings_differences(started["settings"], now["settings"])
    if started["own_targets"] != now["own_targets"]:
        then, here = (values["own_targets"] or "the settings'" for values in (started, now))
        yield f"targets: {brief(then)} then, {brief(here)} now"
    if started["labels"]["schema"] != now["labels"]["schema"]:
        yield "labels: another teacher's, or another preprocessing or size"
    for name, then_shards, now_shards in (
        ("shards", started["labels"]["shards"], now["labels"]["shards"]),
        ("val", started["val_shards"], now["val_shards"]),
    ):
        # The order matters: rows are numbered, and crops drawn, in the order of the shards.
        if list(then_shards.items()) != list(now_shards.items()):
            yield f"{name}: {len(then_shards)} shards then, {len(now_shards)} now, of other names, sizes or order"
    if newly_undecodable(started["labels"], now["labels"]) is None:
        yield "labels: labels (.cls), label maps or images have changed since then"
    if started["val_digest"] != now["val_digest"]:
        yield "val: images or labels have changed since then"
