import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from annotator.settings import TeacherSettings
from annotator.teacher.build import build_timm
from annotator.teacher.selftest import check_teacher
from annotator.teacher.teacher import Teacher, pick_device
from annotator.teacher.weights import load_weights
from store.errors import SettingsError, TeacherError
from tests.builders.teachers import make_teacher, save_weights


def build(name: str, weights: Path, **settings: object) -> Teacher:
    return Teacher(
        TeacherSettings(name=name, checkpoint=weights, num_classes=12, **({"device": "cpu"} | settings))  # type: ignore[arg-type]
    )


def test_label_maps_are_the_head_at_every_cell(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path)
    pixels = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    classes, scores, tail_logsumexp = teacher.label_maps(pixels, 5)
    with torch.no_grad():
        features = teacher.network.forward_features(
            (pixels.float() / 255 - 0.5) / torch.tensor(teacher.preprocessing.std).view(3, 1, 1)
        )  # type: ignore[operator]
        weight, bias = teacher.network.get_parameter("fc.weight"), teacher.network.get_parameter("fc.bias")
        logits = torch.einsum("bdhw,cd->bchw", features, weight) + bias.view(-1, 1, 1)
    expected = logits.topk(5, dim=1)
    centre = (logits.sum(1, keepdim=True) - expected.values.sum(1, keepdim=True)) / (logits.shape[1] - 5)
    torch.testing.assert_close(scores.float(), expected.values - centre, rtol=1e-3, atol=1e-3)
    assert (classes == expected.indices).float().mean() > 0.99
    everything = torch.logaddexp(scores.float().logsumexp(dim=1), tail_logsumexp.float())
    torch.testing.assert_close(everything, (logits - centre).logsumexp(dim=1), rtol=1e-3, atol=2e-3)


def test_large_heads_are_applied_in_parts_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = make_teacher(tmp_path)
    pixels = torch.randint(0, 256, (5, 3, 64, 96), dtype=torch.uint8)
    whole = teacher.label_maps(pixels, 3)
    monkeypatch.setattr("annotator.teacher.teacher.LOGITS_AT_ONCE", 150)
    for part, other in zip(teacher.label_maps(pixels, 3), whole, strict=True):
        torch.testing.assert_close(part, other)


def test_logits_that_are_not_finite_stop_the_teacher(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path)
    teacher.network.get_parameter("fc.bias")[3] = 1e6
    with pytest.raises(TeacherError, match="not finite, or more than 65,504 apart"):
        teacher.label_maps(torch.zeros(1, 3, 64, 96, dtype=torch.uint8), 5)


