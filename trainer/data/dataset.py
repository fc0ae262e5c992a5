"""Samples with their label maps for custom training loops: a dataset for any `DataLoader`."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from store.errors import SettingsError
from store.reader import LabelStore
from store.shards.patterns import expand_sources
from trainer.data.batches import check_topology, order_of
from trainer.data.checks import check_rows
from trainer.data.division import current_ranks, refuse_second_division
from trainer.data.join import join_shards
from trainer.data.samples import SampleReader, TrainSample

MAX_WORKERS = 1024  # of one loader
Sample = dict[str, Any]


class LabelledSamples(IterableDataset[Any]):
    """One epoch of images with their label maps, in the trainer's order.

    An image is cut to the part that its map covers: all of it, unless the store's preprocessing is `centre`.

    Each sample is a dict: `__key__`, `__epoch__` and `__row__` (its number among all rows); `image` (H, W, 3) uint8;
    `classes` (K, h, w) uint16 and `scores` (K, h, w) float16; `label`, the dataset's own, -1 without one. `transform`
    makes of it what the loader collates.

    Every batch is divided among the ranks, and each worker of a `DataLoader` reads whole batches of its rank in turn:
    with `DataLoader(samples, batch_size=samples.rank_batch_size)` the batches are the same for any number of workers.
    Every worker caches the label maps of all its rank's streams.

    Args:
        shards: patterns of paths or URLs, such as `train-{0000..1023}.tar`.
        labels: the label store, a path or a URL.
        batch_size: of all ranks together.
        seed: of the order.
        rank: of this process among the `world` that train together; default: that of `torch.distributed` or torchrun
            when the samples are read.
        world: number of these processes; default likewise.
        transform: applied to each sample, in the workers.

    Raises:
        RelabelError: shards and labels that do not belong together or cannot be read, all of which are checked; fewer
            samples than a batch; a number of ranks that a batch does not divide among; while reading, samples that
            accelerate or transformers would divide among the ranks once more.
    """

    def __init__(
        self,
        shards: Sequence[str],
        labels: Path | str,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        if (rank is None) != (world is None):
            raise SettingsError("rank and world: give both, or neither")
        self._given = None if rank is None or world is None else (rank, world)
        self.transform = transform
        store = LabelStore.open(labels)
        self.num_classes = store.schema.num_classes
        self._joined = join_shards(expand_sources([shards] if isinstance(shards, str) else shards), store)
        self._order = order_of(self._joined, batch_size=batch_size, seed=seed)
        check_topology(self._order, world=self.world, workers=0)
        self._table = check_rows(self._joined, num_classes=None, workers=0)
        # In memory that the workers share: persistent ones see the epoch change, and each clears its own start.
        self._epoch = _shared(torch.zeros((), dtype=torch.int64))
        self._starts = _shared(torch.zeros(MAX_WORKERS, 2, dtype=torch.int64))  # batch and sample of the next pass
        self._read_ahead = _shared(torch.zeros((), dtype=torch.bool))  # workers read the samples
        self._next = (0, 0)  # batch and sample after the last one that this process has yielded
        self._start_at(0, 0)

    @property
    def rank(self) -> int:
        """Of this process among those that train together."""
        return (self._given or current_ranks())[0]

    @property
    def world(self) -> int:
        """The number of processes that train together."""
        return (self._given or current_ranks())[1]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self._order.steps

    @property
    def rank_batch_size(self) -> int:
        """Samples of each batch that belong to one rank."""
        return self._order.batch_size // self.world

    def __len__(self) -> int:
        """Samples of one rank in an epoch."""
        return self.steps * self.rank_batch_size

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, which does not know its rank itself."""
        refuse_second_division(self.world)
        return self.__dict__ | {"_given": (self.rank, self.world)}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch to read next, counted from 0; another one than before is read from its start."""
        if epoch != int(self._epoch):
            self._epoch.fill_(epoch)
            self._start_at(0, 0)

    def state_dict(self, *, step: int | None = None) -> dict[str, Any]:
        """Where reading is, for `load_state_dict`; the same on every rank that has done as many steps.

        Args:
            step: batches of this epoch that training has done; default: those that this process has yielded.

        Raises:
            SettingsError: no `step`, although the workers of a `DataLoader` read the samples and are ahead of training;
                torchdata's `StatefulDataLoader` asks its workers.
        """
        if step is None and get_worker_info() is None and bool(self._read_ahead):
            raise SettingsError(
                "the workers of a DataLoader are ahead of training: give state_dict(step=...) the batches of this "
                "epoch that training has done, or use torchdata's StatefulDataLoader"
            )
        batch, sample = self._next if step is None else (step, 0)
        return {"epoch": int(self._epoch), "step": batch, "sample": sample, "world": self.world, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin where a state was taken, with any number of workers.

        Between two batches (`sample` 0) also with another number of ranks.

        Raises:
            SettingsError: a state of other samples, or of another seed, batch size or number of ranks.
        """
        try:
            epoch, step, sample, world = (int(state[name]) for name in ("epoch", "step", "sample", "world"))
            identity = {name: state[name] for name in self._identity()}
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"not a state of LabelledSamples ({type(error).__name__}: {error})") from error
        for name, mine in (self._identity() | ({"world": self.world} if sample else {})).items():
            if (found := identity.get(name, world)) != mine:
                raise SettingsError(f"the state has another {name}, {found}, than these samples, {mine}")
        if epoch < 0 or not 0 <= step <= self.steps or not 0 <= sample < self.rank_batch_size:
            raise SettingsError(f"a state of step {step}, sample {sample} in epoch {epoch}; an epoch has {self.steps}")
        self._epoch.fill_(epoch)
        self._next = (step, sample)
        worker = get_worker_info()
        if worker is None:
            self._start_at(step, sample)
        else:  # torchdata gives each worker the state that it had itself
            self._starts[worker.id] = torch.tensor((step, sample))

    def _identity(self) -> dict[str, Any]:
        """What the order depends on besides the epoch."""
        shards = hashlib.sha256()
        for joined in self._joined:
            shards.update(f"{joined.group.commit.tar.sha256} {sorted(joined.group.undecodable)}\n".encode())
        return {
            "shards": shards.hexdigest(),
            "seed": self._order.seed,
            "batch_size": self._order.batch_size,
        }

    def _start_at(self, step: int, sample: int) -> None:
        """Let worker w begin the next pass with batch `step` + w; the first one within its batch."""
        self._starts[:, 0] = step + torch.arange(MAX_WORKERS)
        self._starts[:, 1] = 0
        self._starts[0, 1] = sample

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if workers > MAX_WORKERS:
            raise SettingsError(f"{workers} workers: at most {MAX_WORKERS} can read the samples")
        rank, world = self.rank, self.world
        refuse_second_division(world)
        check_topology(self._order, world=world, workers=0)
        self._read_ahead.fill_(info is not None)
        step, sample = (int(number) for number in self._starts[worker])
        self._starts[worker] = torch.tensor((worker, 0))
        self._next = (step, sample)
        return self._read(int(self._epoch), range(step, self.steps, workers), sample, rank, world)

    def _read(self, epoch: int, steps: range, first: int, rank: int, world: int) -> Iterator[Any]:
        """The rank's samples of these batches, of the first of them from sample `first` on."""
        owned = self._order.owned(rank=rank, world=world, worker=0, workers=1)
        reader = SampleReader(self._joined, self._table, cached_rows=len(owned) * self._order.cached_rows)
        batches = self._order.batches(epoch, owned, start=steps.start)
        for step, batch_n in zip(steps, islice(batches, 0, None, steps.step), strict=True):
            rows_n = batch_n[first:]
            for i, (row, sample) in enumerate(zip(rows_n.tolist(), reader.read(rows_n), strict=True), first + 1):
                self._next = (step, i) if i < first + len(rows_n) else (min(step + steps.step, self.steps), 0)
                fields = {**_fields(sample), "__epoch__": epoch, "__row__": row}
                yield fields if self.transform is None else self.transform(fields)
            first = 0


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def _fields(sample: TrainSample) -> Sample:
    """A sample as a dict of writable arrays; label maps are copied, since a sample's are views into cached chunks."""
    return {
        "__key__": sample.key,
        "image": np.require(sample.image, requirements="W"),
        "classes": sample.classes.copy(),
        "scores": sample.scores.copy(),
        "label": sample.label,
    }
