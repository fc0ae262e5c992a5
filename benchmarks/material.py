"""What the benchmarks of the suite read: shards, their labels and the teacher that made them, as options."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command_lines import ROOT, environment, fill, words
from pipelines.digits import teacher as digits
from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import write_shards
from store.errors import SettingsError

SCENES, SHARDS, SEED = 1024, 8, 0
PHOTOGRAPHS, WEIGHTS = "imagenet-sample-*.tar", "mobilenetv2_100_same.fp16.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Options may name folders by the variables, so that a command can be shown without this machine's paths."""

    told: str  # what it is
    shards: str
    labels: str
    teacher: str
    variables: dict[str, str]

    def options(self) -> dict[str, str]:
        """What a benchmark's arguments call them."""
        return {"SHARDS": self.shards, "LABELS": self.labels, "TEACHER": self.teacher}


def demo_material(folder: Path) -> Material:
    """Scenes as the demo draws them, fewer in more shards, and its teacher."""
    write_shards(folder, "train", SCENES, SHARDS, SEED)
    weights = digits.TEACHER_WEIGHTS.relative_to(ROOT)
    return Material(
        told=f"{SCENES:,} of the demo's scenes, 120 x 120 pixels, in {SHARDS} shards, and the demo's teacher",
        shards='--shards "$MATERIAL/digits-train-*.tar"',
        labels='--labels "$MATERIAL/demo.zarr"',
        teacher=f"--teacher {digits.TEACHER_NAME} --teacher-arg output_stride={digits.TEACHER_ARGS['output_stride']} "
        f"--checkpoint {weights} --num-classes {len(CLASS_NAMES)} --input-size {digits.INPUT_SIZE} "
        f"--mean {digits.MEAN[0]} --std {digits.STD[0]}",
        variables={"MATERIAL": str(folder)},
    )


def real_material(real: Path, folder: Path) -> Material:
    """The photographs and the teacher of docs/real_photographs.md.

    Raises:
        SettingsError: they are not in the folder.
    """
    for pattern in (PHOTOGRAPHS, WEIGHTS):
        if not list(real.glob(pattern)):
            raise SettingsError(f"{real}: no {pattern} in it; docs/real_photographs.md says what has to be there")
    return Material(
        told="the photographs of docs/real_photographs.md and its MobileNetV2 at 480 pixels",
        shards=f'--shards "$REAL/{PHOTOGRAPHS}"',
        labels='--labels "$MATERIAL/real.zarr"',
        teacher=f'--teacher mobilenetv2_100 --teacher-arg pad_type=same --checkpoint "$REAL/{WEIGHTS}" '
        "--input-size 480 --mean 0.5 --std 0.5",
        variables={"MATERIAL": str(folder), "REAL": str(real)},
    )


def annotate(material: Material) -> None:
    """Make the labels; those that are there are kept.

    Raises:
        SettingsError: it failed; why, the annotator has said.
    """
    command = fill("run $SHARDS $LABELS $TEACHER", material.options())
    line = [sys.executable, "-m", "pipelines.annotate", *words(command, material.variables)]
    if status := subprocess.run(line, cwd=ROOT, env=environment()).returncode:
        raise SettingsError(f"the material could not be annotated: exit status {status}")
