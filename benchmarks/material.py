"""Makes the data that the benchmarks of the suite read, and names it as options: shards, labels, teacher."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.listed import ROOT, environment, fill, words
from pipelines.digits import teacher as digits
from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import write_shards
from store.errors import SettingsError

SCENES, SHARDS, SEED = 1024, 8, 0
PHOTOGRAPHS, WEIGHTS = "imagenet-sample-*.tar", "mobilenetv2_100_same.fp16.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Options that name the data; folders appear as variables, so that a report does not show this machine's paths."""

    description: str
    shards: str
    labels: str
    teacher: str
    variables: dict[str, str]

    def options(self) -> dict[str, str]:
        """The options by the variables of a benchmark's command line."""
        return {"SHARDS": self.shards, "LABELS": self.labels, "TEACHER": self.teacher}


def demo_material(folder: Path) -> Material:
    """Scenes like the demo's, in more and smaller shards, and the demo's teacher."""
    write_shards(folder, "train", SCENES, SHARDS, SEED)
    weights = digits.TEACHER_WEIGHTS.relative_to(ROOT)
    return Material(
        description=f"{SCENES:,} of the demo's scenes, 120 x 120 pixels, in {SHARDS} shards, and the demo's teacher",
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
        SettingsError: the folder does not have them.
    """
    for pattern in (PHOTOGRAPHS, WEIGHTS):
        if not list(real.glob(pattern)):
            raise SettingsError(f"{real}: has no {pattern}; docs/real_photographs.md describes this folder")
    return Material(
        description="the photographs of docs/real_photographs.md and its MobileNetV2 at 480 pixels",
        shards=f'--shards "$REAL/{PHOTOGRAPHS}"',
        labels='--labels "$MATERIAL/real.zarr"',
        teacher=f'--teacher mobilenetv2_100 --teacher-arg pad_type=same --checkpoint "$REAL/{WEIGHTS}" '
        "--input-size 480 --mean 0.5 --std 0.5",
        variables={"MATERIAL": str(folder), "REAL": str(real)},
    )


def annotate(material: Material) -> None:
    """Annotate the shards; finished ones are kept.

    Raises:
        SettingsError: it failed; the annotator has printed the reason.
    """
    command = fill("run $SHARDS $LABELS $TEACHER", material.options())
    line = [sys.executable, "-m", "pipelines.annotate", *words(command, material.variables)]
    if status := subprocess.run(line, cwd=ROOT, env=environment()).returncode:
        raise SettingsError(f"the material could not be annotated: exit status {status}")
