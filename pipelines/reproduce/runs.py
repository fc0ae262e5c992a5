"""Training and scoring one student."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import SceneTruth
from pipelines.digits.student import one_thread, train_to_end
from pipelines.reproduce.arms import Arm
from pipelines.reproduce.distil import distilled_targets
from pipelines.reproduce.material import Material
from pipelines.reproduce.metrics import Scores, measure
from store.errors import RunFolderError
from trainer.checkpoint import step_checkpoints
from trainer.evaluate import load_student, open_val, predict
from trainer.files import read_whole, write_atomically
from trainer.loading import worker_deaths
from trainer.overrides import settings_differences, settings_to_json
from trainer.own_targets import OwnTargets
from trainer.report import EpochReport, StepReport

RESULT = "result.json"


class Silent:
    """A reporter for one of several students at a time, whose steps would be told in a jumble."""

    def step(self, report: StepReport) -> None:
        """Say nothing."""

    def epoch(self, report: EpochReport) -> None:
        """Say nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One student."""

    arm: str
    seed: int
    scores: Scores


def run_one(arm: Arm, seed: int, material: Material, folder: Path) -> Scores:
    """Train a student, or go on with it, score it, and leave the scores in its folder.

    Raises:
        RelabelError: of `train_to_end`.
    """
    _train(arm, seed, material, folder)
    with one_thread():
        scores = _score(folder, material)
    record = {"settings": settings_to_json(arm.settings(seed)), "scores": asdict(scores)}
    write_atomically(folder / RESULT, lambda file: file.write(json.dumps(record, indent=1).encode()))
    return scores


def _train(arm: Arm, seed: int, material: Material, folder: Path) -> None:
    train_to_end(
        arm.settings(seed),
        shards=material.training,
        labels=material.labels,
        val_shards=(),  # no epoch is chosen by its accuracy
        out=folder,
        reporter=Silent(),
        own_targets=own_targets(arm),
    )


def own_targets(arm: Arm) -> OwnTargets | None:
    """What an arm is trained on if the trainer does not know it."""
    return distilled_targets() if arm.distils else None


@worker_deaths()
def _score(folder: Path, material: Material) -> Scores:
    """Of the last epoch's student on the test scenes."""
    model, settings = load_student(step_checkpoints(folder)[-1])
    predictions = list(predict(model, open_val(material.test, len(CLASS_NAMES)), settings))
    keys = [key for prediction in predictions for key in prediction.keys]
    return measure(
        torch.cat([prediction.logits for prediction in predictions]).numpy(),
        torch.cat([prediction.originals for prediction in predictions]).numpy(),
        present(material.truths, keys),
    )


def present(truths: Iterable[SceneTruth], keys: list[str]) -> NDArray[np.bool_]:
    """(N, C) which digits are in which of the scenes."""
    by_key = {truth.key: truth for truth in truths}
    present_NC = np.zeros((len(keys), len(CLASS_NAMES)), np.bool_)
    for n, key in enumerate(keys):
        present_NC[n, list(by_key[key].labels)] = True
    return present_NC


def read_result(folder: Path, arm: Arm, seed: int) -> Result | None:
    """What `run_one` left; None if it has not been there.

    Raises:
        RunFolderError: a damaged result, or one of other settings.
    """
    file = folder / RESULT
    if not os.path.lexists(file):
        return None
    try:
        record = json.loads(read_whole(file))
        settings, scores = dict(record["settings"]), Scores(**record["scores"])
        if not all(0 <= value <= 1 for value in asdict(scores).values()):
            raise ValueError("a score that is none")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(f"{file}: damaged; delete it, and it is made again") from error
    if differences := list(settings_differences(settings, settings_to_json(arm.settings(seed)))):
        raise RunFolderError(f"{file}: of other settings ({'; '.join(differences)}); choose another folder")
    return Result(arm=arm.name, seed=seed, scores=scores)
