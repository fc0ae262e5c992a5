"""The student while it trains: one update at a time, and its state for a checkpoint.

Shapes: B batch, C classes, S side of an image.
"""

import numpy as np
import torch
from torch import Tensor

from store.errors import RunFolderError
from trainer.checkpoint import Checkpoint
from trainer.crops import flip_images, normalise
from trainer.device import autocast
from trainer.model import build_student
from trainer.optim import build_optimiser, build_scheduler
from trainer.overrides import settings_to_json
from trainer.settings import TrainSettings
from trainer.source import Batch
from trainer.targets import LabelBatch, TargetMaker, soft_cross_entropy

STEP_STREAM = 3  # tells this use of the seed from the others


class Student:
    """Model, optimiser and schedule; `settings` are resolved ones."""

    def __init__(self, settings: TrainSettings, *, num_classes: int, steps_per_epoch: int) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.num_classes = settings, num_classes
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

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimiser.param_groups[0]["lr"])

    def update(self, batch: Batch, updates_done: int) -> Tensor:
        """One optimiser step.

        Args:
            batch: on the student's device.
            updates_done: before this one, since the run's start.

        Returns:
            The loss, a scalar on the device; reading it waits for the device.
        """
        # Dropout and its like depend on the step alone, so a resumed run needs no generator's state.
        torch.manual_seed(step_seed(self.settings.seed, updates_done))
        images_B3SS = normalise(flip_images(batch.images, batch.flips), self._mean, self._std)
        targets_BC = self._make_targets(
            LabelBatch(
                classes=batch.classes, scores=batch.scores, tail=batch.tail, boxes=batch.boxes, labels=batch.labels
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

    def checkpoint(self, *, epoch: int, samples_seen: int, top1: float | None, best_top1: float | None) -> Checkpoint:
        """The state after `epoch` epochs."""
        return Checkpoint(
            model=self.model.state_dict(),
            optimiser=self.optimiser.state_dict(),
            scheduler=self.scheduler.state_dict(),
            epoch=epoch,
            samples_seen=samples_seen,
            top1=top1,
            best_top1=best_top1,
            num_classes=self.num_classes,
            settings=settings_to_json(self.settings),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            RunFolderError: its tensors are not this student's.
        """
        try:
            self.model.load_state_dict(checkpoint.model)
            self.optimiser.load_state_dict(checkpoint.optimiser)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise RunFolderError(f"the checkpoint does not fit {self.settings.model!r}: {reason}") from error
        self.scheduler.load_state_dict(checkpoint.scheduler)


def step_seed(seed: int, updates_done: int) -> int:
    """The seed of torch's generators in one step."""
    return int(np.random.SeedSequence((STEP_STREAM, seed, updates_done)).generate_state(1, np.uint64)[0])