def test_digest_depends_on_weights_and_arguments_not_on_the_file(tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "a.safetensors")
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in load_file(weights).items()}}, tmp_path / "a.pth"
    )
    same = [build("test_resnet", file).identity for file in (weights, tmp_path / "a.pth")]
    assert same[0] == same[1]
    other = build("test_resnet", save_weights(tmp_path / "b.safetensors", seed=1)).identity
    strided = build("test_resnet", weights, args={"output_stride": 8}).identity
    assert len({same[0].digest, other.digest, strided.digest}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet19"}, "'resnet19': timm knows no such model; did you mean"),
        ({"name": "../../etc/passwd"}, "timm knows no such model"),
        ({"name": "hf-hub:evil/model"}, "timm knows no such model; models of a hub are not read by name"),
        ({"name": "timm/resnet50.a1_in1k"}, "no such model; its own name for it is 'resnet50.a1_in1k'"),
        ({"name": "hf-hub:timm/resnet50.a1_in1k"}, "its own name for it is 'resnet50.a1_in1k'"),
        ({"name": "vit_small_patch14_dinov2", "checkpoint": None}, "has no classifier, only features"),
        ({"name": "vit_small_patch14_dinov2", "num_classes": None}, "has no classifier, only features"),
        ({"name": "test_resnet", "args": {"checkpoint_path": "x"}}, "'checkpoint_path' cannot be set"),
        ({"name": "test_resnet", "args": {"nonsense": 1}}, "cannot be built with {'nonsense': 1}"),
        ({"name": "test_resnet.nope"}, "cannot be built with no arguments: Invalid pretrained tag"),
        (
            {"name": "test_resnet.nope", "checkpoint": None},
            "Invalid pretrained tag .*; timm knows 'test_resnet.r160_in1k'",
        ),
        ({"name": "test_resnet", "args": {"global_pool": 3}}, "cannot be built with {'global_pool': 3}"),
        ({"name": "test_resnet", "args": {"device": "cuda"}}, "'device' cannot be set"),
        ({"name": "test_resnet", "args": {"output_stride": 7}}, "cannot be built with {'output_stride': 7}"),
        ({"name": "resnet18", "num_classes": 10, "checkpoint": None}, "have 1000 classes, not 10; pass --checkpoint"),
        ({"name": "resnet14t", "checkpoint": Path("none.pth")}, "none.pth: no such checkpoint"),
    ],
)
def test_teachers_that_cannot_be_built_are_named(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    weights = save_weights(tmp_path / "w.safetensors")
    with pytest.raises(TeacherError, match=message):
        check_teacher(
            Teacher(
                TeacherSettings(**({"checkpoint": weights, "num_classes": 12} | settings))  # type: ignore[arg-type]
            )
        )


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def write_checkpoint(path: Path, kind: str) -> Path:
    state = timm.create_model("test_resnet", num_classes=12).state_dict()
    contents: dict[str, object] = {
        "short": {name: tensor for name, tensor in state.items() if name != "fc.bias"},
        "long": state | {"fc.extra": torch.zeros(1)},
        "shape": state | {"fc.bias": torch.zeros(1000)},
        "nan": state | {"fc.bias": torch.full((12,), torch.nan)},
        "list": [1, 2],
        "empty": {},
        "sparse": state | {"fc.bias": state["fc.bias"].to_sparse()},
        "complex": state | {"fc.bias": state["fc.bias"].to(torch.complex64)},
        "meta": state | {"fc.bias": state["fc.bias"].to("meta")},
        "evil": {"state_dict": Evil()},
    }
    if kind in contents:
        torch.save(contents[kind], path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "opcodes":  # a stack that runs empty
        torch.save(state, path, _use_new_zipfile_serialization=False)
        path.write_bytes(b"\x80\x02as" + path.read_bytes()[4:])
    else:
        path.write_bytes(b"garbage" * 9)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("short", "does not fit the teacher: it misses 'fc.bias'"),
        ("long", "has unknown 'fc.extra'"),
        ("shape", r"other shapes: 'fc.bias \(1000,\), expected \(12,\)'"),
        ("nan", "not finite in 'fc.bias'"),
        ("list", "expected a mapping of names to tensors"),
        ("empty", "expected a mapping of names to tensors"),
        ("sparse", "sparse, quantized, complex or without values: 'fc.bias'"),
        ("complex", "sparse, quantized, complex or without values: 'fc.bias'"),
        ("meta", "sparse, quantized, complex or without values: 'fc.bias'"),
        ("opcodes", "not a readable checkpoint: "),
        ("evil", "holds more than tensors and is not loaded"),
        ("pickle", "holds more than tensors|not a readable"),
        ("garbage", "holds more than tensors|not a readable"),
    ],
)
def test_checkpoints_that_do_not_fit_or_are_hostile_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_checkpoint(tmp_path / "model.pth", kind)
    with pytest.raises(TeacherError, match=rf"model\.pth: .*{message}"):
        build_timm("test_resnet", {}, 12, path)
    assert not (tmp_path / "pwned").exists()


def test_flipped_bit_in_a_pytorch_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.full((1000,), 0.5)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<f", 0.5) * 100) + 200] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a"].unique().numel() == 2  # torch does not notice
    with pytest.raises(TeacherError, match=r"w\.pth: not a readable .*: damaged: the checksum of .* does not match"):
        load_weights(path)


def test_zip_that_claims_more_bytes_than_it_has_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    with pytest.raises(TeacherError, match=r"not a readable checkpoint: an archive that torch\.save did not write"):
        load_weights(path)


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(TeacherError, match="not a readable checkpoint"):
        build_timm("test_resnet", {}, 12, path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_teacher_gives_the_same_maps(tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "w.safetensors")
    plain, compiled = (build("test_resnet", weights, input_size=(64, 96), compiled=value) for value in (False, True))
    assert (plain.identity, compiled.provenance()["compiled"]) == (compiled.identity, "true")
    pixels = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    for part, other in zip(plain.label_maps(pixels, 5)[1:], compiled.label_maps(pixels, 5)[1:], strict=True):
        torch.testing.assert_close(part, other, rtol=2e-3, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_maps_of_a_gpu_are_those_of_the_cpu(tmp_path: Path, precision: str) -> None:
    weights = save_weights(tmp_path / "w.safetensors")
    teachers = [
        build("test_resnet", weights, input_size=(64, 96), device="cpu"),
        build("test_resnet", weights, input_size=(64, 96), device="cuda", precision=precision),
    ]
    pixels = torch.randint(0, 256, (9, 3, 64, 96), dtype=torch.uint8)
    tolerance = 3e-2 if precision == "bfloat16" else 3e-3
    expected = teachers[0].label_maps(pixels, 5)[1:]
    # Several batches at once, as a run has them: each must come back as its own.
    started = [teachers[1].start(part.pin_memory(), 5) for part in torch.split(pixels, 3)]
    for number, found in enumerate(
        torch.cat(parts) for parts in zip(*(one.wait()[1:] for one in started), strict=True)
    ):
        torch.testing.assert_close(found, expected[number], rtol=tolerance, atol=tolerance)


def test_unknown_device_is_named() -> None:
    for name in ("quantum", "cuda:99", "meta", "hpu"):
        with pytest.raises(SettingsError, match=f"device '{name}' cannot be used"):
            pick_device(name)
