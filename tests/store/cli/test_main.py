import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from store.cli.main import main
from store.maps.pooling import cell_confidence, pool_map, softmax
from store.writer import GroupLabels, StoreWriter
from tests.builders.paths import ROOT
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema, mark_undecodable

EVIL = "evil\x1b[31m\x07[bold]\u202e<script>"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "labels.zarr"
    labels = make_labels(schema := make_schema(map_size=(4, 6)), 9)
    labels = mark_undecodable(labels, 2, "bad\x1b[2J")
    fields = {name: getattr(labels, name) for name in GroupLabels.__slots__}
    fields["keys"] = (*labels.keys[:3], EVIL, *labels.keys[4:])
    writer = StoreWriter.open(path, schema)
    writer.write("train-0", GroupLabels(**fields), tar=TAR, provenance=PROVENANCE)
    writer.write("train-1", make_labels(schema, 5, 1), tar=TAR, provenance=PROVENANCE)
    return path


def show(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


def test_store_is_summed_up_with_its_groups(path: Path) -> None:
    text = show(path).output
    for expected in ("resnet18", "top 3 of 20 classes in 4 x 6 cells", "14 in 2 groups, 1 undecodable", "train-1"):
        assert expected in text
    summary = json.loads(show(path, "--json").output)
    assert (summary["rows"], summary["quarantined"], len(summary["groups"])) == (14, 1, 2)


def test_group_shows_its_undecodable_rows(path: Path) -> None:
    text = show(path, "train-0").output
    assert "seed0/row0002" in text
    assert "bad\\x1b[2J" in text
    assert json.loads(show(path, "train-0", "--json").output)["quarantined"][0]["row"] == 2


def test_key_shows_its_pooled_classes_and_every_cell(path: Path) -> None:
    labels = make_labels(make_schema(map_size=(4, 6)), 5, 1)
    row = json.loads(show(path, "seed1/row0003", "--json").output)
    assert np.array_equal(row["classes"], labels.classes[3])
    assert np.array_equal(row["scores"], labels.scores[3])
    expected = softmax(pool_map(labels.classes[3], labels.scores[3], num_classes=20))
    assert [entry["class"] for entry in row["pooled"]] == np.argsort(-expected, kind="stable")[:5].tolist()
    assert row["pooled"][0]["probability"] == pytest.approx(expected.max(), abs=1e-6)
    assert sum(entry["cells"] for entry in row["dominant"]) == 24
    lines = show(path, "seed1/row0003").output.splitlines()
    legend = {row["dominant"][i]["class"]: letter for i, letter in enumerate("ABCDEFG"[: len(row["dominant"])])}
    assert labels.tail_logsumexp is not None
    probabilities = cell_confidence(labels.scores[3], labels.tail_logsumexp[3])
    likely, sizes = probabilities >= 0.5, set()
    for y in range(4):
        letters = [legend.get(int(c), ".") for c in labels.classes[3, 0, y]]
        letters = [letter if likely[y, x] else letter.lower() for x, letter in enumerate(letters)]
        assert any(line.startswith(" ".join(letters)) for line in lines)
        sizes |= {letter.isupper() for letter in letters if letter != "."}
    assert sizes == {True, False}


def test_undecodable_image_has_its_reason(path: Path) -> None:
    assert "undecodable: bad\\x1b[2J" in show(path, "seed0/row0002").output


def test_control_characters_and_markup_never_reach_the_terminal(path: Path) -> None:
    for arguments in ([path, "train-0"], [path, EVIL], [path, EVIL + "?"]):
        text = show(*arguments).output
        assert not any(not char.isprintable() and char != "\n" for char in text)
        assert "[bold]" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.zarr"], "nowhere.zarr: no label store here; `relabel-annotate run` makes one"),
        (["{path}", "nobody"], "no group and no key 'nobody'; `relabel-store ls` lists the groups"),
        (
            ["{path}", "other/row0001.JPEG"],
            "no key 'other/row0001.JPEG'; did you mean 'seed0/row0001', 'seed1/row0001'?",
        ),
        (["{path}", "row0004"], "did you mean 'seed0/row0004', 'seed1/row0004'?"),
        (["{path}", "train-0.tar"], "did you mean 'train-0'"),
        (["{path}", "trian-1"], "did you mean 'train-1'"),
    ],
)
def test_mistakes_are_one_line_and_status_1(path: Path, arguments: list[str], message: str) -> None:
    result = show(*(argument.format(path=path) for argument in arguments))
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert message in result.output
    assert result.output.count("\n") == 1


def test_key_is_found_where_the_locale_has_no_letter_of_it(tmp_path: Path) -> None:
    labels = make_labels(schema := make_schema(map_size=(4, 6)), 1)
    fields = {name: getattr(labels, name) for name in GroupLabels.__slots__} | {"keys": ("gr\xfcn",)}
    StoreWriter.open(tmp_path / "a.zarr", schema).write("a", GroupLabels(**fields), tar=TAR, provenance=PROVENANCE)
    done = subprocess.run(
        [sys.executable, "-m", "store.cli.main", "show", str(tmp_path / "a.zarr"), "gr\xfcn", "--json"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["key"] == "gr\xfcn"


def test_piped_tables_have_a_line_for_each_row(tmp_path: Path) -> None:
    schema = make_schema()
    labels = make_labels(schema, 12)
    for row in range(11):
        labels = mark_undecodable(labels, row, f"reason {row} {'x ' * 90}end")
    StoreWriter.open(tmp_path / "a.zarr", schema).write("a", labels, tar=TAR, provenance=PROVENANCE)
    lines = show(tmp_path / "a.zarr", "a").stdout.splitlines()
    shown = [line for line in lines if re.search(r"reason \d+ x", line)]
    assert len(shown) == 11
    assert all("x end" in line for line in shown)


def test_group_says_in_good_words_how_it_was_made(tmp_path: Path) -> None:
    provenance = {"timm": "1.0", "head": "head not linear (agreement 0.98)"}
    writer = StoreWriter.open(tmp_path / "a.zarr", make_schema())
    writer.write("a", make_labels(make_schema(), 1), tar=TAR, provenance=provenance)
    made_with = next(line for line in show(tmp_path / "a.zarr", "a").stdout.splitlines() if "made with" in line)
    assert made_with.split("  ")[-1] == "timm 1.0, head not linear (agreement 0.98)"


def test_output_is_plain_where_there_is_no_terminal_and_coloured_where_forced(path: Path) -> None:
    command = [sys.executable, "-m", "store.cli.main", "show", str(path), "seed1/row0003"]
    plain = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "\x1b" not in plain.stdout
    env = os.environ | {"FORCE_COLOR": "1", "COLORTERM": "truecolor"}
    coloured = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert "\x1b[30;48;2;" in coloured.stdout


def test_closed_standard_output_is_not_a_success(path: Path) -> None:
    script = f"{sys.executable} -m store.cli.main show {path} >&-"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: standard output is closed\n")


def test_reader_of_a_pipe_may_leave(path: Path) -> None:
    script = f"{sys.executable} -m store.cli.main show {path} seed1/row0003 --json | head -c 1"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("when", ["", "def main():\n    "])
def test_interrupt_while_a_command_is_imported_shows_no_traceback(tmp_path: Path, when: str) -> None:
    (tmp_path / "slow.py").write_text(f"{when}raise KeyboardInterrupt\n")
    command = "from pipelines.start import start; start('slow')"
    path = f"{tmp_path}:{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Aborted!\n")
