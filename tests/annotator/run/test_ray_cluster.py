"""Annotating on a real Ray cluster of two nodes on this machine."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from annotator.report import Reporter, Summary
from annotator.settings import BadLimit, ClusterSettings, Job, RunSettings, TeacherSettings
from annotator.teacher.teacher import Teacher
from store.errors import (
    SettingsError,
    StoreMismatchError,
    TeacherError,
    WorkerError,
)
from store.reader import LabelStore
from store.shards.remote import Shard
from tests.builders.paths import ROOT
from tests.builders.stores import make_members, write_tar
from tests.builders.teachers import run_annotator, save_weights

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

from annotator.run.ray_cluster import Actor, annotate_on_ray
from pipelines.annotate.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore")  # ray leaves sockets and processes to the collector
MEMORY = 80 << 20  # bytes of ray's object store per node


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs, and two nodes that hold an actor each."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the slow teacher
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY},
    )
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield found
    found.shutdown()


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    return [write_tar(tmp_path / f"a-{i:03}.tar", make_members(4 + i % 3, first=10 * i)) for i in range(8)]


def slow_teacher(seconds: float) -> TeacherSettings:
    return TeacherSettings(
        name="tests.builders.slow_teacher:make", args={"seconds": seconds}, device="cpu",
        input_size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip


def run(
    cluster: Cluster, shards: list[Shard], labels: Path, teacher: TeacherSettings, told: Any = None, **settings: Any
) -> Summary:
    job = Job(
        labels=labels, teacher=teacher, class_names=None,
        settings=RunSettings(**({"batch_size": 2, "workers": 0} | settings)),
    )  # fmt: skip
    summary = Summary(told or Reporter())
    cluster_settings = ClusterSettings(address=cluster.address, actors=2)
    annotate_on_ray(shards, job, cluster_settings, summary, told.line if told else lambda _: None)
    return summary


def assert_same(labels: Path, expected: Path) -> None:
    """Group by group and byte by byte; the records differ in nothing but when."""
    ours, theirs = LabelStore.open(labels), LabelStore.open(expected)
    assert ours.names() == theirs.names()
    for group, other in zip(ours, theirs, strict=True):
        for path in group.commit.objects:
            assert group.read_object(path) == other.read_object(path)
        assert group.commit == other.commit


class Disaster(Reporter):
    """Kills an actor in the middle of a shard, then removes a node, and adds one when the run waits for it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.committed_shards, self.killed = cluster, 0, 0
        self.lines: list[str] = []

    def committed(self, shard: Shard, rows: int) -> None:
        self.committed_shards += 1
        if self.committed_shards == 2:
            Timer(0.6, self.kill_actor).start()  # by then both are in the middle of a shard
        if self.committed_shards == 4:
            self.cluster.remove_node(next(iter(self.cluster.worker_nodes)))

    def kill_actor(self) -> None:
        busy = subprocess.run(["pgrep", "-f", "^ray::Actor"], capture_output=True, text=True, check=True)
        os.kill(int(busy.stdout.split()[0]), signal.SIGKILL)
        self.killed += 1

    def line(self, text: str) -> None:
        self.lines.append(text)
        if self.committed_shards >= 4 and "wait for a node" in text:
            self.cluster.add_node(num_cpus=1, object_store_memory=MEMORY)


