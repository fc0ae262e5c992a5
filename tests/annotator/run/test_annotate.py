import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from annotator.input.decode import decode_batches
from annotator.input.local_copies import LocalCopies
from annotator.input.plan import Plan, RowRef
from annotator.report import Reporter, Summary
from annotator.run.annotate import annotate, make_ready, open_labels
from annotator.settings import BadLimit, RunSettings, TeacherSettings
from annotator.teacher.teacher import Teacher
from store.errors import (
    GroupExistsError,
    LabelMapError,
    SettingsError,
    StoreMismatchError,
    TeacherError,
)
from store.format.schema import CommitRecord
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.writer import StoreWriter
from tests.builders.stores import make_members, write_tar
from tests.builders.teachers import make_teacher, run_annotator, save_weights


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three shards of 3, 7 and 2 samples."""
    counts = {"a": (3, 0), "b": (7, 3), "c": (2, 10)}
    return [write_tar(tmp_path / f"{name}.tar", make_members(n, first=i)) for name, (n, i) in counts.items()]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_is_the_teachers_map_of_its_own_image(
    tmp_path: Path, shards: list[Path], teacher: Teacher, workers: int
) -> None:
    summary = run_annotator(shards, tmp_path / "labels.zarr", teacher, workers=workers)
    assert (summary.images, summary.committed_shards, summary.failures) == (12, 3, {})
    for group, path in zip(LabelStore.open(tmp_path / "labels.zarr"), shards, strict=True):
        tar, rows = path.read_bytes(), group.read()
        for i, (offset, length) in enumerate(group.offsets.tolist()):
            data = tar[offset : offset + length]
            assert group.digests[i] == int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            image = Image.fromarray(decode_image(data)).resize((96, 64), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]
            classes, scores, tail_logsumexp = teacher.label_maps(pixels, 5)
            torch.testing.assert_close(torch.from_numpy(rows.scores[i]), scores[0], rtol=2e-3, atol=2e-3)
            assert (rows.classes[i] == classes[0].numpy()).mean() > 0.98
            assert rows.tail_logsumexp is not None
            torch.testing.assert_close(
                torch.from_numpy(rows.tail_logsumexp[i]), tail_logsumexp[0], rtol=2e-3, atol=2e-3
            )
        assert group.labels.tolist() == [int(key[3:]) % 5 for key in group.keys]
        assert group.commit.tar.sha256 == hashlib.sha256(tar).hexdigest()
        assert group.commit.provenance["precision"] == "float32"


def test_finished_shards_are_skipped_even_when_only_their_date_changed(
    tmp_path: Path, shards: list[Path], teacher: Teacher
) -> None:
    labels = tmp_path / "labels.zarr"
    run_annotator(shards[:2], labels, teacher)
    os.utime(shards[1], (1, 1))
    summary = run_annotator(shards, labels, teacher)
    assert (summary.images, summary.committed_shards, summary.skipped_shards) == (2, 1, 2)


def test_plan_gives_shards_that_are_not_done_and_their_rows(
    tmp_path: Path, shards: list[Path], teacher: Teacher
) -> None:
    labels = tmp_path / "labels.zarr"
    run_annotator(shards[1:2], labels, teacher)
    shards.append(write_tar(tmp_path / "empty.tar", []))
    summary = Summary()
    with LocalCopies() as copies:
        plan = Plan(shards, LabelStore.open(labels), copies, overwrite=False, reporter=summary)
        assert [(index.path, len(index.samples)) for index in plan.unfinished()] == [(shards[0], 3), (shards[2], 2)]
        assert (summary.skipped_shards, list(summary.failures)) == (1, shards[3:])
        assert plan.indexes == {}
        rows = list(plan)
        assert [(ref.path.name, ref.row) for ref in rows] == [("a.tar", i) for i in range(3)] + [
            ("c.tar", 0),
            ("c.tar", 1),
        ]
        last = plan.indexes[shards[2]].samples[1]
        assert rows[-1] == RowRef(shards[2], shards[2], 1, last)


def test_changed_shard_is_an_error_unless_overwritten(tmp_path: Path, shards: list[Path], teacher: Teacher) -> None:
    labels = tmp_path / "labels.zarr"
    run_annotator(shards, labels, teacher)
    write_tar(shards[0], make_members(4, first=50))
    summary = run_annotator(shards, labels, teacher)
    assert summary.skipped_shards == 2
    assert (
        "a.tar: not the shard its labels were made from; to annotate it again, --overwrite with only this shard"
        in next(iter(summary.failures.values()))
    )
    assert len(LabelStore.open(labels).group("a")) == 3
    assert run_annotator(shards, labels, teacher, overwrite=True).committed_shards == 3
    assert len(LabelStore.open(labels).group("a")) == 4


def test_damaged_shard_is_left_out_and_the_others_finish(tmp_path: Path, shards: list[Path], teacher: Teacher) -> None:
    shards[1].write_bytes(shards[1].read_bytes()[:2048])
    summary = run_annotator(shards, tmp_path / "labels.zarr", teacher)
    assert summary.committed_shards == 2
    assert [path.name for path in summary.failures] == ["b.tar"]
    assert LabelStore.open(tmp_path / "labels.zarr").names() == ["a", "c"]


def test_undecodable_images_are_quarantined_and_counted(tmp_path: Path, teacher: Teacher) -> None:
    members = make_members(4)
    members[2] = (members[2][0], members[2][1][:-100])
    members[6] = (members[6][0], b"")
    path = write_tar(tmp_path / "a.tar", members)
    summary = run_annotator([path], tmp_path / "labels.zarr", teacher)
    assert [key for _, key, _ in summary.bad_images] == ["img0001", "img0003"]
    group = LabelStore.open(tmp_path / "labels.zarr").group("a")
    assert set(group.undecodable) == {1, 3}
    assert group.undecodable[1].startswith("damaged JPEG: ")
    assert np.isnan(group.row(1).scores).all()
    assert np.isfinite(group.row(2).scores).all()


@pytest.mark.parametrize(("allowed", "workers"), [("1", 0), ("1", 1), ("24.9%", 0)])
def test_shard_of_too_many_bad_images_fails_alone_and_at_once(
    tmp_path: Path, shards: list[Path], teacher: Teacher, allowed: str, workers: int
) -> None:
    bad = [(f"bad{i:03}.jpg", b"nothing") for i in range(60)]
    shards.insert(1, write_tar(tmp_path / "rotten.tar", [*bad, *make_members(180, first=20)]))
    labels = tmp_path / "labels.zarr"
    for committed, skipped in ((3, 0), (0, 3)):  # a rerun finds the same
        summary = run_annotator(shards, labels, teacher, max_bad=BadLimit.parse(allowed), workers=workers)
        assert (summary.committed_shards, summary.skipped_shards) == (committed, skipped)
        [(shard, reason)] = summary.failures.items()
        assert shard == shards[1]
        assert re.search(
            rf"already \d+ of its 240 images are undecodable, --max-bad allows {allowed}; the last", reason
        )
        assert summary.images < 120  # the teacher did not see all of it
    assert LabelStore.open(labels).names() == ["a", "b", "c"]
    assert run_annotator(shards, labels, teacher, max_bad=BadLimit.parse("25%")).committed_shards == 1


def test_shard_without_any_image_fails_and_makes_no_empty_group(tmp_path: Path, teacher: Teacher) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{i}.jpg", b"nothing") for i in range(3)])
    summary = run_annotator([path], tmp_path / "labels.zarr", teacher)
    assert "a.tar: none of its 3 images can be decoded; the last: 2: not a" in summary.failures[path]
    assert LabelStore.open(tmp_path / "labels.zarr").names() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("-1", "should be a number such as 100"), ("101%", "a share at most 100%"), ("many", "not 'many'"), ("1e9", "1%")],
)
def test_impossible_limits_of_bad_images_are_named(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        BadLimit.parse(text)


def test_shard_without_one_decodable_image_fails_and_the_others_finish(
    tmp_path: Path, shards: list[Path], teacher: Teacher
) -> None:
    write_tar(shards[1], [("x.jpg", b"no image"), ("y.jpg", b"")])
    summary = run_annotator(shards, tmp_path / "labels.zarr", teacher)
    assert summary.failures[shards[1]].startswith(f"{shards[1]}: none of its 2 images can be decoded; ")
    assert summary.failures[shards[1]].endswith("the last: y: not a readable JPEG, PNG or WebP image")
    assert LabelStore.open(tmp_path / "labels.zarr").names() == ["a", "c"]
    write_tar(shards[1], make_members(2))
    assert run_annotator(shards, tmp_path / "labels.zarr", teacher).committed_shards == 1


def test_store_of_another_teacher_is_refused_and_kept(tmp_path: Path, shards: list[Path], teacher: Teacher) -> None:
    labels = tmp_path / "labels.zarr"
    run_annotator(shards, labels, teacher)
    other = make_teacher(tmp_path, seed=1)
    with pytest.raises(StoreMismatchError, match="another teacher"):
        run_annotator(shards, labels, other)
    with pytest.raises(StoreMismatchError, match="--overwrite with all of its shards"):
        run_annotator(shards[:1], labels, other, overwrite=True)
    assert LabelStore.open(labels).schema.teacher == teacher.identity
    assert run_annotator(shards, labels, other, overwrite=True).committed_shards == 3
    assert LabelStore.open(labels).schema.teacher == other.identity
    kept = next(tmp_path.glob("labels.zarr.replaced-*"))
    assert LabelStore.open(kept).schema.teacher == teacher.identity
    assert LabelStore.open(kept).names() == ["a", "b", "c"]


class Notices(Reporter):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def test_another_precision_than_that_of_the_first_group_is_said_once(
    tmp_path: Path, shards: list[Path], teacher: Teacher
) -> None:
    labels, notices = tmp_path / "labels.zarr", Notices()
    run_annotator(shards[:1], labels, teacher)
    schema = LabelStore.open(labels).schema
    for precision in ("float32", None, "bfloat16"):
        open_labels(shards, labels, schema, Summary(notices), overwrite=False, precision=precision)
    assert notices.texts == [f"{labels}/a: was made in 'float32', this run computes in bfloat16"]


def test_group_that_was_put_back_is_named(tmp_path: Path, shards: list[Path], teacher: Teacher) -> None:
    labels, notices = tmp_path / "labels.zarr", Notices()
    run_annotator(shards, labels, teacher)
    (tmp_path / "labels.zarr.partial").mkdir()
    (labels / "b").rename(tmp_path / "labels.zarr.partial" / "b.0123456789abcdef.replaced")
    open_labels(shards, labels, LabelStore.open(labels).schema, Summary(notices), overwrite=False)
    assert notices.texts == [f"{labels}: put back 'b', whose writer was killed while replacing it"]
    assert LabelStore.open(labels).names() == ["a", "b", "c"]


def test_shard_that_changes_while_it_is_read_is_never_committed(
    tmp_path: Path, shards: list[Path], teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced_meanwhile(*arguments: object, **options: object) -> Iterator[object]:
        for batch in decode_batches(*arguments, **options):  # type: ignore[arg-type]
            os.utime(shards[0], (1, 1))
            yield batch

    monkeypatch.setattr("annotator.run.annotate.decode_batches", replaced_meanwhile)
    summary = run_annotator(shards, tmp_path / "labels.zarr", teacher)
    assert "a.tar: changed while it was being read" in next(iter(summary.failures.values()))
    assert LabelStore.open(tmp_path / "labels.zarr").names() == ["b", "c"]


def test_shard_cut_while_it_is_read_is_never_committed(
    tmp_path: Path, shards: list[Path], teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_meanwhile(rows: object, *arguments: object, **options: object) -> object:
        rows = list(rows)  # type: ignore[call-overload]
        os.truncate(shards[1], 1500)
        return decode_batches(rows, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("annotator.run.annotate.decode_batches", cut_meanwhile)
    summary = run_annotator(shards, tmp_path / "labels.zarr", teacher)
    assert "b.tar: ends within the image of" in next(iter(summary.failures.values()))
    assert LabelStore.open(tmp_path / "labels.zarr").names() == ["a", "c"]


def test_annotator_that_comes_second_goes_on(
    tmp_path: Path, shards: list[Path], teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StoreWriter.write

    def lost_race(writer: StoreWriter, name: str, *arguments: Any, **options: Any) -> CommitRecord:
        if name == "b":
            raise GroupExistsError("b is there")
        return write(writer, name, *arguments, **options)

    monkeypatch.setattr(StoreWriter, "write", lost_race)
    summary = run_annotator(shards, tmp_path / "labels.zarr", teacher)
    assert (summary.committed_shards, summary.skipped_shards, summary.failures) == (2, 1, {})


def test_teacher_that_gives_nan_writes_nothing(tmp_path: Path, shards: list[Path]) -> None:
    teacher = make_teacher(tmp_path)
    ready = make_ready(teacher, RunSettings(), None)
    teacher.network.get_parameter("fc.weight")[2] = torch.nan
    writer = open_labels(shards, tmp_path / "labels.zarr", ready.schema, Summary(), overwrite=False)
    with pytest.raises(TeacherError, match="not finite"):
        annotate(shards, writer, ready, RunSettings(workers=0), Summary())
    assert LabelStore.open(tmp_path / "labels.zarr").names() == []


def test_groups_damaged_in_the_store_are_reported_and_the_others_finish(
    tmp_path: Path, shards: list[Path], teacher: Teacher
) -> None:
    labels = tmp_path / "labels.zarr"
    run_annotator(shards[1:], labels, teacher)
    record = labels / "c" / "zarr.json"
    record.write_text(record.read_text().replace("float32", "float64"))
    os.truncate(next(file for file in (labels / "b" / "scores" / "c").rglob("*") if file.is_file()), 0)
    summary = run_annotator(shards, labels, teacher)
    assert summary.committed_shards == 1
    assert [path.name for path in summary.failures] == ["b.tar", "c.tar"]
    assert "b/scores/c/" in next(iter(summary.failures.values()))
    assert "were changed; annotate it again (--overwrite" in list(summary.failures.values())[1]
    assert run_annotator(shards[1:], labels, teacher, overwrite=True).committed_shards == 2


def test_given_class_names_must_be_the_stores(tmp_path: Path, shards: list[Path], teacher: Teacher) -> None:
    labels = tmp_path / "labels.zarr"
    names = tuple(f"class {i}" for i in range(12))
    for given in (names, None):
        run_annotator(shards, labels, teacher, given)
    assert LabelStore.open(labels).schema.class_names == names
    with pytest.raises(StoreMismatchError, match="class_names"):
        run_annotator(shards, labels, teacher, names[::-1])


@pytest.mark.parametrize(("name", "value"), [("top_k", 0), ("batch_size", 0), ("workers", -1)])
def test_impossible_settings_are_named(name: str, value: int) -> None:
    with pytest.raises(SettingsError, match=rf"{name.replace('_', '-')} must be at least \d, not {value}"):
        RunSettings(**{name: value})  # type: ignore[arg-type]


def test_class_names_must_be_as_many_as_classes(teacher: Teacher) -> None:
    with pytest.raises(LabelMapError, match="2 class names given for 12 classes"):
        make_ready(teacher, RunSettings(), ("cat", "dog"))


def test_top_k_is_at_most_the_class_count(teacher: Teacher) -> None:
    assert make_ready(teacher, RunSettings(top_k=50), None).schema.top_k == 12


def test_group_that_cannot_be_read_leaves_out_its_shard_alone(
    tmp_path: Path, shards: list[Path], teacher: Teacher
) -> None:
    labels = tmp_path / "labels.zarr"
    run_annotator(shards[:1], labels, teacher)
    (labels / "a" / "zarr.json").unlink()
    (labels / "a" / "zarr.json").mkdir()
    summary = run_annotator(shards, labels, teacher)
    assert list(summary.failures) == shards[:1]
    assert summary.committed_shards == 2


@pytest.mark.parametrize(("num_classes", "top_k", "kept"), [(10, 50, 10), (21_841, 5, 5), (2, 1, 1)])
def test_any_class_count_and_top_k_is_stored(
    tmp_path: Path, shards: list[Path], num_classes: int, top_k: int, kept: int
) -> None:
    weights = save_weights(tmp_path / "w.safetensors", num_classes=num_classes)
    settings = TeacherSettings(
        name="test_resnet", checkpoint=weights, num_classes=num_classes, input_size=(64, 96), device="cpu"
    )
    run_annotator(shards[:1], tmp_path / "labels.zarr", Teacher(settings), top_k=top_k)
    store = LabelStore.open(tmp_path / "labels.zarr")
    rows = store.group("a").read()
    assert (store.schema.num_classes, rows.classes.shape) == (num_classes, (3, kept, 2, 3))
    assert rows.tail_logsumexp is not None
    assert np.isneginf(rows.tail_logsumexp).all() == (kept == num_classes)
    everything = np.logaddexp(np.logaddexp.reduce(rows.scores.astype(float), axis=1), rows.tail_logsumexp.astype(float))
    assert np.isfinite(everything).all()


def test_scores_are_stored_less_the_mean_of_the_rest_whatever_the_logits_are_centred_on(
    tmp_path: Path, shards: list[Path]
) -> None:
    """As of a teacher that gives log-probabilities: a shift of all classes in every cell."""
    found = []
    for shift in (0.0, -40.0):
        teacher = make_teacher(tmp_path)
        with torch.no_grad():
            teacher.network.get_parameter("fc.bias").add_(shift)
        run_annotator(shards[:1], tmp_path / f"{shift}.zarr", teacher)
        found.append(LabelStore.open(tmp_path / f"{shift}.zarr"))
    ours, theirs = (store.group("a").read() for store in found)
    assert [store.schema.score_kind for store in found] == ["centred_logit"] * 2
    np.testing.assert_allclose(ours.scores.astype(float), theirs.scores.astype(float), atol=2e-3)
    assert ours.tail_logsumexp is not None
    assert theirs.tail_logsumexp is not None
    np.testing.assert_allclose(ours.tail_logsumexp.astype(float), theirs.tail_logsumexp.astype(float), atol=4e-3)
    assert ours.scores.min() >= 0


def test_score_step_is_recorded_and_kept_to(tmp_path: Path, shards: list[Path], teacher: Teacher) -> None:
    labels = tmp_path / "labels.zarr"
    summary = run_annotator(shards[:1], labels, teacher, score_step=0.125)
    store = LabelStore.open(labels)
    maps = store.group("a").read()
    assert store.schema.score_step == 0.125
    assert not np.mod(maps.scores.astype(float), 0.125).any()
    assert sum(map(len, summary.changes)) == len(maps.scores)
    with pytest.raises(StoreMismatchError, match=r"score_step: 0\.125 in the store, lossless in this run"):
        run_annotator(shards, labels, teacher)


@pytest.mark.parametrize("step", [0.3, 32.0, 0.0, -0.25, float("nan"), float("inf")])
def test_score_step_is_a_power_of_two(step: float) -> None:
    with pytest.raises(SettingsError, match="score-step should be a power of two up to 16"):
        RunSettings(score_step=step)


def test_labels_of_logits_are_not_mixed_with_centred_ones(tmp_path: Path, shards: list[Path], teacher: Teacher) -> None:
    schema = msgspec.structs.replace(make_ready(teacher, RunSettings(), None).schema, score_kind="logit")
    StoreWriter.open(tmp_path / "labels.zarr", schema)
    with pytest.raises(StoreMismatchError, match="score_kind: 'logit' in the store, 'centred_logit' in this run"):
        run_annotator(shards, tmp_path / "labels.zarr", teacher)
