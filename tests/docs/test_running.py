"""The test of the pages must be able to fail: broken pages, each told with its line."""

from pathlib import Path

import pytest

from tests.docs.blocks import read_blocks
from tests.docs.run import PageRun

OK = "Before.\n\n```\necho one  # said\necho 0.5 s\n```\n\n```text\none\n0.7 s\n```\n"


def run_text(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, *, quick: bool = False) -> None:
    page = folder / "page.md"
    page.write_text(text)
    monkeypatch.chdir(folder)
    PageRun(str(page), folder, {}, bucket="", quick=quick).run()


def test_page_that_is_right_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_text(tmp_path, OK + "\n```python\nx = 1\n```\n\n- so\n\n  ```python\n  assert x\n  ```\n", monkeypatch)
    assert [block.line for block in read_blocks(str(tmp_path / "page.md"))] == [4, 9, 14, 20]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OK.replace("one\n0.7", "two\n0.7"), "page.md:9: AssertionError: the page shows\ntwo"),
        (OK.replace("0.7 s", "12 s"), "page.md:9: AssertionError: the page shows"),
        (OK.replace("one\n0.7", "ne\n0.7"), "page.md:9: AssertionError: the page shows"),
        ("```\ntrue\nfalse\ntrue\n```\n", "page.md:2: AssertionError: line 3 of the page ends with 1"),
        ("```\necho $UNKNOWN\n```\n", "page.md:2: AssertionError: the block ends with"),
        ("```python\n1 / 0\n```\n", "page.md:2: ZeroDivisionError"),
        ("```text\none\n```\n", "page.md:2: AssertionError: a text that follows no command; list it"),
        ("```rust\none\n```\n", "page.md:2: AssertionError: a text that follows no command; list it"),
        ("```yaml\na: 1\n```\n", "page.md:2: KeyError"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_page_that_is_wrong_fails_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, quick: bool
) -> None:
    with pytest.raises(pytest.fail.Exception, match=message.replace("$", r"\$")):
        run_text(tmp_path, text, monkeypatch, quick=quick)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("relabel-annotate run --no-such-option", "No such option"),
        ("relabel-annotate walk", "has no command walk"),
        ("relabel-train run --recipe resnet9 --shards a --labels b --out c", "resnet9"),
        ("python -m benchmarks.studies.order --no-such-option", "No such option"),
    ],
)
def test_quick_run_parses_what_it_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    with pytest.raises(pytest.fail.Exception, match=message):
        run_text(tmp_path, f"```\n{command}\n```\n", monkeypatch, quick=True)
