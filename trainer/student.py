"""The student while it trains: one update at a time, and its state for a checkpoint.

Shapes: B batch, C classes, S side of an image.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.errors import RunFolderError, SettingsError
from trainer.batch import Batch, blank_batch
from trainer.checkpoint import Checkpoint, load_checkpoint
from trainer.crops import flip_images, normalise
from trainer.device import autocast, full_memory
from trainer.model import build_student
from trainer.optim import build_optimiser, build_scheduler
from trainer.overrides import settings_differences, settings_to_json
from trainer.settings import TrainSettings
from trainer.targets import LabelBatch, TargetMaker, soft_cross_entropy
from trainer.wording import brief, reason

STEP_STREAM = 3  # tells this use of the seed from the others


class Student:
    """Model, optimiser and schedule; `settings` are resolved ones.

    Raises:
        SettingsError: a model or optimiser that cannot be built, or not trained by this loop.
    """

    def __init__(self, settings: TrainSettings, *, num_classes: int, steps_per_epoch: int) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.num_classes, self.steps_per_epoch = settings, num_classes, steps_per_epoch
        self.device = torch.device(settings.device)
        self.model = build_student(settings, num_classes).to(self.device)
        self.optimiser = build_optimiser(self.model, settings)
        self.scheduler = build_scheduler(self.optimiser, settings, steps_per_epoch)
        self._mean, self._std = (torch.tensor(values, device=self.device) for values in (settings.mean, settings.std))
        self._make_targets = TargetMaker(
            kind=settings.target,
            num_classes=num_classes,
            fill=settings.fill,
            original_weight=settings.original_weight,
            label_smoothing=settings.label_smoothing,
        )
        try:
            self._rehearse()
        except Exception as error:  # each model and optimiser fails in its own way
            raise SettingsError(
                f"model={brief(settings.model)} cannot be trained with opt={brief(settings.opt)}: a first update fails "
                f"({reason(error)}); choose another model, opt or batch_size"
            ) from error

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimiser.param_groups[0]["lr"])

    @full_memory()
    def update(self, batch: Batch, updates_done: int) -> Tensor:
        """One optimiser step.

        Args:
            batch: on the student's device.
            updates_done: before this one, since the run's start.

        Returns:
            The loss, a scalar on the device; reading it waits for the device.

        Raises:
            TrainingError: the device's memory is full.
        """
        # Dropout and its like depend on the step alone, so a resumed run needs no generator's state.
        torch.manual_seed(step_seed(self.settings.seed, updates_done))
        images_B3SS = normalise(flip_images(batch.images, batch.flips), self._mean, self._std)
        targets_BC = self._make_targets(
            LabelBatch(
                classes=batch.classes,
                scores=batch.scores,
                tail=batch.tail,
                boxes=batch.boxes,
                originals=batch.originals,
            )
        )
        with autocast(self.settings):
            logits_BC = self.model(images_B3SS)
        loss = soft_cross_entropy(logits_BC, targets_BC)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.scheduler.step_update(updates_done + 1)
        return loss.detach()

    def checkpoint(self, *, epoch: int, top1: float | None, best_top1: float | None) -> Checkpoint:
        """The state after `epoch` epochs."""
        return Checkpoint(
            model=self.model.state_dict(),
            optimiser=self.optimiser.state_dict(),
            scheduler=self.scheduler.state_dict(),
            epoch=epoch,
            top1=top1,
            best_top1=best_top1,
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
            self._rehearse(checkpoint.optimiser)
            self.optimiser.load_state_dict(checkpoint.optimiser)
        except Exception as error:  # whatever odd state dicts make torch raise, now or at the next update
            raise RunFolderError(
                f"{file}: not a checkpoint of this run ({reason(error)}); restore it, or train again in another folder"
            ) from error
        return checkpoint

    def _differences(self, checkpoint: Checkpoint) -> Iterator[str]:
        """What keeps a checkpoint from being this run's, as `name: then, now`."""
        yield from settings_differences(checkpoint.settings, settings_to_json(self.settings))
        if checkpoint.num_classes != self.num_classes:
            yield f"classes: {checkpoint.num_classes} then, {self.num_classes} now"
        if checkpoint.epoch > self.settings.epochs:
            yield f"epochs: {checkpoint.epoch} done, {self.settings.epochs} wanted"
        # timm's schedules know nothing but their settings: the rate follows from the number of the update.
        yield from settings_differences(checkpoint.scheduler, self.scheduler.state_dict())

    def _rehearse(self, optimiser_state: dict[str, Any] | None = None) -> None:
        """One update of a twin, so that what cannot be trained is known before training."""
        twin = copy.copy(self)
        twin.model = copy.deepcopy(self.model)
        twin.optimiser = build_optimiser(twin.model, self.settings)
        twin.scheduler = build_scheduler(twin.optimiser, self.settings, self.steps_per_epoch)
        if optimiser_state is not None:
            twin.optimiser.load_state_dict(copy.deepcopy(optimiser_state))
        twin.update(blank_batch(self.settings).to(self.device), 0)


def step_seed(seed: int, updates_done: int) -> int:
    """The seed of torch's generators in one step."""
    return int(np.random.SeedSequence((STEP_STREAM, seed, updates_done)).generate_state(1, np.uint64)[0])
