"""How the blocks of the pages are run: substitutions that make them smaller, blocks that are not run, prerequisites."""

from dataclasses import dataclass
from typing import Literal

SMALL_RUN = " ".join(
    f"--set {setting}"
    for setting in (
        "model=test_resnet", "image_size=32", "val_size=32", "epochs=1", "warmup_epochs=0", "batch_size=16",
        "mixing_off_epochs=0", "workers=0", "device=cpu",
    )
)  # fmt: skip
SMALL_TEACHER = "test_resnet --input-size 64 --checkpoint small_teacher.safetensors"
UNTIL_DONE = "python -m tests.docs.until 'waiting; 32'"

# Regular expression and replacement, applied in this order to every block. Each must match somewhere.
SUBSTITUTIONS: tuple[tuple[str, str], ...] = (
    # Shards: few of them, in the page's folder.
    (r"\{0000\.\.1023\}", "{0000..0003}"),
    (r"\{00\.\.(49|63|09)\}", "{00..01}"),
    (r"\{0000\.\.0063\}", "{0000..0001}"),
    (r"--shard-size 1252", "--shard-size 6"),
    (r"--shard-size 782", "--shard-size 3"),
    (r"\{000\.\.009\}", "{000..001}"),
    (r"train-0012\.tar", "train-0000.tar"),
    (r"(?<![\w./])/(data|inbox)/", r"\1/"),
    (r"REAL=\.\./shared/data/real", "REAL=real"),
    (r"--cell 3,9", "--cell 0,1"),
    # Teachers: a small one with given weights.
    (r"--teacher (NAME|\.\.\.|resnet50\.a1_in1k)", f"--teacher {SMALL_TEACHER}"),
    (r"TEACHER=resnet50\.a1_in1k ", "TEACHER=test_resnet "),
    (r'"resnet50\.a1_in1k", 20, 64', '"test_resnet", 1, 8'),
    (r"pretrained=True", "pretrained=False"),
    (r"--model resnet50\.a1_in1k", "--model test_resnet"),
    (r"(?m)imagenet_names\.txt$", "imagenet_names.txt --num-classes 3"),
    (r"--teacher tf_efficientnet_l2 --input-size 475", "--teacher test_resnet --input-size 64"),
    (r" --precision bfloat16 --compile --batch-size 64", " --batch-size 4"),
    (r"--workers 14", "--workers 1"),
    (r"--input-size 480", "--input-size 96"),
    (r"--workers (8|11|12)", "--workers 0"),
    # Students: one short epoch.
    (r"(run --recipe (?!demo)(?:.*\\\n)*.*)", rf"\1 {SMALL_RUN}"),
    (r"--set epochs=30", "--set epochs=2 --set workers=1"),
    (r"(OUT=pets/run ARGS=').*'", rf"\1{SMALL_RUN}'"),
    # Processes, services and tools.
    (r"--nproc-per-node 8", "--nproc-per-node 2"),
    (r"(?m)^make ", "make -o setup -o .venv/.installed "),
    (r"(\S*relabel-store browse)", r"python -m tests.docs.until http:// \1 --port 0"),
    (r"(?m)^(relabel-annotate run --watch)", rf"{UNTIL_DONE} \1"),
    (r"s3://bucket/", "s3://BUCKET/"),
    (r"https://minio\.example\.com", "$AWS_ENDPOINT_URL"),
    (r"speed\.pooling", "speed.pooling --batch 32 --runs 2 --memory-runs 2 --step-runs 2 --step-batch 2"),
    (r"(studies\.targets) ", r"\1 --crops 4 "),
    (r"(benchmarks\.figures) ", r"\1 --scenes 8 "),
    # Loops of one's own.
    (r'"resnet50", 100, 256, 4', r'"test_resnet", 2, 32, 2'),
    (r"warmup_epochs=5", "warmup_epochs=1"),
)

Check = Literal["parsed", "planned", "extras", "words", "nothing"]


@dataclass(frozen=True, slots=True)
class NotRun:
    """A command, or a block that is none, which cannot be run here."""

    page: str
    start: str  # how the command or the block begins
    reason: str
    # What is checked all the same. parsed: our own parser understands the command; planned: `make -n` works, and what
    # it would run is parsed; extras: those it names exist; words: the output, but for its numbers.
    check: Check


