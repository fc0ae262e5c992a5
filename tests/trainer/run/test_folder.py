import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from store.errors import RunFolderError
from tests.builders.training import Dataset, run
from trainer.order.sample_order import SampleOrder
from trainer.run.folder import locked_folder, run_start


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


@pytest.mark.parametrize("order", [3, 0, True, "2", None, [2]])
def test_a_run_keeps_the_order_of_samples_of_its_start(dataset: Dataset, tmp_path: Path, order: object) -> None:
    run(dataset, tmp_path / "run", epochs=1, val=False)
    file = tmp_path / "run" / "settings.json"
    document = json.loads(file.read_text())
    assert document["order"] == SampleOrder.version == 2
    del document["order"]  # as earlier releases wrote it
    file.write_text(json.dumps(document))
    start = run_start(tmp_path / "run")
    assert start is not None
    assert start.order_version == 1
    file.write_text(json.dumps(document | {"order": order}))
    with pytest.raises(
        RunFolderError, match=r'settings.json: "order": .*, expected 1 or 2: damaged, or a newer release'
    ):
        run_start(tmp_path / "run")
