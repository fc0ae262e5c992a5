"""Temporary folders of a process; the next start removes those that a killed process has left.

A folder belongs to a living process as long as it is locked, since the system releases a lock however its holder ends.
The name holds this machine's boot id, because a network disk may not show the locks of other machines.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import getnode

from store.errors import SettingsError
from store.files import flock

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Scratch:
    """A new folder in `parent`, empty and locked; a context that removes it at its end.

    Folders that dead processes of this user on this machine have left there are removed first.

    Raises:
        OSError: no folder can be made there.
    """

    def __init__(self, parent: Path) -> None:
        remove_abandoned(parent)
        self.path, self._lock = _new_folder(parent)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder; what another thread is just writing there stays for the next start."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def temporary_scratch() -> Scratch:
    """A new folder in the system's temporary folder (TMPDIR).

    Raises:
        SettingsError: TMPDIR is not a writable folder; Python would silently use another one.
    """
    asked = os.environ.get("TMPDIR")
    try:
        return Scratch(Path(asked or tempfile.gettempdir()))
    except OSError as error:
        raise SettingsError(f"TMPDIR={asked}: {error.strerror}; make that folder writable, or unset it") from error


def remove_abandoned(parent: Path) -> None:
    """Remove what dead processes of this user on this machine have left: folders, and semaphores of their names."""
    for folder in parent.glob(f"{_prefix()}*"):
        with suppress(OSError):  # a folder of another user, or another start has removed it
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(handle).st_uid == os.geteuid() and flock(handle, wait=False):
                    _remove(folder)
            finally:
                os.close(handle)


def _remove(folder: Path) -> None:
    for semaphore in folder.parent.glob(f"sem.{folder.name}-*"):
        semaphore.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _new_folder(parent: Path) -> tuple[Path, int]:
    """A new folder and the open file that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))
        with suppress(FileNotFoundError, BlockingIOError):  # another start has taken it for an abandoned one
            handle = os.open(folder, os.O_RDONLY)
            try:
                flock(handle, wait=False)
                folder.stat()
            except OSError:
                os.close(handle)
                raise
            return folder, handle


def _prefix() -> str:
    try:
        machine = BOOT_ID.read_text()[:8]
    except OSError:
        machine = f"{getnode():012x}"[-8:]
    return f"relabel-{machine}-"