NOT_RUN = (
    NotRun("README.md", "make demo", "minutes", "planned"),
    NotRun("README.md", "make test", "this is one of the tests", "planned"),
    NotRun("docs/getting_started.md", "make setup", "a download", "planned"),
    NotRun("docs/getting_started.md", "first/run/best.pt:", "counts differ from CPU to CPU", "words"),
    NotRun("docs/index.md", "make demo", "minutes", "planned"),
    NotRun(
        "docs/results.md", "make reproduce", "most of an hour; tests/pipelines/reproduce/test_students.py", "planned"
    ),
    NotRun("docs/benchmarks.md", "make bench", "minutes; tests/benchmarks/test_suite.py", "planned"),
    NotRun("docs/benchmarks.md", "make bench-report", "half an hour", "planned"),
    NotRun("docs/benchmarks.md", "make bench-gpu", "a GPU", "planned"),
    NotRun("docs/scale.md", "python -m benchmarks.scale", "an hour; tests/benchmarks/test_scale.py", "parsed"),
    NotRun("docs/format.md", "labels.zarr/", "a layout; tests/store/format/test_golden.py", "nothing"),
    NotRun("docs/format.md", "s3://bucket/", "a layout; tests/store/format/test_golden.py", "nothing"),
    NotRun("docs/howto/cluster.md", "pip install", "a download", "extras"),
    NotRun("docs/howto/cluster.md", "ray start", "a cluster; tests/annotator/run/test_ray_cluster.py", "nothing"),
    NotRun("docs/howto/cluster.md", "relabel-annotate run --ray", "a cluster of 16 GPUs", "parsed"),
    NotRun("docs/howto/own_data.md", "pets/images/train/cat/a.jpg", "a layout", "nothing"),
    NotRun("docs/howto/own_loop.md", "import os\n\nimport lightning", "Lightning; tests/docs/test_loops.py", "nothing"),
    NotRun("docs/howto/own_loop.md", "import accelerate", "accelerate; tests/docs/test_loops.py", "nothing"),
    NotRun(
        "docs/howto/own_loop.md",
        "import timm\nimport torch\nimport transformers",
        "transformers; tests/docs/test_loops.py",
        "nothing",
    ),
    NotRun("docs/howto/timm_loop.md", "python train.py", "tests/trainer/data/test_timm_dataset.py", "nothing"),
    NotRun("docs/pooling.md", "python -m benchmarks.speed.pooling --device cuda", "a GPU", "parsed"),
    NotRun("docs/real_photographs.md", "cell y 3, x 9", "figures of the real photographs", "nothing"),
    NotRun("docs/evaluate.md", "mobilenetv2_100_same", "figures of the real photographs", "words"),
    NotRun("docs/published_maps.md", "axes: xy (more than", "three outcomes, two on real data", "nothing"),
)

# What a page takes for granted besides image shards. In the quick test, in which commands that load torch are only
# parsed, also what those would have made.
GIVEN: dict[str, tuple[str, ...]] = {
    "docs/api.md": ("labels of train",),
    "docs/audit.md": ("labels of imagenet1k-train",),
    "docs/evaluate.md": ("student", "evaluated"),
    "docs/explanation.md": ("demo", "real"),
    "docs/howto/imagenet.md": ("ImageNet's tars",),
    "docs/howto/own_data.md": ("folders",),
    "docs/howto/own_loop.md": ("labels of train",),
    "docs/howto/timm_loop.md": ("labels of train",),
    "docs/howto/train.md": ("labels of train",),
    "docs/pooling.md": ("real", "labels of real"),
    "docs/published_maps.md": ("published",),
    "docs/real_photographs.md": ("real",),
    "docs/see.md": ("labels of imagenet1k-train", "demo"),
    "docs/store.md": ("labels of imagenet1k-train",),
}
GIVEN_QUICK: dict[str, tuple[str, ...]] = {
    "README.md": ("labels of imagenet1k-train",),
    "docs/evaluate.md": ("exported",),
    "docs/real_photographs.md": ("labels of real",),
    "docs/howto/s3.md": ("labels of train", "labels in the bucket"),
    "docs/store.md": ("labels in the bucket",),
}
