"""Export of a label store as published maps, one `.pt` for every row that has a map."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from annotator.published.files import Axes, PublishedMap, dump_map
from annotator.published.names import SUFFIX, split_key, wnid_of
from store.errors import DamagedStoreError, LabelMapError, SettingsError, StoreWriteError
from store.files import write_atomically
from store.format.arrays import CHUNK_ROWS
from store.format.schema import CENTRE, GROUP_FILE, StoreSchema
from store.group import LabelGroup
from store.reader import LabelStore

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,_'()-]{0,99}")
OFFICIAL_CLASSES = 1000  # written into the official trainer


class ExportReporter(Protocol):
    """Receives events while an export goes on."""

    def exported(self, rows: int) -> None:
        """So many more rows are done."""

    def failed(self, reason: str) -> None:
        """Rows or a group were left out; the export goes on."""


@dataclass(slots=True)
class ExportSummary:
    """Counts and failures of an export; passes failures on to a reporter."""

    reporter: ExportReporter
    written: int = 0
    size: int = 0  # bytes of all files together
    undecodable: int = 0  # rows that have no map
    failures: list[str] = field(default_factory=list)

    def failed(self, reason: str) -> None:
        """Record rows or a group that were left out."""
        self.failures.append(reason)
        self.reporter.failed(reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportPlan:
    """The groups to write, and what is wrong with the others."""

    store: LabelStore
    namer: "Namer"
    groups: tuple[str, ...]  # names; opened again one by one, because the keys of all would fill the memory
    rows: int  # of all these groups
    damaged: tuple[str, ...]  # an error message for each damaged group


class Namer:
    """Names the file of every sample, `<class folder>/<name>`, as the official trainer looks for it."""

    def __init__(self, schema: StoreSchema) -> None:
        names = schema.class_names or ()
        # ImageNet has two classes named crane, which would share a folder; in that case all folders are class ids.
        fit = len(set(names)) == len(names) and all(FOLDER_NAME.fullmatch(name) for name in names)
        self._folders = names if fit else ()

    def name(self, key: str, label: int) -> tuple[str, str]:
        """Class folder and file name of a sample, the latter without `.pt`.

        The folder is the key's own, else ImageNet's in the name, else that of the dataset's label.

        Raises:
            LabelMapError: a key that cannot name a file, or nothing that names a class.
        """
        folder, name = split_key(key)
        if not folder and label < 0 and wnid_of(name) is None:
            raise LabelMapError(f"{key!r}: no class folder in the key and no label")
        folder = folder or wnid_of(name) or (self._folders[label] if label < len(self._folders) else str(label))
        if "." in folder + name:
            raise LabelMapError(
                f"{key!r}: the official trainer cuts an image's path at the first dot; rename the folder"
            )
        return folder, name


def plan_export(store: LabelStore, folder: Path, *, overwrite: bool) -> ExportPlan:
    """Check, before anything is written, that the folder can be used and that no two samples share a file.

    Raises:
        SettingsError: the folder is not empty, or is inside a label store.
        LabelMapError: two samples would be written to one file.
    """
    _check_folder(folder, overwrite=overwrite)
    namer, seen = Namer(store.schema), set[int]()
    groups: list[str] = []
    damaged: list[str] = []
    rows = 0
    for name in store.names():
        try:
            group = store.group(name)
            _check_unique(group, namer, seen)
        except DamagedStoreError as error:
            damaged.append(str(error))
        else:
            groups.append(name)
            rows += len(group)
    return ExportPlan(store=store, namer=namer, groups=tuple(groups), rows=rows, damaged=tuple(damaged))


def export_maps(plan: ExportPlan, folder: Path, *, axes: Axes, reporter: ExportReporter) -> ExportSummary:
    """Write a `.pt` for every row that has a map; each file is replaced atomically.

    Returns:
        Counts; rows whose keys cannot name a file and groups that are damaged are in its failures.

    Raises:
        StoreWriteError: the folder cannot be written; what was written stays.
    """
    summary = ExportSummary(reporter)
    for reason in plan.damaged:
        summary.failed(reason)
    files = _Files(folder)
    for name in plan.groups:
        try:
            _export_group(plan.store.group(name), plan.namer, files, summary, turned=axes == "xy")
        except DamagedStoreError as error:
            summary.failed(str(error))
    return summary


def official_limits(schema: StoreSchema, axes: Axes) -> list[str]:
    """Reasons why the official trainer would misread the exported maps, none if it would not."""
    limits = []
    if axes == "yx":
        limits.append("it reads the crops' boxes with x and y exchanged; export with --axes xy")
    if schema.preprocessing.mode == CENTRE:
        limits.append("it takes them for maps of the whole image, and they cover the centre")
    if schema.map_size[0] != schema.map_size[1]:
        limits.append("it scales both sides of a box by one side of the map, which must be square")
    if schema.num_classes > OFFICIAL_CLASSES:
        limits.append(f"it knows {OFFICIAL_CLASSES} classes, these maps have {schema.num_classes}")
    return limits


def _export_group(group: LabelGroup, namer: Namer, files: "_Files", summary: ExportSummary, *, turned: bool) -> None:
    refused: list[str] = []
    for start in range(0, len(group), CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, len(group))
        maps = group.read(start, stop)
        for row in range(start, stop):
            if row in group.undecodable:
                summary.undecodable += 1
                continue
            try:
                name = namer.name(group.keys[row], int(group.labels[row]))
            except LabelMapError as error:
                refused.append(str(error))
                continue
            found = PublishedMap(maps.classes[row - start], maps.scores[row - start])
            summary.size += files.write(*name, dump_map(found.turned() if turned else found))
            summary.written += 1
        summary.reporter.exported(stop - start)
    if refused:
        summary.failed(f"{group}: {len(refused)} of {len(group)} rows not exported, the first: {refused[0]}")


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if any((parent / GROUP_FILE).exists() for parent in (folder.resolve(), *folder.resolve().parents)):
        raise SettingsError(f"{folder}: is inside a label store; choose another folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SettingsError(f"{folder}: not a folder")
    if not overwrite and any(folder.iterdir()):
        raise SettingsError(
            f"{folder}: not empty; choose a new folder, or --overwrite to replace files of the same names"
        )


def _check_unique(group: LabelGroup, namer: Namer, seen: set[int]) -> None:
    for name in _names(group, namer):
        if hash(name) in seen:
            raise LabelMapError(
                f"{group}: two samples would be written to {'/'.join(name)}{SUFFIX}; rename one of them"
            )
        seen.add(hash(name))


def _names(group: LabelGroup, namer: Namer) -> Iterator[tuple[str, str]]:
    """File names of the rows that have one."""
    for row, (key, label) in enumerate(zip(group.keys, group.labels.tolist(), strict=True)):
        if row not in group.undecodable:
            with suppress(LabelMapError):
                yield namer.name(key, label)


class _Files:
    """Writes files below a folder, never through a symbolic link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: set[str] = set()

    def write(self, folder: str, name: str, data: bytes) -> int:
        """Write one file; returns its size in bytes."""
        file = self.folder / folder / (name + SUFFIX)
        if file.parent.is_symlink():
            raise StoreWriteError(f"{file.parent}: a link, which may point outside the folder; remove it")
        try:
            if folder not in self._made:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(folder)
        except OSError as error:
            raise StoreWriteError(f"{file}: cannot be written: {error.strerror or error}") from error
        with write_atomically(file, synced=False) as handle:  # millions of small files, which can be exported again
            handle.write(data)
        return len(data)
