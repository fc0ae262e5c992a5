import errno
import fcntl
import os
from pathlib import Path

import pytest

from store.errors import RunFolderError
from trainer.run.folder import locked_folder


def test_a_folder_on_a_disk_without_locks_can_be_trained_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked_folder(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_locked_folder_is_refused(tmp_path: Path) -> None:
    message = r"run: another process trains there; wait for it, or choose another folder$"
    with locked_folder(tmp_path / "run"), pytest.raises(RunFolderError, match=message), locked_folder(tmp_path / "run"):
        pass
