"""The student while it trains: one update at a time, and its state for a checkpoint.

Shapes: B batch of this rank, C classes, S side of an image.
"""

import copy
import hashlib
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
from trainer.student.device import autocast, compilation, full_memory
from trainer.student.model import build_student
from trainer.student.optim import build_average, build_optimiser, build_scheduler, check_schedule
from trainer.targets.custom import CustomTargets, checked_targets, settings_targets
from trainer.targets.targets import soft_cross_entropy

STEP_STREAM = 3  # tells this use of the seed from the others


class Student:
    """Model, optimiser, schedule and moving average; `settings` are resolved ones.

    Args:
        settings: of the run.
        num_classes: of the targets.
        steps_per_epoch: of the whole run, not of one rank.
        ranks: that train together; alone if None.
        own_targets: in place of the settings' kind of target.

    Raises:
        SettingsError: a model or optimiser that cannot be built, or not trained by this loop.
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
        torch.manual_seed(settings.seed)
        self.settings, self.num_classes, self.steps_per_epoch = settings, num_classes, steps_per_epoch
        self.ranks = ranks or Ranks()
        self.device = torch.device(settings.device)
        share = settings.batch_size // self.ranks.world
        if share % settings.accumulate:
            raise SettingsError(
                f"accumulate={settings.accumulate}: the {share} images of a batch that each rank has do not fall "
                "into so many equal parts; choose a divisor"
            )
        check_schedule(settings, steps_per_epoch)
        # Images come with their channels last in memory, and convolutions are fastest so.
        self.model = build_student(settings, num_classes).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
        try:
            self._rehearse()
        except SettingsError:  # it says itself what cannot be
            raise
        except Exception as error:  # each model and optimiser fails in its own way
            raise SettingsError(
                f"model={brief(settings.model)} cannot be trained with opt={brief(settings.opt)}: a first update fails "
                f"({first_line(error)}); choose another model, opt or batch_size"
            ) from error
        self._network = self._compiled(self.model)

    def join(self) -> None:
        """Make updates those of all ranks together; every rank has to have built its student before."""
        if self.ranks.world > 1:
            self._synchronised = DistributedDataParallel(self.model)
            self._network = self._compiled(self._synchronised)

    def _compiled(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        return torch.compile(network) if self.settings.compiled else network

    def digest(self) -> str:
        """Hex sha256 of the weights, by which the ranks compare theirs."""
        found = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            found.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def is_finite(self) -> bool:
        """Whether all weights and statistics are numbers, also the average's; waits for the device once."""
        states = [self.model.state_dict(), {} if self.ema is None else self.ema.module.state_dict()]
        numbers = [tensor for state in states for tensor in state.values() if tensor.is_floating_point()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in numbers]).all())

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimiser.param_groups[0]["lr"])

    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts: the moving average where there is one, made alike on all ranks."""
        network: nn.Module = self.model if self.ema is None else self.ema.module
        if self.ranks.world > 1:
            for buffer in network.buffers():  # each rank has statistics of its own batches; the first one's are saved
                dist.broadcast(buffer, 0)
        return network

    @full_memory()
    @compilation()
    def update(self, batch: Batch, updates_done: int) -> Tensor:
        """One optimiser step.

        Args:
            batch: this rank's part of it, on the student's device.
            updates_done: before this one, since the run's start.

        Returns:
            The mean loss of this rank, a scalar on the device; reading it waits for the device.

        Raises:
            TrainingError: the device's memory is full.
            SettingsError: torch.compile cannot do it.
        """
        # Dropout and its like depend on step and rank alone, so a resumed run needs no generator's state.
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
        """Gradients of the mean loss, computed part by part; they go over the ranks with the last one."""
        size = -(-len(images_B3SS) // self.settings.accumulate)
        parts = list(zip(torch.split(images_B3SS, size), torch.split(targets_BC, size), strict=True))
        total = torch.zeros((), device=self.device)
        for i, (images, targets) in enumerate(parts):
            waits = self._synchronised is not None and i + 1 < len(parts)
            with self._synchronised.no_sync() if waits else nullcontext():  # type: ignore[union-attr]
                with autocast(self.settings):
                    logits = self._network(images)
                loss = soft_cross_entropy(logits, targets) * (len(images) / len(images_B3SS))
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def checkpoint(self, train_state: TrainState) -> Checkpoint:
        """The state at a position."""
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
        """Go on from a checkpoint, which is returned.

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
            self._rehearse(checkpoint.optimiser)
            self.optimiser.load_state_dict(checkpoint.optimiser)
        except Exception as error:  # whatever odd state dicts make torch raise, now or at the next update
            raise RunFolderError(
                f"{file}: not a checkpoint of this run ({first_line(error)}); "
                "restore it, or train again in another folder"
            ) from error
        return checkpoint

    def _differences(self, checkpoint: Checkpoint) -> Iterator[str]:
        """What keeps a checkpoint from being this run's, as `name: then, now`."""
        settings, size = self.settings, self.settings.batch_size
        yield from settings_differences(checkpoint.settings, settings_to_json(settings))
        if checkpoint.num_classes != self.num_classes:
            yield f"classes: {checkpoint.num_classes} then, {self.num_classes} now"
        if checkpoint.epoch > settings.epochs:
            yield f"epochs: {checkpoint.epoch} done, {settings.epochs} wanted"
        if checkpoint.samples_seen % size or checkpoint.samples_seen > self.steps_per_epoch * size:
            yield f"samples seen: {checkpoint.samples_seen}, not a number of whole batches of {size} in an epoch"
        if (checkpoint.ema is None) != (self.ema is None):
            yield "moving average: there is none where the settings have one, or the other way round"
        # timm's schedules know nothing but their settings: the rate follows from the number of the update.
        yield from settings_differences(checkpoint.scheduler, self.scheduler.state_dict())

    def _rehearse(self, optimiser_state: dict[str, Any] | None = None) -> None:
        """One update of a twin that is alone, so that what cannot be trained is known before training."""
        twin = copy.copy(self)
        twin.ranks, twin._synchronised, twin.ema = Ranks(), None, None
        twin.model = twin._network = copy.deepcopy(self.model)
        twin.optimiser = build_optimiser(twin.model, self.settings)
        twin.scheduler = build_scheduler(twin.optimiser, self.settings, self.steps_per_epoch)
        if optimiser_state is not None:
            twin.optimiser.load_state_dict(copy.deepcopy(optimiser_state))
        accumulate = self.settings.accumulate
        part = self.settings.batch_size // (self.ranks.world * accumulate)
        twin.update(blank_batch(self.settings, max(1, min(part, 2)) * accumulate).to(self.device), 0)
        unused = [
            name for name, weights in twin.model.named_parameters() if weights.requires_grad and weights.grad is None
        ]
        if unused and self.ranks.world > 1:
            raise ValueError(f"several ranks need a gradient for every weight, and {unused[0]} gets none")


def step_seed(seed: int, updates_done: int, rank: int) -> int:
    """The seed of torch's generators on one rank in one step."""
    return int(np.random.SeedSequence((STEP_STREAM, seed, updates_done, rank)).generate_state(1, np.uint64)[0])