@pytest.mark.slow
def test_killed_actor_and_lost_node_leave_the_same_store_as_one_process(
    tmp_path: Path, cluster: Cluster, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.run.ray_cluster.SILENCE", 3.0)
    disaster = Disaster(cluster)
    summary = run(cluster, shards, tmp_path / "labels.zarr", slow_teacher(0.4), disaster)
    assert (summary.committed_shards, summary.skipped_shards, summary.failures) == (8, 0, {})
    assert summary.images == sum(4 + i % 3 for i in range(8))
    assert disaster.killed == 1
    assert disaster.lines[0] == "0 of 2 actors live; 2 wait for a node with 1 CPUs to spare"
    assert "1 of 2 actors live; 1 wait for a node with 1 CPUs to spare" in disaster.lines
    single = run_annotator(shards, tmp_path / "single.zarr", Teacher(slow_teacher(0.4)), batch_size=2)
    assert single.committed_shards == 8
    assert_same(tmp_path / "labels.zarr", tmp_path / "single.zarr")


@pytest.mark.slow
def test_cluster_run_is_continued_and_reports_errors(tmp_path: Path, cluster: Cluster, shards: list[Shard]) -> None:
    labels = tmp_path / "labels.zarr"
    assert isinstance(shards[1], Path)
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:1500])
    members = [*make_members(2, first=90), ("bad.jpg", b"nothing")]
    shards.append(write_tar(tmp_path / "bad.tar", members))
    first = run(cluster, shards[:4] + shards[-1:], labels, slow_teacher(0.0))
    assert (first.committed_shards, [str(shard) for shard in first.failures]) == (4, [str(shards[1])])
    assert [key for _, key, _ in first.bad_images] == ["bad"]
    shards[1].write_bytes(whole)
    again = run(cluster, shards, labels, slow_teacher(0.0))
    assert (again.committed_shards, again.skipped_shards, again.failures) == (5, 4, {})
    assert np.isfinite(LabelStore.open(labels).group("a-001").read().scores).all()
    few = run(cluster, shards, tmp_path / "few.zarr", slow_teacher(0.0), max_bad=BadLimit(0))
    assert "already 1 of its 3 images are undecodable, --max-bad allows 0" in few.failures.pop(shards[-1])
    assert (few.committed_shards, few.failures) == (8, {})
    for teacher, settings, error, message in (
        (slow_teacher(0.1), {}, StoreMismatchError, "written with another teacher"),
        (TeacherSettings(name="resnet19"), {}, TeacherError, "timm knows no such model; did you mean"),
    ):
        with pytest.raises(error, match=message):
            run(cluster, shards, labels, teacher, **settings)


def test_actor_that_cannot_start_is_an_error_and_not_waited_for(
    tmp_path: Path, cluster: Cluster, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing(Actor):
        def __init__(self, job: Job) -> None:
            raise ModuleNotFoundError("No module named 'timm'")

    monkeypatch.setattr("annotator.run.ray_cluster.Actor", Missing)
    with pytest.raises(WorkerError, match="an actor cannot start: ModuleNotFoundError: No module named 'timm'"):
        run(cluster, shards, tmp_path / "labels.zarr", slow_teacher(0.0))


def test_command_takes_paths_from_here_to_the_cluster(
    tmp_path: Path, cluster: Cluster, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").mkdir()
    weights = save_weights(tmp_path / "w" / "teacher.safetensors")
    arguments = ["run", "--shards", "a-*.tar", "--labels", "l.zarr", "--teacher", "test_resnet", "--input-size", "64",
                 "--checkpoint", f"w/{weights.name}", "--num-classes", "12", "--workers", "0", "--device", "cpu",
                 "--ray", cluster.address]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "8 shards annotated" in result.stdout
    assert len(LabelStore.open("l.zarr").names()) == 8


@pytest.mark.parametrize("gpus", [1.5, 0.001, 1e-9, -1, 65])
def test_shares_of_gpus_that_ray_cannot_give_are_refused(gpus: float) -> None:
    with pytest.raises(SettingsError, match=r"gpus-per-actor must be 0, 0\.01 to 1, or a whole number up to 64"):
        ClusterSettings(gpus_per_actor=gpus)
    assert ClusterSettings(gpus_per_actor=0.25).gpus_per_actor == 0.25


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001", "nowhere", "[::1]:99999999"])
def test_cluster_that_is_not_there_is_named(tmp_path: Path, address: str) -> None:
    settings = ClusterSettings(address=address, actors=1)
    job = Job(labels=tmp_path / "l.zarr", teacher=slow_teacher(0.0), settings=RunSettings(), class_names=None)
    with pytest.raises(SettingsError, match=f"the Ray cluster {re.escape(address)} cannot be reached: "):
        annotate_on_ray([], job, settings, Summary(), lambda _: None)
