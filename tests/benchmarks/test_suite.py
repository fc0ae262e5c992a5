import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import suite
from benchmarks.listed import BENCHMARKS, Benchmark
from benchmarks.material import annotate, demo_material
from benchmarks.report import Outcome, ratio_lines, render
from tests.builders.paths import ROOT

FACTS = {"hardware": "a machine"}


def bench(module: str, arguments: str = "") -> Benchmark:
    return Benchmark(module=module, title=module, peer="a peer", quick=arguments, full=arguments)


def test_every_benchmark_of_speed_is_listed() -> None:
    there = {f"speed.{file.stem}" for file in (ROOT / "benchmarks" / "speed").glob("[!_]*.py")}
    assert sorted(benchmark.module for benchmark in BENCHMARKS) == sorted(there)


def test_the_documentation_shows_the_newest_report_of_its_hardware() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    shown = re.findall(r'^--8<-- "benchmarks/reports/(.+)_(\d{6})\.md:report"$', page, re.M)
    assert shown
    for hardware, month in shown:
        reports = (ROOT / "benchmarks" / "reports").glob(f"{hardware}_??????.md")
        assert max(file.stem for file in reports) == f"{hardware}_{month}"


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (
        bench("studies.order", "--rows nonsense"),
        bench("studies.order", "--rows 2000 --shards 2 --batch-size 64"),
    )
    monkeypatch.setattr(suite, "BENCHMARKS", chosen)
    monkeypatch.setattr(suite, "annotate", lambda _: None)
    result = CliRunner().invoke(
        suite.main, ["quick", "--material", str(tmp_path / "a"), "--report", str(tmp_path / "b")]
    )
    assert result.exit_code == 1
    assert result.output.endswith("error: failed: studies.order\n")
    assert "2,000 rows in 2 shards" in result.output
    (report,) = (tmp_path / "b").iterdir()
    assert report.name.startswith("all_")
    assert "**Failed** with exit status 2." in report.read_text()
    assert str(tmp_path) not in report.read_text()


def test_without_a_gpu_its_variants_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(suite.main, ["gpu"])
    assert result.exit_code == 1
    assert result.output == "error: bench-gpu: torch finds no CUDA device here; `make bench` needs none\n"


@pytest.mark.parametrize(
    ("option", "value", "said"), [("--real", "", "has no imagenet-sample-*.tar"), ("--material", "file", "file: ")]
)
def test_folders_that_cannot_be_are_one_line(tmp_path: Path, option: str, value: str, said: str) -> None:
    (tmp_path / "file").touch()
    options = {"--material": str(tmp_path / "new"), option: str(tmp_path / value)}
    result = CliRunner().invoke(suite.main, ["quick", *(word for pair in options.items() for word in pair)])
    assert result.exit_code == 1
    assert said in result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_ratios_are_found_in_the_tables() -> None:
    printed = "| a case | median | quartiles | runs |\n|---|---|---|---|\n| x: images/s | 1 | 1 to 1 | 7 |\n"
    printed += "| x / y | 2 | 2 to 3 | 7 |\n"
    outcome = Outcome(benchmark=bench("a"), command="", output=printed, status=0, seconds=1)
    assert list(ratio_lines(outcome)) == ["| a | a case: x / y | 2 | 2 to 3 | 7 |"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_benchmark_runs_and_gives_ratios(tmp_path: Path) -> None:
    """All of them in one round each."""
    smallest = [replace(one, quick=re.sub(r"(runs|audits) \d+", r"\1 1", one.quick)) for one in BENCHMARKS]
    material = demo_material(tmp_path)
    annotate(material)
    outcomes = suite.run_all(smallest, "quick", material)
    assert [outcome.benchmark.module for outcome in outcomes if outcome.status] == []
    assert [outcome.benchmark.module for outcome in outcomes if not list(ratio_lines(outcome))] == []
    assert str(tmp_path) not in render(outcomes, FACTS)
