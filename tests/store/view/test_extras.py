"""Looking at a store without the extras: what needs none works, the rest says in one line what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.view_store import write_view_store

EXTRAS = ("PIL", "simplejpeg", "matplotlib", "jinja2", "markupsafe", "starlette", "uvicorn")
PROBE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
from pipelines.start import store
sys.argv[0] = "relabel-store"
store()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("extras"))


def run(blocked: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROBE.format(blocked=set(blocked)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_cells_and_crops_need_no_extra(made: tuple[Path, str]) -> None:
    result = run(EXTRAS, "show", made[0], "g0/img000", "--cell", "0,0", "--box", "0,0,1,1")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("blocked", "arguments", "module", "extra"),
    [
        ("simplejpeg", ["show", "{labels}", "g0/img000", "--shards", "{shards}"], "simplejpeg", "view"),
        ("matplotlib", ["show", "{labels}", "g0/img000", "--shards", "{shards}", "--png", "x"], "matplotlib", "view"),
        ("PIL", ["show", "{labels}", "g0/img000", "--shards", "{shards}", "--html", "x"], "PIL", "view"),
        ("jinja2", ["show", "{labels}", "g0/img000", "--html", "x"], "jinja2", "web"),
        ("jinja2", ["audit", "{labels}", "--html", "x"], "jinja2", "web"),
        ("starlette", ["browse", "{labels}", "--shards", "{shards}"], "starlette", "web"),
        ("uvicorn", ["browse", "{labels}", "--shards", "{shards}"], "uvicorn", "web"),
    ],
)
def test_missing_extra_is_one_line(
    made: tuple[Path, str], blocked: str, arguments: list[str], module: str, extra: str
) -> None:
    result = run((blocked,), *(a.format(labels=made[0], shards=made[1]) for a in arguments))
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {module} is not installed; in this project's folder, pip install -e '.[{extra}]'\n"
    )
