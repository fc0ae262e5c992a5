"""`relabel-store audit`: its figures against a plain loop over the rows, and the files it writes."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from store.audit.index import read_index, safe_cell
from store.cli.main import main
from store.maps.pooling import pool_map, softmax
from store.reader import LabelStore
from store.text import printable
from store.writer import StoreWriter
from tests.builders.browse_server import browse
from tests.builders.stores import PROVENANCE, TAR, make_jpeg, make_labels, make_schema, mark_undecodable, write_tar
from tests.builders.view_store import BAD_ROW, EVIL_KEY, EVIL_NAME, ROWS, shard_keys, write_view_store

SCHEMA = make_schema(map_size=(3, 5))
CELLS = 1  # two hundredths of fifteen
THRESHOLD = 0.4


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)])


def found(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "labels.zarr"
    writer = StoreWriter.open(path, SCHEMA)
    for seed, rows in ((0, 300), (1, 70)):  # more than one block of rows, in two groups
        group = mark_undecodable(make_labels(SCHEMA, rows, seed), 7, "damaged")
        writer.write(f"g{seed}", group, tar=TAR, provenance=PROVENANCE)
    return path


def plain_figures(path: Path, temperature: float) -> list[dict[str, Any]]:
    """The audit's figures of every row, computed one row at a time."""
    rows: list[dict[str, Any]] = []
    for group in LabelStore.open(path):
        for i in np.flatnonzero(group.usable()).tolist():
            row = group.row(i)
            target = softmax(pool_map(row.classes, row.scores, num_classes=20) / np.float32(temperature))
            cells = np.array([
                softmax(pool_map(row.classes[:, y : y + 1, x : x + 1], row.scores[:, y : y + 1, x : x + 1],
                                 num_classes=20) / np.float32(temperature))
                for y in range(3) for x in range(5)
            ])  # fmt: skip
            exact = np.exp(row.scores[0].astype(np.float64)) / (
                np.exp(row.scores.astype(np.float64)).sum(axis=0)
                + (0 if row.tail_logsumexp is None else np.exp(row.tail_logsumexp.astype(np.float64)))
            )
            confident = Counter(row.classes[0][exact >= THRESHOLD].tolist())
            rows.append({
                "key": row.key, "label": row.label, "top": int(target.argmax()), "target": target,
                "best": cells[:, row.label].max() if row.label >= 0 else None,
                "entropy": float(-(target * np.log2(np.maximum(target, 1e-30))).sum()),
                "present": {c for c, times in confident.items() if times >= CELLS},
                "top1": set(row.classes[0].ravel().tolist()),
            })  # fmt: skip
    return rows


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_figures_are_those_of_a_plain_loop_over_the_rows(labels: Path, temperature: float) -> None:
    audit = found(labels, "--temperature", temperature, "--threshold", THRESHOLD, "--top", 400)
    rows = plain_figures(labels, temperature)
    assert audit["images"] == len(rows) == 368
    labelled = [row for row in rows if row["label"] >= 0]
    assert audit["with_label"] == len(labelled) < 368
    assert audit["without_label"] == len(rows) - len(labelled)
    wrong = [row for row in labelled if row["label"] != row["top"]]
    assert audit["label_on_top"] == len(labelled) - len(wrong)
    assert audit["label_present"] == sum(row["label"] in row["present"] for row in wrong)
    assert audit["label_contradicted"] == len(wrong) - audit["label_present"] > 0
    counts = Counter(min(len(row["present"]), 3) for row in rows)
    assert audit["images_with_classes"] == [counts[n] for n in range(4)]

    statistics, seen = audit["statistics"], set[int]().union(*(row["top1"] for row in rows))
    assert statistics["label_top1_in_a_cell"] == sum(row["label"] in row["top1"] for row in labelled) > 0
    assert statistics["classes_seen"] == len(seen)
    assert statistics["classes_never_seen"] == sorted(set(range(20)) - seen)
    assert statistics["max_entropy_bits"] == pytest.approx(np.log2(20))
    entropies = [row["entropy"] for row in rows]
    expected = {"mean": np.mean(entropies), **{f"p{q}": np.percentile(entropies, q) for q in (5, 50, 95)}}
    assert statistics["entropy_bits"] == pytest.approx(expected, abs=1e-3)

    by_key = {row["key"]: row for row in rows}
    suspicious = audit["suspicious"]
    assert [entry["key"] for entry in suspicious] == [
        row["key"] for row in sorted(wrong, key=lambda row: (np.float32(row["best"]), row["target"][row["label"]]))
    ]
    for entry in suspicious:
        row = by_key[entry["key"]]
        assert entry["label_whole"] == pytest.approx(row["target"][row["label"]], abs=1e-5)
        assert entry["label_best_cell"] == pytest.approx(row["best"], abs=1e-5)
        assert (entry["label"], entry["top"]) == (row["label"], row["top"])
        assert entry["entropy_bits"] == pytest.approx(row["entropy"], abs=1e-4)
        assert {present["class"] for present in entry["classes"]} == row["present"]
    several = [row for row in rows if len(row["present"]) > 1]
    assert {entry["key"] for entry in audit["several_classes"]} == {row["key"] for row in several}

    pairs = Counter((row["label"], row["top"]) for row in wrong)
    assert {(pair["label"], pair["top"]): pair["images"] for pair in audit["confusions"]} == pairs
    assert [pair["images"] for pair in audit["confusions"]] == sorted(pairs.values(), reverse=True)
    for entry in audit["classes"]:
        c = entry["class"]
        assert entry["labelled"] == sum(row["label"] == c for row in rows)
        assert entry["on_top"] == sum(row["top"] == c for row in rows)
        assert entry["agree"] == sum(row["label"] == c == row["top"] for row in rows)
        assert entry["present"] == sum(c in row["present"] for row in rows)
    present = {entry["class"]: entry["present"] for entry in audit["classes"]}
    most = [(entry["class"], entry["images"]) for entry in statistics["most_seen"]]
    assert most == sorted(((c, n) for c, n in present.items() if n), key=lambda pair: (-pair[1], pair[0]))
    assert [(bad["group"], bad["row"], bad["reason"]) for bad in audit["quarantined"]] == [
        ("g0", 7, "damaged"),
        ("g1", 7, "damaged"),
    ]


