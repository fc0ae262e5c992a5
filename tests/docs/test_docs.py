"""Every fenced block of README and docs is run, in a small world, or listed with the reason why not.

The quick test of a page runs its Python and what loads no torch, and parses the other commands. The whole one, slow,
runs everything in the page's order. `tests/docs/rules.py` says what is made smaller and what is left out.
"""

import re
from pathlib import Path

import pytest

from tests.builders.paths import ROOT
from tests.builders.servers import make_bucket, s3_environment
from tests.docs.blocks import SHELL, pages, read_blocks, split_commands
from tests.docs.material import NAMES, VAL_CLASSES, WNIDS, Material, put_files
from tests.docs.plan import HEAVY, find_rule, is_program, plan
from tests.docs.rules import GIVEN, GIVEN_QUICK, NOT_RUN, SUBSTITUTIONS
from tests.docs.run import PageRun

BLOCKS = [block for page in pages() for block in read_blocks(page)]


def is_heavy(page: str) -> bool:
    """Whether the quick test leaves something to the whole one."""
    steps = [plan(block) for block in read_blocks(page)]
    return any(step.block.language in ("yaml", "ini") or is_program(step.text) for step in steps) or any(
        HEAVY.search(command.text) for step in steps if step.block.language in SHELL for command in step.commands()
    )


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(page: str, folder: Path, material: Material, request: pytest.FixtureRequest, *, quick: bool) -> None:
    given = GIVEN.get(page, ()) + (GIVEN_QUICK.get(page, ()) if quick else ())
    in_bucket = "labels in the bucket" in given
    material.prepare(folder, tuple(name for name in given if name != "labels in the bucket"))
    environment, bucket = {}, ""
    if any("s3://" in plan(block).script() for block in read_blocks(page) if block.language in (*SHELL, "yaml")):
        url = request.getfixturevalue("s3_url")
        environment, bucket = s3_environment(url), re.sub(r"\W+", "-", f"{page}-{quick}").lower()
        make_bucket(url, bucket)
        put_files(url, bucket, folder, sorted(folder.glob("*.tar")))
        if in_bucket:
            put_files(url, bucket, folder, sorted(file for file in folder.glob("labels.zarr/**/*") if file.is_file()))
    PageRun(page, folder, environment, bucket=bucket, quick=quick).run()
    if page == "docs/howto/imagenet.md":
        check_imagenet(folder)


def check_imagenet(folder: Path) -> None:
    """Every validation image lies in the folder of its class, which the devkit numbers in another order."""
    for number, wnid in enumerate(VAL_CLASSES, start=1):
        assert (folder / "images" / "val" / wnid / f"ILSVRC2012_val_{number:08}.JPEG").is_file()
    assert (folder / "imagenet_names.txt").read_text().splitlines() == list(NAMES)
    assert len(list(folder.glob("images/train/*/*.JPEG"))) == 8 * len(WNIDS)


@pytest.mark.parametrize("doc", pages())
def test_quick_blocks_run_and_the_other_commands_are_understood(
    doc: str, folder: Path, material: Material, request: pytest.FixtureRequest
) -> None:
    run_page(doc, folder, material, request, quick=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("doc", [page for page in pages() if is_heavy(page)])
def test_every_block_runs(doc: str, folder: Path, material: Material, request: pytest.FixtureRequest) -> None:
    run_page(doc, folder, material, request, quick=False)


def test_every_fence_is_a_block() -> None:
    for page in {block.page for block in BLOCKS}:
        fences = len(re.findall(r"^ *(```|~~~)", (ROOT / page).read_text(), re.MULTILINE))
        assert fences == 2 * len(read_blocks(page)), page


@pytest.mark.parametrize("rule", NOT_RUN, ids=lambda rule: f"{rule.page}: {rule.start}")
def test_what_is_listed_is_still_on_its_page(rule: object) -> None:
    found = [
        find_rule(block.page, text)
        for block in BLOCKS
        for text in ([c.text for c in split_commands(block.text)] if block.language in SHELL else [block.text])
    ]
    assert rule in found


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in SUBSTITUTIONS])
def test_every_substitution_is_still_needed(pattern: str) -> None:
    applied = 0
    for block in BLOCKS:
        text = block.text
        for other, replacement in SUBSTITUTIONS:
            if other == pattern:
                applied += len(re.findall(pattern, text))
                break
            text = re.sub(other, replacement, text)
    assert applied
