"""Annotating on a Ray cluster: actors with a teacher each are handed a few shards at a time.

The store is the only checkpoint. An actor whose node is lost is started again wherever there is room, now or once a
node joins; what it was handed goes to whoever is free, and is done again but for the groups that it had committed.
"""

import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from threading import current_thread, main_thread
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from annotator.report import Reporter, Summary
from annotator.run.annotate import ReadyTeacher, annotate, check_bad_images, make_ready, open_labels
from annotator.settings import ClusterSettings, Job
from annotator.teacher.selftest import SelfTest
from annotator.teacher.teacher import Teacher
from store.errors import RelabelError, SettingsError, WorkerError
from store.foreign import AUTHENTICATION, says
from store.format.schema import StoreSchema
from store.reader import LabelStore
from store.shards.index import shard_name
from store.shards.remote import Shard
from store.text import first_line, last_line

# A process on a Ray cluster that holds one teacher and annotates the shards it is handed.


Event = tuple[str, Shard, tuple[int | str, ...]]  # a reporter's method, its shard, its other arguments


class Events(Reporter):
    """Keeps what it is told about shards, to be told elsewhere."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def committed(self, shard: Shard, rows: int) -> None:
        """Keep it."""
        self.events.append(("committed", shard, (rows,)))

    def skipped(self, shard: Shard) -> None:
        """Keep it."""
        self.events.append(("skipped", shard, ()))

    def failed(self, shard: Shard, reason: str) -> None:
        """Keep it."""
        self.events.append(("failed", shard, (reason,)))

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """Keep it."""
        self.events.append(("undecodable", shard, (key, reason)))


class Actor:
    """Lives on a node; started again on another one when that is lost, with nothing to remember."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def prepare(self) -> tuple[StoreSchema, SelfTest]:
        """Build and test the teacher; what a store of its maps holds, and what the test found."""
        return self._ready.schema, self._ready.selftest

    def annotate(self, shards: Sequence[Shard]) -> tuple[Summary, list[Event]]:
        """Annotate shards that have no labels yet; the sum of it, and what became of each.

        Raises:
            RelabelError: as of `annotator.run.annotate.annotate`.
        """
        events = Events()
        summary = Summary(events)
        annotate(shards, self.job.labels, self._ready, self.job.settings, summary)
        return summary, events.events

    def heartbeat(self) -> None:
        """Answers as long as the actor lives, also while it is at work."""

    @cached_property
    def _ready(self) -> ReadyTeacher:
        return make_ready(Teacher(self.job.teacher), self.job.settings.top_k, self.job.class_names)


HANDED = 4  # shards at a time at most, so that batches span their borders
ROUNDS = 8  # hand-outs an actor gets at least, so that all end at about the same time
DEATHS = 5  # of actors over the same shards, after which it is the shards that are suspected
HEARTBEAT = 2.0  # seconds between two looks at the actors
TOKENS = "give every node the head's ~/.ray/auth_token and RAY_AUTH_MODE=token, or RAY_AUTH_MODE=disabled everywhere"
SILENCE = 10.0  # seconds without a pulse after which an actor is taken for lost


def annotate_on_ray(
    shards: Sequence[Shard], job: Job, cluster: ClusterSettings, summary: Summary, tell: Callable[[str], None]
) -> None:
    """Annotate every shard that has no labels yet.

    Args:
        shards: reached from every node by these names.
        job: what to do.
        cluster: where.
        summary: hears what becomes of each shard.
        tell: receives a line when the number of living actors changes.

    Raises:
        SettingsError: no such cluster.
        WorkerError: an actor that could not be kept alive until its teacher was ready.
        RelabelError: as of `annotator.run.annotate.annotate`.
    """
    with _connected(cluster.address):
        workers = Workers(job, cluster, tell)
        schema, selftest = workers.prepare()
        tell(f"self-test passed: {schema.map_size[0]} x {schema.map_size[1]} cells, {selftest.describe()}")
        open_labels(shards, job.labels, schema, summary, overwrite=job.settings.overwrite)
        run = _Run(shards, job, workers, summary)
        while run.todo or run.busy:
            run.assign()
            run.collect()