def test_class_is_present_that_is_top1_with_confidence_in_2_percent_of_the_cells(tmp_path: Path) -> None:
    schema = make_schema(map_size=(12, 12))  # 144 cells, so 3
    group = make_labels(schema, 4)
    fields = {name: getattr(group, name) for name in type(group).__slots__}
    classes, scores = fields["classes"].copy(), np.full_like(fields["scores"], 0)
    scores[:, 0] = 1  # nothing is confident: a tenth, with the tail
    classes[:, 0], classes[:, 1], classes[:, 2] = 19, 18, 17
    fields["tail_logsumexp"] = np.full_like(fields["tail_logsumexp"], 3)
    for row, (cells, logit) in enumerate([(2, 12), (3, 12), (3, 5), (9, 12)]):
        classes[row, 0, 5, :cells] = row
        scores[row, 0, 5, :cells] = logit  # 5 beside a tail of 3 is 0.88
    path = tmp_path / "labels.zarr"
    made = type(group)(**(fields | {"classes": classes, "scores": scores}))
    StoreWriter.open(path, schema).write("a", made, tar=TAR, provenance=PROVENANCE)
    audit = found(path)
    assert audit["present"] == {"probability": 0.9, "cells": 3}
    assert {entry["class"]: entry["present"] for entry in audit["classes"] if entry["present"]} == {1: 1, 3: 1}
    assert audit["statistics"]["classes_seen"] == 5
    assert audit["statistics"]["classes_never_seen"] == list(range(4, 19))
    assert audit["statistics"]["most_seen"] == [
        {"class": 1, "name": "1", "images": 1},
        {"class": 3, "name": "3", "images": 1},
    ]


