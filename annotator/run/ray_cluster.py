"""The annotator on a Ray cluster: actors with one teacher each receive work items of a few shards.

The store is the only checkpoint. An actor whose node is lost is restarted on any node with room, now or once a node
joins; its work item goes to a free actor, which repeats it except for the groups that are committed.
"""

import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from annotator.report import Recorder, ShardEvent, Skipped, Summary
from annotator.run.annotate import ReadyTeacher, annotate, load_in_own_process, open_labels
from annotator.settings import ClusterSettings, Job
from annotator.teacher.selftest import SelfTest
from store.errors import RelabelError, SettingsError, WorkerError
from store.foreign import AUTHENTICATION, says
from store.format.schema import StoreSchema
from store.reader import LabelStore
from store.shards.index import shard_name
from store.shards.remote import Shard
from store.text import first_line, last_line
from store.writer import StoreWriter

MAX_ITEM = 4  # shards of a work item at most, so that batches span their borders
ROUNDS = 8  # work items of an actor at least, so that all actors end at about the same time
MAX_DEATHS = 5  # of actors over the same shards, after which the shards are suspected
HEARTBEAT = 2.0  # seconds between two checks of the actors
SILENCE = 10.0  # seconds without a heartbeat after which an actor counts as lost
TOKENS = "give every node the head's ~/.ray/auth_token and RAY_AUTH_MODE=token, or RAY_AUTH_MODE=disabled everywhere"


class Actor:
    """Stateless Ray actor with one teacher; restarted on another node if its node is lost."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._ready: ReadyTeacher | None = None

    def prepare(self) -> tuple[StoreSchema, SelfTest]:
        """Build and test the teacher; return the schema of a store of its maps, and the self-test's result."""
        ready = self._load()
        return ready.schema, ready.selftest

    def annotate(self, shards: Sequence[Shard]) -> tuple[Summary, list[ShardEvent]]:
        """Annotate shards that have no labels yet; return the totals and the events of the shards.

        Raises:
            RelabelError: as of `annotator.run.annotate.annotate`.
        """
        recorder = Recorder()
        summary = Summary(recorder)
        ready = self._load()
        writer = StoreWriter(LabelStore.open(self.job.labels), ready.schema)  # made by `annotate_on_ray`
        annotate(shards, writer, ready, self.job.settings, summary)
        return summary, recorder.events

    def heartbeat(self) -> None:
        """Returns as long as the actor lives, also while it annotates."""

    def _load(self) -> ReadyTeacher:
        if self._ready is None:
            self._ready = load_in_own_process(self.job)
        return self._ready


def annotate_on_ray(
    shards: Sequence[Shard], job: Job, cluster: ClusterSettings, summary: Summary, tell: Callable[[str], None]
) -> None:
    """Annotate every shard that has no labels yet.

    Args:
        shards: with the same paths or URLs on every node.
        job: the run.
        cluster: the cluster and the actors on it.
        summary: receives the events of each shard.
        tell: receives a line when the number of living actors changes.

    Raises:
        SettingsError: the cluster cannot be reached.
        WorkerError: an actor cannot start, or did not live until its teacher was ready.
        RelabelError: as of `annotator.run.annotate.annotate`.
    """
    with _connected(cluster.address):
        workers = Workers(job, cluster, tell)
        schema, selftest = workers.prepare()
        tell(f"self-test passed: {schema.map_size[0]} x {schema.map_size[1]} cells, {selftest.describe()}")
        overwrite, precision = job.settings.overwrite, job.teacher.precision
        open_labels(shards, job.labels, schema, summary, overwrite=overwrite, precision=precision)
        run = _Run(shards, job, workers, summary)
        while run.waiting or run.assigned:
            run.assign()
            run.collect()


class Workers:
    """The actors of a run, and their heartbeats."""

    def __init__(self, job: Job, cluster: ClusterSettings, tell: Callable[[str], None]) -> None:
        cluster_gpus = ray.cluster_resources().get("GPU", 0.0)
        gpus = cluster.gpus_per_actor if cluster.gpus_per_actor is not None else min(1.0, cluster_gpus)
        count = cluster.actors or max(1, int(cluster_gpus / gpus) if gpus else 1)
        self._cpus = cpus = 1 + job.settings.workers
        self.needs = f"{cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        remote_class = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=-1,
            concurrency_groups={"heartbeat": 1},
        )(Actor)
        self.actors = [remote_class.remote(job) for _ in range(count)]
        self.tell, self._last_line = tell, ""
        self._heartbeats = [_heartbeat(actor) for actor in self.actors]
        self._last_heartbeat = [float("-inf")] * count  # seconds, monotonic

    def prepare(self) -> Any:  # noqa: ANN401  (ray's references are not typed)
        """Schema and self-test result of the teacher of the first living actor."""
        while True:
            for actor in self.living():
                with suppress(WorkerError), _errors():  # lost meanwhile: try another
                    return ray.get(self.actors[actor].prepare.remote())
            time.sleep(HEARTBEAT)

    def living(self) -> list[int]:
        """Numbers of the actors with a recent heartbeat; reports when their count changes.

        Raises:
            WorkerError: an actor cannot start on its node, for example because a package is missing.
        """
        now = time.monotonic()
        ready, _ = ray.wait(self._heartbeats, num_returns=len(self._heartbeats), timeout=0)
        for i in [i for i, heartbeat in enumerate(self._heartbeats) if heartbeat in ready]:
            try:
                ray.get(self._heartbeats[i])
                self._last_heartbeat[i] = now
            except RayError as error:  # most often lost during the call
                if getattr(error, "actor_init_failed", False):
                    raise WorkerError(f"an actor cannot start: {last_line(error)}") from error
            self._heartbeats[i] = _heartbeat(self.actors[i])
        living = [i for i, last in enumerate(self._last_heartbeat) if now - last < SILENCE]
        waiting = len(self.actors) - len(living)
        line = f"{len(living)} of {len(self.actors)} actors live"
        line += f"; {waiting} wait for a node with {self.needs} to spare{self._size_hint()}" if waiting else ""
        if line != self._last_line:
            self.tell(line)
            self._last_line = line
        return living

    def _size_hint(self) -> str:
        """A hint if no node is large enough for an actor, even when idle."""
        most = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        return f" (the largest has {most:g} CPUs: add one, or lower --workers)" if most < self._cpus else ""


