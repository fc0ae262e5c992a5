"""Custom models as teachers."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from annotator.settings import TeacherSettings
from annotator.teacher.build import is_custom_name, make_current_folder_importable
from annotator.teacher.selftest import check_teacher
from annotator.teacher.teacher import Teacher
from store.errors import TeacherError
from store.reader import LabelStore
from tests.builders.paths import DOCS
from tests.builders.stores import make_members, write_tar
from tests.builders.teachers import run_annotator

PAGE = DOCS / "teachers.md"
MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=7, depth=8):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, depth, 16, 16)
        self.top = nn.Linear(depth, classes)

    def features(self, images):
        return self.body(images).relu()

    def head(self, cells):
        return self.top(cells)

class Whole(Net):
    pretrained_cfg = {
        "input_size": (3, 64, 96), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"
    }

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))

class Squared(Whole):
    def head(self, cells):
        return self.top(cells) ** 2

class ClassToken(Whole):
    def __init__(self):
        super().__init__()
        self.token = nn.Linear(8, 7)

    def forward(self, images):
        return self.token(self.features(images).mean((2, 3)))

class Softmax(Whole):
    def head(self, cells):
        return self.top(cells).softmax(-1)

class Turned(Whole):
    def features(self, images):
        return super().features(images).transpose(2, 3)

class Neighbours(Whole):
    def head(self, cells):
        return self.top(cells - cells.mean(0))

class Flat(Whole):
    def features(self, images):
        return super().features(images).flatten(2)

def broken():
    raise RuntimeError("no weights\\nhere")

def number():
    return 3

def leaves():
    raise SystemExit(0)

class Moody(Whole):
    def features(self, images):
        return nn.functional.dropout(super().features(images), training=True)

class Picky(Whole):
    def features(self, images):
        assert len(images) < 4, "too many"
        return super().features(images)

class Tuples(Whole):
    def forward(self, images):
        return super().forward(images), None

class Untrained(Whole):
    def train(self, mode):
        raise TypeError("not here")

class Leaving(Whole):
    def features(self, images):
        raise SystemExit(0)

class Later(Whole):
    how = ""  # it behaves in the self-test alone, in which batches have at most three images

    def features(self, images):
        found = super().features(images)
        if len(images) < 4:
            return found
        if self.how == "one cell":
            return found.mean((2, 3), keepdim=True)
        if self.how == "more":
            return torch.cat([found[:1], found])
        if self.how == "leaves":
            raise SystemExit(0)
        return found

    def head(self, cells):
        logits = super().head(cells)
        late = len(cells) > 3 * 24
        if late and self.how == "fewer classes":
            return logits[:, :3]
        return logits.long() if late and self.how == "integers" else logits

def later(how):
    network = Later()
    network.how = how
    return network

class Counts(Whole):
    def head(self, cells):
        return super().head(cells).long()

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = [Whole()]

    def features(self, images):
        return self.nets[0].features(images)

    def head(self, cells):
        return self.nets[0].head(cells)

class Lengths(Whole):
    pretrained_cfg = Whole.pretrained_cfg | {"mean": (0.5, 0.5)}

class Resampling(Whole):
    pretrained_cfg = Whole.pretrained_cfg | {"interpolation": "random"}
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, of a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["elsewhere"])
    make_current_folder_importable()
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    return name


def build(name: str, **settings: object) -> Teacher:
    return Teacher(TeacherSettings(name=name, device="cpu", **settings))  # type: ignore[arg-type]


def test_module_with_two_methods_annotates(tmp_path: Path, module: str) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(3))
    teacher = build(f"{module}:Net", args={"classes": 9}, input_size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert run_annotator([shard], tmp_path / "labels.zarr", teacher).images == 3
    store = LabelStore.open(tmp_path / "labels.zarr")
    assert (store.schema.num_classes, store.schema.map_size) == (9, (4, 4))
    assert store.schema.teacher.architecture == f"{module}:Net"
    assert store.group("a").commit.provenance["head"].startswith("head not compared")


def test_module_is_compared_with_its_own_forward_where_it_has_one(module: str) -> None:
    teacher = build(f"{module}:Whole")
    assert (teacher.preprocessing.input_size, teacher.preprocessing.interpolation) == ((64, 96), "bilinear")
    found = check_teacher(teacher)
    assert (found.map_size, found.linear) == ((4, 6), True)
    squared = check_teacher(build(f"{module}:Squared"))
    assert not squared.linear
    assert squared.correlation is not None


def test_cells_that_predict_something_else_than_the_network_are_refused_unless_allowed(module: str) -> None:
    with pytest.raises(TeacherError, match=r"its cells disagree with its forward: their mean correlates -?0\.\d+ with"):
        check_teacher(build(f"{module}:ClassToken"))
    found = check_teacher(build(f"{module}:ClassToken", allow_disagreement=True))
    assert found.disagrees
    assert found.correlation is not None
    assert found.correlation < 0.8
    assert not check_teacher(build(f"{module}:Whole")).disagrees


def test_edited_code_is_another_teacher(tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        package = tmp_path / f"{name}_{tmp_path.name}"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "own.py").write_text(MODULE)
        (package / "make.py").write_text(f"from {package.name}.own import Whole\ndef teacher():\n    return Whole()\n")
        for edited in ("", "own.py", "make.py"):
            if edited:
                with (package / edited).open("a") as file:
                    file.write("# edited\n")
                for imported in [loaded for loaded in sys.modules if loaded.startswith(package.name)]:
                    del sys.modules[imported]
            found.append(build(f"{package.name}.make:teacher").identity)
    own = {name.rpartition(".")[2] for identity in found for name in identity.arguments}
    assert own == {"make", "own", "num_classes"}
    assert len({identity.digest for identity in found}) == 6


def test_checkpoint_replaces_the_weights(tmp_path: Path, module: str) -> None:
    before = build(f"{module}:Whole")
    state = {name: (tensor + 1).contiguous() for name, tensor in before.network.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    after = build(f"{module}:Whole", checkpoint=tmp_path / "w.safetensors")
    torch.testing.assert_close(after.network.get_parameter("top.bias"), state["top.bias"])
    assert after.identity.digest != before.identity.digest
    save_file({"top.bias": torch.zeros(7)}, tmp_path / "w.safetensors")
    with pytest.raises(TeacherError, match=r"w\.safetensors: does not fit the teacher: it misses 'body\.bias'"):
        build(f"{module}:Whole", checkpoint=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        ("Net", {}, "does not define its preprocessing; pass --input-size, --mean, --std"),
        ("nothing", {}, "has no function nothing"),
        ("MODULE:x", {}, "timm knows no such model"),
        ("broken", {}, "cannot be built with no arguments: RuntimeError: no weights$"),
        ("number", {}, "returns int, expected a torch.nn.Module with the methods features"),
        ("leaves", {}, "cannot be built with no arguments: SystemExit"),
        ("Moody", {}, "its features of the same image differ from one time to the next"),
        ("Tuples", {}, r"its forward gives no tensor of \(B, 7\) logits"),
        ("Counts", {}, r"its head gives torch.int64 of the shape \(1, 7\) for 1 cells|its head gives torch.int64"),
        ("Untrained", {}, "cannot be put into evaluation mode: TypeError"),
        ("Leaving", {}, "fails in its self-test: SystemExit|does not run at .* pixels: SystemExit"),
        ("Hidden", {}, "has no registered parameters or buffers"),
        ("Lengths", {}, r"its pretrained_cfg has mean=\(0.5, 0.5\), expected three numbers"),
        ("Resampling", {}, "interpolation 'random' is not one of Pillow's"),
        ("Whole", {"args": {"size": 3}}, "cannot be built with {'size': 3}: TypeError"),
        ("Whole", {"num_classes": 8}, "has 7 classes, not the 8 of --num-classes"),
        ("Turned", {"input_size": (64, 64)}, "its cells are not ordered as the image is"),
        ("Neighbours", {}, "a cell of the map differs from the same cell alone"),
        ("Flat", {}, "does not run at|not of the shape"),
    ],
)
def test_modules_that_cannot_be_teachers_are_named(
    module: str, function: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(TeacherError, match=message):
        check_teacher(build(f"{module}:{function}", **settings))


def test_example_of_the_docs_is_a_teacher_with_a_linear_head(tmp_path: Path) -> None:
    name = f"example_{tmp_path.name}"
    example = PAGE.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / f"{name}.py").write_text(example)
    teacher = build(f"{name}:make", args={"seed": 3})
    found = check_teacher(teacher)
    assert (found.map_size, found.linear, teacher.num_classes) == ((7, 7), True, 1000)


def test_module_that_fails_on_a_larger_batch_is_named(tmp_path: Path, module: str) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(5))
    with pytest.raises(TeacherError, match="fails on a batch of 5 images: AssertionError: too many"):
        run_annotator([shard], tmp_path / "labels.zarr", build(f"{module}:Picky"), batch_size=5)
    assert LabelStore.open(tmp_path / "labels.zarr").names() == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("one cell", r"gives 5 maps of \(1, 1\) cells for 5 images; in its self-test a map had \(4, 6\)"),
        ("more", "gives 6 maps of"),
        ("fewer classes", r"its head gives torch.float32 of the shape \(120, 3\) for 120 cells"),
        ("integers", "its head gives torch.int64"),
        ("leaves", "fails on a batch of 5 images: SystemExit"),
    ],
)
def test_module_that_changes_after_its_self_test_writes_nothing(
    tmp_path: Path, module: str, how: str, message: str
) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(5))
    with pytest.raises(TeacherError, match=message):
        run_annotator([shard], tmp_path / "labels.zarr", build(f"{module}:later", args={"how": how}), batch_size=5)
    assert LabelStore.open(tmp_path / "labels.zarr").names() == []


def test_missing_module_is_named() -> None:
    with pytest.raises(TeacherError, match="no_such_module cannot be imported: ModuleNotFoundError"):
        build("no_such_module:make")


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "hf-hub:a/b", "a:b:c", "os:system('x')", "../a:b", ":f", "m:"])
def test_only_plain_names_are_imported(name: str) -> None:
    assert not is_custom_name(name)


def test_head_that_gives_probabilities_is_refused(module: str) -> None:
    with pytest.raises(TeacherError, match="its head gives probabilities that sum to 1, not logits: leave its softmax"):
        check_teacher(build(f"{module}:Softmax"))