def test_tables_show_what_json_has(labels: Path, tmp_path: Path) -> None:
    audit = found(labels, "--threshold", THRESHOLD, "--top", 3)
    text = run(labels, "--threshold", THRESHOLD, "--top", 3, "--html", tmp_path / "a.html").stdout
    page = unescape((tmp_path / "a.html").read_text())
    cells = [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"(?s)<t[dh][ >].*?</t[dh]>", page)]
    first = audit["suspicious"][0]
    shares = [f"{first[name]:.3f}" for name in ("label_best_cell", "label_whole", "top_probability")]
    row = [first["key"], str(first["label"]), *shares[:2], str(first["top"]), shares[2]]
    assert row == next(line.split() for line in text.splitlines() if line.startswith(first["key"]))
    at = cells.index(first["key"])
    assert cells[at : at + 6] == row
    worst = sorted(audit["classes"], key=lambda entry: entry["agree"] - entry["labelled"])[:3]
    for entry in worst:
        row = [str(entry[name]) for name in ("class", "labelled", "agree", "on_top", "present")]
        assert row in [line.split() for line in text.splitlines()]
    several = audit["several_classes"]
    order = [(-len(entry["classes"]), -entry["entropy_bits"]) for entry in several]
    assert order == sorted(order)
    for entry in audit["statistics"]["most_seen"]:
        row = [str(entry[name]) for name in ("class", "images")]
        assert row in [line.split() for line in text.splitlines()]
        assert any(cells[i : i + 2] == row for i in range(len(cells)))
    for name, count in (("label elsewhere", "label_present"), ("contradicted", "label_contradicted")):
        assert re.search(rf"^{name} +{audit[count]} ", text, re.MULTILINE)
    bits = audit["statistics"]["entropy_bits"]
    spread = f"(p5 {bits['p5']:.2f}, median {bits['p50']:.2f}, p95 {bits['p95']:.2f})"
    entropy = f"mean {bits['mean']:.2f} of max 4.32 bits {spread}"
    assert f"target entropy {entropy}" in " ".join(text.split())
    assert entropy in page


@pytest.mark.parametrize(("scale", "warned"), [(0.01, True), (20.0, False)])
def test_nearly_uniform_targets_are_warned_of(tmp_path: Path, scale: float, warned: bool) -> None:
    group = make_labels(SCHEMA, 40)
    group = replace(group, scores=group.scores * np.float16(scale), tail_logsumexp=None)
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA).write("a", group, tar=TAR, provenance=PROVENANCE)
    text = " ".join(run(path, "--html", tmp_path / "a.html").output.split())
    assert ("p95" in text, "the targets are nearly uniform" in text) == (True, warned)
    assert ("nearly uniform" in (tmp_path / "a.html").read_text()) == warned


def test_labels_that_most_maps_contradict_are_warned_of(tmp_path: Path) -> None:
    labels = make_labels(SCHEMA, 40)
    nowhere = [min(set(range(20)) - set(row[0].ravel().tolist())) for row in labels.classes]
    for name, own in (("wrong", np.array(nowhere, np.int32)), ("right", labels.classes[:, 0, 0, 0].astype(np.int32))):
        path = tmp_path / name
        StoreWriter.open(path, SCHEMA).write("a", replace(labels, labels=own), tar=TAR, provenance=PROVENANCE)
        text = " ".join(run(path).output.split())
        assert ("40 of 40 labels are top-1 in no cell of their image" in text) == (name == "wrong")


