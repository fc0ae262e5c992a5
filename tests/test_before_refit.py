"""Stores, run folders and checkpoints that commit 2558ac9 wrote, before the refit of the code, stay usable.

`fixtures/before_refit.tar.xz` holds two image shards with their label store (one undecodable row; the second group
without the array `tail`), a validation shard, a run that was stopped in its second epoch, and the same run finished.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from store.maintenance import verify_group
from store.reader import LabelStore
from tests.builders.training import Recorder
from trainer.run.loop import train
from trainer.settings import settings_from_json
from trainer.student.checkpoint import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(Path(__file__).parent / "fixtures" / "before_refit.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_store_is_read_and_verified(old: Path) -> None:
    store = LabelStore.open(old / "labels.zarr")
    assert store.names() == ["train-0", "train-1"]
    assert [len(group) for group in store] == [24, 13]
    assert [list(group.undecodable) for group in store] == [[5], []]
    assert [group.has_tail for group in store] == [True, False]
    assert not [fault for name in store.names() for fault in verify_group(store, name, deep=True)]
    row = store.group("train-0").row(3)
    assert (row.key, row.label) == ("s00003", 3)
    assert np.isfinite(row.scores).all()


def test_stopped_run_is_resumed_to_the_weights_it_would_have_had(old: Path) -> None:
    loaded = load_checkpoint(old / "stopped" / "step-00000004.pt")
    result = train(
        settings_from_json(loaded.settings),
        shards=[old / "train-0.tar", old / "train-1.tar"],
        labels=old / "labels.zarr",
        val_shards=[old / "val.tar"],
        out=old / "stopped",
        resume=True,
        reporter=Recorder(),
    )
    assert result.finished
    ours, theirs = (load_checkpoint(old / name / "step-00000008.pt") for name in ("stopped", "finished"))
    assert ours.model.keys() == theirs.model.keys()
    for name, tensor in theirs.model.items():  # kernels of another processor may round differently
        torch.testing.assert_close(ours.model[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    assert ours.loss_sum == pytest.approx(theirs.loss_sum, rel=1e-5)