class Workers:
    """The actors, and which of them live."""

    def __init__(self, job: Job, cluster: ClusterSettings, tell: Callable[[str], None]) -> None:
        gpus_there = ray.cluster_resources().get("GPU", 0.0)
        gpus = cluster.gpus_per_actor if cluster.gpus_per_actor is not None else min(1.0, gpus_there)
        count = cluster.actors or max(1, int(gpus_there / gpus) if gpus else 1)
        self._cpus = cpus = 1 + job.settings.workers
        self.needs = f"{cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        kind = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=-1,
            concurrency_groups={"pulse": 1},
        )(Actor)
        self.actors = [kind.remote(job) for _ in range(count)]
        self.tell, self._told = tell, ""
        self._heartbeats = [_heartbeat(actor) for actor in self.actors]
        self._heard = [float("-inf")] * count

    def prepare(self) -> Any:  # noqa: ANN401  (ray's references are not typed)
        """What the first actor that lives says of its teacher."""
        while True:
            for actor in self.living():
                with suppress(WorkerError), _errors():  # lost meanwhile: ask another
                    return ray.get(self.actors[actor].prepare.remote())
            time.sleep(HEARTBEAT)

    def living(self) -> list[int]:
        """Which actors have given a sign of life lately; tells when their number changes.

        Raises:
            WorkerError: a node on which no actor can start, for want of a package or the like.
        """
        now = time.monotonic()
        ready, _ = ray.wait(self._heartbeats, num_returns=len(self._heartbeats), timeout=0)
        for i in [i for i, heartbeat in enumerate(self._heartbeats) if heartbeat in ready]:
            try:
                ray.get(self._heartbeats[i])
                self._heard[i] = now
            except RayError as error:  # most often lost while it was asked
                if getattr(error, "actor_init_failed", False):
                    raise WorkerError(f"an actor cannot start: {last_line(error)}") from error
            self._heartbeats[i] = _heartbeat(self.actors[i])
        living = [i for i, heard in enumerate(self._heard) if now - heard < SILENCE]
        waiting = len(self.actors) - len(living)
        line = f"{len(living)} of {len(self.actors)} actors live"
        line += f"; {waiting} wait for a node with {self.needs} to spare{self._too_small()}" if waiting else ""
        if line != self._told:
            self.tell(line)
            self._told = line
        return living

    def _too_small(self) -> str:
        """What to do if no node is large enough, however idle."""
        most = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        return f" (the largest has {most:g} CPUs: add one, or lower --workers)" if most < self._cpus else ""


class _Run:
    """What is still to be handed out, and what is with whom."""

    def __init__(self, shards: Sequence[Shard], job: Job, workers: Workers, summary: Summary) -> None:
        size = max(1, min(HANDED, len(shards) // (len(workers.actors) * ROUNDS)))
        self.todo = deque(tuple(shards[i : i + size]) for i in range(0, len(shards), size))
        self.busy: dict[Any, tuple[int, tuple[Shard, ...]]] = {}
        self.job, self.workers, self.summary = job, workers, summary
        self.deaths: Counter[tuple[Shard, ...]] = Counter()
        self.repeated: set[Shard] = set()  # handed to an actor that died

    def assign(self) -> None:
        """Give every living actor that has nothing to do its next shards."""
        at_work = {actor for actor, _ in self.busy.values()}
        for actor in self.workers.living():
            if self.todo and actor not in at_work:
                shards = self.todo.popleft()
                self.busy[self.workers.actors[actor].annotate.remote(shards)] = actor, shards

    def collect(self) -> None:
        """Wait a while for something to be done, and tell of it."""
        if not self.busy:
            time.sleep(HEARTBEAT)
            return
        done, _ = ray.wait(list(self.busy), timeout=HEARTBEAT)
        for reference in done:
            _, shards = self.busy.pop(reference)
            try:
                with _errors():
                    summary, events = ray.get(reference)
            except WorkerError as error:
                self._died(shards, str(error))
            else:
                self._tell(summary, events, shards)
            check_bad_images(self.summary, 0, self.job.settings.max_bad)

    def _tell(self, summary: Summary, events: list[Event], shards: tuple[Shard, ...]) -> None:
        self.summary.waiting.seconds += summary.waiting.seconds
        self.summary.computing.seconds += summary.computing.seconds
        self.summary.annotated(summary.images, shards[0], 0.0)
        for method, shard, arguments in events:
            if method == "skipped" and shard in self.repeated:
                self._committed_before(shard)
            else:
                getattr(self.summary, method)(shard, *arguments)

    def _committed_before(self, shard: Shard) -> None:
        """By an actor that died before it could tell."""
        group = LabelStore.open(self.job.labels).unchecked_group(shard_name(shard))
        self.summary.annotated(len(group), shard, 0.0)
        for row in group.commit.undecodable:
            self.summary.undecodable(shard, row.key, row.reason)
        self.summary.committed(shard, len(group) - len(group.commit.undecodable))

    def _died(self, shards: tuple[Shard, ...], reason: str) -> None:
        """Hand them out again; one by one if it is one of them that kills its actor each time, to find out which."""
        self.deaths[shards] += 1
        self.repeated.update(shards)
        if self.deaths[shards] <= DEATHS:
            self.todo.append(shards)
        elif len(shards) > 1:
            self.todo.extend((shard,) for shard in shards)
        else:
            self.summary.failed(shards[0], f"{shards[0]}: {reason}")


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        asked = os.environ.get("RAY_ADDRESS") if address in (None, "auto") else address
        if asked and asked != "auto":
            _reach(asked)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        where = "a Ray cluster" if address is None else f"the Ray cluster {address}"
        hint = f"; {TOKENS}" if says(error, AUTHENTICATION) else ""
        raise SettingsError(f"{where} cannot be reached: {first_line(error)}{hint}") from error
    try:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)  # ray has put its own in its place
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise ValueError("expected HOST:PORT, as `ray start` prints it")
    socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _errors() -> Iterator[None]:
    """What goes wrong in an actor, as what it is; a WorkerError where the actor itself is gone."""
    try:
        yield
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, RelabelError) else error) from None
    except RayError as error:
        raise WorkerError(
            f"its actors died {DEATHS + 1} times ({type(error).__name__}); look into Ray's logs"
        ) from error


def _heartbeat(actor: Any) -> Any:  # noqa: ANN401  (ray's actors are not typed)
    return actor.heartbeat.options(concurrency_group="pulse").remote()