def test_scores_that_a_class_outside_the_top_k_exceeds_are_warned_of(tmp_path: Path) -> None:
    schema = msgspec.structs.replace(SCHEMA, score_kind="logit")
    labels = make_labels(SCHEMA, 40)
    for name, scores in (("log-p", labels.scores - np.float16(30)), ("logits", labels.scores)):
        path = tmp_path / name
        group = replace(labels, scores=scores, tail_logsumexp=None)
        StoreWriter.open(path, schema).write("a", group, tar=TAR, provenance=PROVENANCE)
        assert ("in 100% of the cells no score is above 0" in " ".join(run(path).output.split())) == (name == "log-p")


def test_outputs_never_replace_what_is_read_or_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path, shards = write_view_store(tmp_path / "a")
    shard = tmp_path / "a" / "train-0.tar"
    before = shard.read_bytes()
    os.mkfifo(tmp_path / "fifo")
    for arguments in (
        ("audit", path, "--shards", shards, "--html", shard),
        ("show", path, "g0/img003", "--shards", shards, "--png", shard),
        ("show", path, "g0/img003", "--html", path / "zarr.json"),
        ("show", path, "g0/img003", "--shards", shards, "--png", tmp_path / "x", "--html", tmp_path / "x"),
        ("audit", path, "--csv", tmp_path / "fifo"),
    ):
        result = CliRunner().invoke(main, list(map(str, arguments)))
        assert result.exit_code == 1, arguments
        assert result.stderr.startswith("error: "), arguments
    assert shard.read_bytes() == before
    assert LabelStore.open(path).names() == ["train-0", "train-1"]
    assert not (tmp_path / "x").exists()


def test_output_through_a_link_keeps_the_link_and_the_mode(labels: Path, tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "real.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("real.csv")
    assert run(labels, "--csv", tmp_path / "link.csv").exit_code == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("group,row,key")
    assert (tmp_path / "real.csv").stat().st_mode & 0o777 == 0o640


def test_redirected_standard_output_takes_the_findings_and_the_tables(labels: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "store.cli.main", "audit", str(labels), "--csv", "/dev/stdout"]
    with (tmp_path / "all").open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=True)
    text = (tmp_path / "all").read_text()
    assert text.startswith("group,row,key")
    assert text.endswith(run(labels).stdout)
    assert done.stderr == "wrote /dev/stdout\n"


def test_show_writes_nothing_where_another_option_is_wrong(tmp_path: Path) -> None:
    path, _ = write_view_store(tmp_path)
    result = CliRunner().invoke(
        main, ["show", str(path), "g0/img003", "--html", str(tmp_path / "a.html"), "--cell", "99,9"]
    )
    assert result.exit_code == 1
    assert not (tmp_path / "a.html").exists()