class _Run:
    """The work items of a run: waiting, and assigned to actors."""

    def __init__(self, shards: Sequence[Shard], job: Job, workers: Workers, summary: Summary) -> None:
        size = max(1, min(MAX_ITEM, len(shards) // (len(workers.actors) * ROUNDS)))
        self.waiting = deque(tuple(shards[i : i + size]) for i in range(0, len(shards), size))
        self.assigned: dict[Any, tuple[int, tuple[Shard, ...]]] = {}  # by the reference of the call
        self.job, self.workers, self.summary = job, workers, summary
        self.deaths: Counter[tuple[Shard, ...]] = Counter()
        self.repeated: set[Shard] = set()  # were assigned to an actor that died

    def assign(self) -> None:
        """Give every idle living actor its next work item."""
        busy = {actor for actor, _ in self.assigned.values()}
        for actor in self.workers.living():
            if self.waiting and actor not in busy:
                shards = self.waiting.popleft()
                self.assigned[self.workers.actors[actor].annotate.remote(shards)] = actor, shards

    def collect(self) -> None:
        """Wait up to HEARTBEAT seconds for finished work items, and report them."""
        if not self.assigned:
            time.sleep(HEARTBEAT)
            return
        done, _ = ray.wait(list(self.assigned), timeout=HEARTBEAT)
        for reference in done:
            _, shards = self.assigned.pop(reference)
            try:
                with _errors():
                    summary, events = ray.get(reference)
            except WorkerError as error:
                self._retry(shards, str(error))
            else:
                self._report(summary, events, shards)

    def _report(self, summary: Summary, events: list[ShardEvent], shards: tuple[Shard, ...]) -> None:
        self.summary.waiting.seconds += summary.waiting.seconds
        self.summary.computing.seconds += summary.computing.seconds
        self.summary.changes += summary.changes
        self.summary.annotated(summary.images, shards[0], 0.0)
        for event in events:
            if isinstance(event, Skipped) and event.shard in self.repeated:
                self._report_committed_before(event.shard)
            else:
                event.send(self.summary)

    def _report_committed_before(self, shard: Shard) -> None:
        """Report a shard that was committed by an actor that died before it could report it."""
        group = LabelStore.open(self.job.labels).unchecked_group(shard_name(shard))
        self.summary.annotated(len(group), shard, 0.0)
        for row in group.commit.undecodable:
            self.summary.undecodable(shard, row.key, row.reason)
        self.summary.committed(shard, len(group) - len(group.commit.undecodable))

    def _retry(self, shards: tuple[Shard, ...], reason: str) -> None:
        """Queue a dead actor's shards again; one by one after too many deaths, to find the one that kills actors."""
        self.deaths[shards] += 1
        self.repeated.update(shards)
        if self.deaths[shards] <= MAX_DEATHS:
            self.waiting.append(shards)
        elif len(shards) > 1:
            self.waiting.extend((shard,) for shard in shards)
        else:
            self.summary.failed(shards[0], f"{shards[0]}: {reason}")


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        chosen = os.environ.get("RAY_ADDRESS") if address in (None, "auto") else address
        if chosen and chosen != "auto":
            _check_reachable(chosen)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        where = "a Ray cluster" if address is None else f"the Ray cluster {address}"
        hint = f"; {TOKENS}" if says(error, AUTHENTICATION) else ""
        raise SettingsError(f"{where} cannot be reached: {first_line(error)}{hint}") from error
    try:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)  # ray has replaced it
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Connect once, because Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise ValueError("expected HOST:PORT, as `ray start` prints it")
    socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _errors() -> Iterator[None]:
    """Raise an actor's own error instead of Ray's; a WorkerError where the actor itself is lost."""
    try:
        yield
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, RelabelError) else error) from None
    except RayError as error:
        raise WorkerError(f"its actors died {MAX_DEATHS + 1} times ({type(error).__name__}); see Ray's logs") from error


def _heartbeat(actor: Any) -> Any:  # noqa: ANN401  (ray's actors are not typed)
    return actor.heartbeat.options(concurrency_group="heartbeat").remote()
