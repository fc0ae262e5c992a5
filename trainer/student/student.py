"""The student in training: performs one update at a time, saves and restores its state.

Shapes: B batch of this rank, C classes, S side of an image.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from store.errors import RunFolderError, SettingsError
from store.text import brief, first_line
from trainer.augment.augment import Augment
from trainer.batch import Batch, blank_batch
from trainer.distributed import Ranks
from trainer.settings import TrainSettings, settings_differences, settings_to_json
from trainer.student.checkpoint import Checkpoint, TrainState, load_checkpoint
from trainer.student.device import autocast, compilation, full_memory, memory_format
from trainer.student.model import build_student, check_images, synchronise_norms
from trainer.student.optim import build_average, build_optimiser, build_scheduler, check_rates
from trainer.targets.custom import CustomTargets, checked_targets, settings_targets
from trainer.targets.targets import soft_cross_entropy

STEP_STREAM = 3  # separates the random numbers of updates from those of order and crops


class Student:
    """Model, optimiser, schedule and moving average.

    The initial weights come from torch's global generator: seed it before.

    Args:
        settings: of the run, resolved (`resolve_device`).
        num_classes: of the targets.
        steps_per_epoch: of the whole run, not of one rank.
        ranks: that train together; a single process if None.
        custom_targets: in place of the settings' kind of target.

    Raises:
        SettingsError: a model, optimiser or schedule that cannot be built, or fails in a rehearsal on a copy.
    """

    def __init__(
        self,
        settings: TrainSettings,
        *,
        num_classes: int,
        steps_per_epoch: int,
        ranks: Ranks | None = None,
        custom_targets: CustomTargets | None = None,
    ) -> None:
        self.settings, self.num_classes, self.steps_per_epoch = settings, num_classes, steps_per_epoch
        self.ranks = ranks or Ranks()
        self.device = torch.device(settings.device)
        self._memory_format = memory_format(settings)
        _check_topology(settings, self.ranks)
        self.model = build_student(settings, num_classes).to(self.device, memory_format=self._memory_format)  # type: ignore[call-overload]
        self.optimiser = build_optimiser(self.model, settings)
        self.scheduler = build_scheduler(self.optimiser, settings, steps_per_epoch)
        self.ema = build_average(self.model, settings)
        self._augment = Augment(settings, self.device)
        self._make_targets = (
            settings_targets(settings, num_classes)
            if custom_targets is None
            else checked_targets(custom_targets, num_classes)
        )
        self._synchronised: DistributedDataParallel | None = None
        self._network: Callable[[Tensor], Tensor] = self.model
        self._rehearse()
        self._network = self._compiled(self.model)

    def join(self) -> None:
        """Average gradients over all ranks from now on, and statistics of norms by the settings.

        Call it once every rank has built its student.
        """
        if self.ranks.world > 1:
            if self.settings.sync_norms:
                self.model = synchronise_norms(self.model)
            self._synchronised = DistributedDataParallel(self.model)
            self._network = self._compiled(self._synchronised)

    def _compiled(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        return torch.compile(network) if self.settings.compiled else network

    def digest(self) -> str:
        """Hex sha256 of the weights, to compare those of the ranks."""
        found = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            found.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def is_finite(self) -> bool:
        """Whether all weights and statistics, also the average's, are finite; waits for the device once."""
        states = [self.model.state_dict(), {} if self.ema is None else self.ema.module.state_dict()]
        numbers = [tensor for state in states for tensor in state.values() if tensor.is_floating_point()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in numbers]).all())

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimiser.param_groups[0]["lr"])

    def evaluated(self) -> nn.Module:
        """The network to evaluate: the moving average if there is one, with buffers equal on all ranks."""
        network: nn.Module = self.model if self.ema is None else self.ema.module
        if self.ranks.world > 1:
            for buffer in network.buffers():  # ranks have statistics of their own batches; rank 0's are saved
                dist.broadcast(buffer, 0)
        return network

    @full_memory()
    @compilation()
    def update(self, batch: Batch, updates_done: int) -> Tensor:
        """Perform one optimiser step; reseeds torch's global generator.

        Args:
            batch: this rank's part, on the student's device.
            updates_done: before this one, since the run's start.

        Returns:
            The mean loss of this rank, a float32 scalar on the device; reading it waits for the device.

        Raises:
            TrainingError: the device's memory is full.
            SettingsError: torch.compile fails, or custom targets do.
        """
        # Dropout depends on step and rank only, so that a resumed run needs no state of a generator.
        seed = step_seed(self.settings.seed, updates_done, self.ranks.rank)
        torch.manual_seed(seed)
        targets_BC = self._make_targets(batch)
        images_B3SS, targets_BC = self._augment(
            batch.images,
            batch.flips,
            targets_BC,
            rng=np.random.default_rng(seed),
            mixes=updates_done < (self.settings.epochs - self.settings.mixing_off_epochs) * self.steps_per_epoch,
        )
        images_B3SS = images_B3SS.contiguous(memory_format=self._memory_format)
        self.optimiser.zero_grad()
        loss = self._gradients(images_B3SS, targets_BC)
        if self.settings.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad)
        self.optimiser.step()
        self.scheduler.step_update(updates_done + 1)
        if self.ema is not None:
            self.ema.update(self.model, updates_done + 1)
        return loss

    def _gradients(self, images_B3SS: Tensor, targets_BC: Tensor) -> Tensor:
        """Compute gradients of the mean loss part by part; the last part's backward averages them over the ranks."""
        size = -(-len(images_B3SS) // self.settings.accumulate)
        parts = list(zip(torch.split(images_B3SS, size), torch.split(targets_BC, size), strict=True))
        total = torch.zeros((), device=self.device)
        for i, (images, targets) in enumerate(parts):
            is_local = self._synchronised is not None and i + 1 < len(parts)
            with self._synchronised.no_sync() if is_local else nullcontext():  # type: ignore[union-attr]
                with autocast(self.settings):
                    logits = self._network(images)
                loss = soft_cross_entropy(logits, targets) * (len(images) / len(images_B3SS))
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def checkpoint(self, train_state: TrainState) -> Checkpoint:
        """The state to save."""
        return Checkpoint(
            model=self.model.state_dict(),
            ema=None if self.ema is None else self.ema.module.state_dict(),
            optimiser=self.optimiser.state_dict(),
            scheduler=self.scheduler.state_dict(),
            epoch=train_state.epoch,
            samples_seen=train_state.step * self.settings.batch_size,
            loss_sum=train_state.loss_sum,
            top1=train_state.top1,
            best_top1=train_state.best_top1,
            num_classes=self.num_classes,
            settings=settings_to_json(self.settings),
        )

    def restore(self, file: Path) -> Checkpoint:
        """Load a checkpoint into this student and return it.

        Raises:
            RunFolderError: it cannot be read, or is not of this run.
        """
        checkpoint = load_checkpoint(file)
        try:
            if differences := list(self._differences(checkpoint)):
                raise ValueError("; ".join(differences))
            self.model.load_state_dict(checkpoint.model)
            if self.ema is not None and checkpoint.ema is not None:
                self.ema.module.load_state_dict(checkpoint.ema)
            updated = self._copy(checkpoint.optimiser)
            updated.model.eval()  # norms then wait for no other rank, where this file may be sound
            self._update_blank(updated)
            if not (self.is_finite() and updated.is_finite()):
                raise ValueError("its weights or the optimiser's state are not finite")
            self.optimiser.load_state_dict(checkpoint.optimiser)
        except Exception as error:  # torch raises exceptions of any type for odd state dicts, also at the next update
            raise RunFolderError(
                f"{file}: not a checkpoint of this run ({first_line(error)}); "
                "restore it, or train again in another folder"
            ) from error
        return checkpoint

    def _differences(self, checkpoint: Checkpoint) -> Iterator[str]:
        """Yield the differences between a checkpoint's run and this one, as `name: then, now`."""
        settings, size = self.settings, self.settings.batch_size
        yield from settings_differences(checkpoint.settings, settings_to_json(settings))
        if checkpoint.num_classes != self.num_classes:
            yield f"classes: {checkpoint.num_classes} then, {self.num_classes} now"
        if checkpoint.epoch > settings.epochs:
            yield f"epochs: {checkpoint.epoch} done, {settings.epochs} wanted"
        if checkpoint.samples_seen % size or checkpoint.samples_seen > self.steps_per_epoch * size:
            yield f"samples seen: {checkpoint.samples_seen}, not a number of whole batches of {size} in an epoch"
        if (checkpoint.ema is None) != (self.ema is None):
            yield "moving average: there is none though the settings have one, or the other way round"
        # The state of timm's schedules is only their settings: the rate follows from the number of the update.
        yield from settings_differences(checkpoint.scheduler, self.scheduler.state_dict())

    def _rehearse(self) -> None:
        """Run on a copy: the schedule of the whole run, an image of each size, one update.

        Raises:
            SettingsError: one of them fails.
        """
        student = self._copy()
        check_rates(student.optimiser, student.scheduler, self.settings, self.steps_per_epoch)
        check_images(student.model, self.settings, self.num_classes)
        student.model.train()
        try:
            self._update_blank(student)
        except SettingsError:
            raise
        except Exception as error:  # models and optimisers fail with exceptions of any type
            raise SettingsError(
                f"model={brief(self.settings.model)} cannot be trained with opt={brief(self.settings.opt)}: "
                f"a first update fails ({first_line(error)}); choose another model, opt or batch_size"
            ) from error

    def _copy(self, optimiser_state: dict[str, Any] | None = None) -> "Student":
        """A copy without other ranks and moving average, and with the optimiser's initial state or a given one."""
        student = copy.copy(self)
        student.ranks, student._synchronised, student.ema = Ranks(), None, None
        student.model = student._network = copy.deepcopy(self.model)
        student.optimiser = build_optimiser(student.model, self.settings)
        student.scheduler = build_scheduler(student.optimiser, self.settings, self.steps_per_epoch)
        if optimiser_state is not None:
            student.optimiser.load_state_dict(copy.deepcopy(optimiser_state))
        return student

    def _update_blank(self, student: "Student") -> None:
        """Update a copy once with a small blank batch, without a trace in torch's generators.

        Raises:
            ValueError: a weight gets no gradient, which several ranks cannot do with.
        """
        world, multiple = self.ranks.world, math.lcm(self.settings.accumulate, self.settings.crops_per_image)
        part = self.settings.batch_size // (world * multiple)
        batch = blank_batch(self.settings, max(1, min(part, 2)) * multiple).to(self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            student.update(batch, 0)
        parameters = student.model.named_parameters()
        unused = [name for name, weights in parameters if weights.requires_grad and weights.grad is None]
        if unused and world > 1:
            raise ValueError(f"several ranks need a gradient for every weight, and {unused[0]} gets none")


def _check_topology(settings: TrainSettings, ranks: Ranks) -> None:
    """Raise SettingsError unless these ranks can divide a batch and synchronise norms as the settings say."""
    rank_batch = settings.batch_size // ranks.world
    if rank_batch % settings.accumulate:
        raise SettingsError(
            f"accumulate={settings.accumulate}: each rank's {rank_batch} images of a batch cannot be divided into "
            "so many equal parts; choose a divisor"
        )
    if settings.sync_norms and settings.device == "cpu":
        raise SettingsError("sync_norms=true: torch's SyncBatchNorm works on GPUs only; set sync_norms=false on a CPU")


def step_seed(seed: int, updates_done: int, rank: int) -> int:
    """The seed of torch's generators for one update on one rank, a 64-bit number."""
    return int(np.random.SeedSequence((STEP_STREAM, seed, updates_done, rank)).generate_state(1, np.uint64)[0])