def test_signal_leaves_no_partial_file(labels: Path, tmp_path: Path) -> None:
    code = """
import os, pathlib, signal, sys
from store.files import write_atomically
with write_atomically(pathlib.Path(sys.argv[1])) as file:
    os.kill(os.getpid(), signal.SIGTERM)
    file.write(b"")
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False).returncode == 143
    assert not list(tmp_path.iterdir())


def test_top_keeps_the_first_over_all_groups(labels: Path) -> None:
    audit, whole = found(labels, "--top", 5), found(labels, "--top", 400)
    assert audit["suspicious"] == whole["suspicious"][:5]
    assert audit["several_classes"] == whole["several_classes"][:5]
    assert audit["confusions"] == whole["confusions"]  # JSON has all pairs


def test_csv_has_a_line_for_every_image(labels: Path, tmp_path: Path) -> None:
    audit = found(labels, "--csv", tmp_path / "a.csv", "--threshold", THRESHOLD)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = plain_figures(labels, 1.0)
    assert [line["key"] for line in lines] == [row["key"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert line["label"] == ("" if row["label"] < 0 else str(row["label"]))
        assert (line["label_whole"] == "") == (row["label"] < 0)
        assert int(line["top"]) == row["top"]
        assert float(line["entropy_bits"]) == pytest.approx(row["entropy"], abs=1e-4)
        assert int(line["classes"]) == len(row["present"])
    assert audit["images"] == len(lines)


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@SUM(1)", "  =1", "\uff1d1"])
def test_no_csv_cell_is_a_formula(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


def test_page_shows_hostile_text_and_pictures_and_asks_for_nothing(tmp_path: Path) -> None:
    path, shards = write_view_store(tmp_path)
    page_file = tmp_path / "a.html"
    result = run(path, "--html", page_file, "--shards", shards, "--threshold", 0)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert printable(EVIL_NAME)[:12] in result.stdout
    page = page_file.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "default-src 'none'" in unescape(page)
    assert "script-src 'none'" in unescape(page)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert printable(EVIL_KEY) in unescape(page)
    assert EVIL_KEY not in page
    assert len(re.findall(r'<image id="map-[0-9]+-photo" href="data:image/jpeg', page)) >= 2 * ROWS - 4
    assert "damaged JPEG: &lt;b&gt;" in page  # of the undecodable row


def test_image_that_is_no_longer_there_is_named_in_the_page(tmp_path: Path) -> None:
    path, shards = write_view_store(tmp_path)
    write_tar(tmp_path / "train-1.tar", [(f"{key}.jpg", make_jpeg(1)) for key in shard_keys(1)])
    assert run(path, "--html", tmp_path / "a.html", "--shards", shards).exit_code == 0
    page = unescape((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "train-1.tar: does not hold the image that was annotated" in page
    assert 'href="data:image/jpeg' in page  # those of the other shard


def test_browse_sorts_by_the_index(tmp_path: Path) -> None:
    path, shards = write_view_store(tmp_path, 3)
    index = tmp_path / "a.npz"
    assert run(path, "--csv", tmp_path / "a.csv", "--index", index).exit_code == 0
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    with browse(path, "--shards", shards, "--audit", index) as server:
        for sort, figure in (("disagreement", "label_whole"), ("entropy", "entropy_bits"), ("classes", "classes")):
            page = server.page(f"/?sort={sort}")
            shown = [unescape(key) for key in re.findall(r"<b title=[^>]*><bdi>(.*?)</bdi></b>", page)]
            values = {line["key"]: line[figure] for line in lines}
            sign = 1 if sort == "disagreement" else -1
            expected = sorted(values, key=lambda key: sign * float(values[key] or 2))
            assert [values[key] for key in shown] == [values[key] for key in expected]
    store = LabelStore.open(path)
    more = make_labels(store.schema, 2, 9)
    StoreWriter(store, store.schema).write("train-9", more, tar=TAR, provenance=PROVENANCE)
    result = CliRunner().invoke(main, ["browse", str(path), "--shards", shards, "--audit", str(index)])
    assert result.exit_code == 1
    assert f"a.npz: made from another store than {path} is now; run `relabel-store audit {path}" in result.output


def test_damaged_group_is_named_and_the_others_are_audited(labels: Path, tmp_path: Path) -> None:
    copy = tmp_path / "labels.zarr"
    shutil.copytree(labels, copy)
    (copy / "g0" / "scores" / "c" / "0" / "0" / "0" / "0").write_bytes(b"")
    result = run(copy, "--json", "--index", tmp_path / "a.npz", "--csv", tmp_path / "a.csv")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: damaged groups, which were not audited: 1; the first: ")
    assert "g0" in result.stderr
    assert json.loads(result.stdout)["images"] == 69
    with np.load(tmp_path / "a.npz") as index:
        assert index["left_out"].tolist() == ["g0"]
        assert index["group"].tolist() == ["g1"]
        assert len(index["row"]) == 69
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 70


def test_group_with_a_damaged_record_is_left_out_of_an_index_that_browse_takes(labels: Path, tmp_path: Path) -> None:
    copy = tmp_path / "labels.zarr"
    shutil.copytree(labels, copy)
    (copy / "g0" / "zarr.json").write_text("{}")
    assert run(copy, "--index", tmp_path / "a.npz").exit_code == 1
    index = read_index(tmp_path / "a.npz", LabelStore.open(copy))
    assert index.left_out.tolist() == ["g0"]
    assert len(index.row) == 69


def test_labels_that_are_no_class_of_the_teacher_are_counted_apart(tmp_path: Path) -> None:
    group = make_labels(SCHEMA, 6)
    fields = {name: getattr(group, name) for name in type(group).__slots__}
    fields["labels"] = np.array([-1, 20, 999, -1, 20, -1], np.int32)
    path = tmp_path / "labels.zarr"
    writer = StoreWriter.open(path, SCHEMA)
    writer.write("a", type(group)(**fields), tar=TAR, provenance=PROVENANCE)
    audit = found(path, "--csv", tmp_path / "a.csv")
    assert (audit["with_label"], audit["without_label"], audit["unknown_label"]) == (0, 3, 3)
    assert audit["suspicious"] == audit["confusions"] == []
    assert run(path).exit_code == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        lines = [(line["label"], line["label_name"], line["label_whole"]) for line in csv.DictReader(file)]
    assert lines[:3] == [("", "", ""), ("20", "", ""), ("999", "", "")]


def test_empty_store_has_an_audit(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA)
    audit = found(path, "--index", tmp_path / "a.npz", "--html", tmp_path / "a.html")
    assert audit["images"] == 0
    assert audit["statistics"]["entropy_bits"] is None
    assert run(path).exit_code == 0


def test_group_of_undecodable_rows_alone_is_audited_with_the_others(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    writer = StoreWriter.open(path, SCHEMA)
    writer.write("a", make_labels(SCHEMA, 3, 0), tar=TAR, provenance=PROVENANCE)
    bad = make_labels(SCHEMA, 2, 1)
    for row in range(2):
        bad = mark_undecodable(bad, row, "damaged")
    writer.write("b", bad, tar=TAR, provenance=PROVENANCE)
    audit = found(path, "--index", tmp_path / "a.npz", "--html", tmp_path / "a.html", "--csv", tmp_path / "a.csv")
    assert (audit["images"], len(audit["quarantined"])) == (3, 2)


def test_interrupted_audit_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path, _ = write_view_store(tmp_path)
    monkeypatch.setattr("store.cli.audit.audit_group", interrupt)
    for name in ("a.csv", "a.html", "a.npz"):
        (tmp_path / name).write_text("old")
    result = run(path, "--csv", tmp_path / "a.csv", "--html", tmp_path / "a.html", "--index", tmp_path / "a.npz")
    assert result.exit_code == 1
    assert {(tmp_path / name).read_text() for name in ("a.csv", "a.html", "a.npz")} == {"old"}
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--csv", "{out}/a", "--html", "{out}/a"), 1, "a: is an image shard or another output too"),
        (("--csv", "{labels}/a.csv"), 1, "is inside a label store; choose a folder outside of it"),
        (("--index", "{out}/absent/a.npz"), 1, "absent; make it first"),
        (("--csv", ""), 2, "expected a path"),
        (("--csv", "{out}"), 2, "is a directory"),
        (("--html", "{out}/a.html", "--shards", "{out}/*.tar"), 1, "*.tar"),
        (("--threshold", "nan"), 2, "expected a number"),
        (("--top", "-1"), 2, "-1"),
    ],
)
def test_unfit_options_are_refused_before_the_work(
    labels: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = run(labels, *(argument.format(out=tmp_path, labels=labels) for argument in arguments))
    assert result.exit_code == status
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_undecodable_row_is_in_no_figure(tmp_path: Path) -> None:
    path, _ = write_view_store(tmp_path)
    run(path, "--csv", tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = [(line["group"], int(line["row"])) for line in csv.DictReader(file)]
    assert ("train-0", BAD_ROW) not in rows
    assert len(rows) == 2 * ROWS - 1
