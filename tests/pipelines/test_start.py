"""The commands beside modules of the user's that have the names of our packages, in real processes."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.builders.paths import ROOT
from tests.builders.training import make_dataset

SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
ADVICE = (
    "take its folder off PYTHONPATH; instead of python -m, run from another folder or use the installed commands "
    "(torchrun --no-python relabel-train ...), which ignore the current folder"
)


def install(folder: Path, name: str) -> Path:
    """A command as pip installs it."""
    module, function = SCRIPTS[name].split(":")
    script = folder / name
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nif __name__ == '__main__':\n"
        f"    sys.exit({function}())\n"
    )
    script.chmod(0o755)
    return script


def run(folder: Path, *command: object, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run in a folder; `first` comes before this project on PYTHONPATH."""
    env = {**os.environ, "PYTHONPATH": f"{first}:{ROOT}" if first else str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's with a module and a package of our names; importing either would end the process."""
    folder = tmp_path / "mine"
    (folder / "trainer").mkdir(parents=True)
    for file in ("store.py", "trainer/__init__.py"):
        (folder / file).write_text("raise SystemExit('the wrong module')\n")
    return folder


def refusal(shadowing: Path, package: str) -> str:
    return f"{str(shadowing)!r} shadows this project's package {package!r}: {ADVICE}\n"


@pytest.mark.parametrize("command", ["annotate", "train", "demo", "reproduce"])
def test_python_m_names_the_file_that_shadows_a_package(mine: Path, command: str) -> None:
    done = run(mine, sys.executable, "-m", f"pipelines.{command}", "--help")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: " + refusal(mine / "store.py", "store"))


def test_a_package_and_a_bare_folder_shadow_as_well(mine: Path) -> None:
    (mine / "store.py").unlink()
    done = run(mine, sys.executable, "-m", "pipelines.train", "--help")
    assert (done.returncode, done.stderr) == (1, "error: " + refusal(mine / "trainer", "trainer"))
    # A folder without an __init__.py yields to a package anywhere on the path, but comes before an editable install.
    (mine / "trainer" / "__init__.py").unlink()
    assert run(mine, sys.executable, "-m", "pipelines.train", "--help").returncode == 0
    done = run(mine, sys.executable, "-c", EDITABLE.format(root=str(ROOT)))
    assert refusal(mine / "trainer", "trainer") in done.stderr


EDITABLE = """
import sys
from importlib.machinery import PathFinder
sys.path.remove({root!r})
class Finder:  # as setuptools puts one behind Python's own
    find_spec = staticmethod(lambda name, path=None, target=None: PathFinder.find_spec(name, path or [{root!r}]))
sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Finder)
import pipelines
"""


@pytest.mark.parametrize(
    ("name", "package", "file"),
    [
        ("relabel-annotate", "store", "store.py"),
        ("relabel-store", "store", "store.py"),
        ("relabel-train", "store", "store.py"),
        ("relabel-train", "trainer", "trainer"),
    ],
)
def test_installed_commands_name_it_where_pythonpath_puts_it_first(
    mine: Path, tmp_path: Path, name: str, package: str, file: str
) -> None:
    if package == "trainer":
        (mine / "store.py").unlink()
    done = run(tmp_path, install(tmp_path, name), "--help", first=str(mine))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: " + refusal(mine / file, package))


@pytest.mark.parametrize("name", ["relabel-annotate", "relabel-store"])
def test_what_a_command_does_not_import_does_not_stop_it(mine: Path, tmp_path: Path, name: str) -> None:
    (mine / "store.py").unlink()
    assert run(tmp_path, install(tmp_path, name), "--help", first=str(mine)).returncode == 0


@pytest.mark.parametrize("command", ["annotate", "train", "demo", "reproduce"])
def test_interrupt_while_python_m_imports_shows_no_traceback(tmp_path: Path, command: str) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")  # the first import of every command
    done = run(ROOT, sys.executable, "-P", "-m", f"pipelines.{command}", "--help", first=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Aborted!\n")


@pytest.mark.parametrize("module", ["store.cli.main", "pipelines.nothing"])
def test_python_itself_refuses_a_module_of_a_shadowed_package(mine: Path, module: str) -> None:
    (mine / "store.py").write_text("")
    done = run(mine, sys.executable, "-m", module)
    assert done.returncode == 1
    assert "store" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_program_that_imports_the_pipelines_can_catch_it(mine: Path) -> None:
    (mine / "program.py").write_text("try:\n    import pipelines\nexcept ImportError as error:\n    print(error)\n")
    (mine / "relabel-mine.py").write_text((mine / "program.py").read_text())
    for command in (("program.py",), ("-m", "program"), ("relabel-mine.py",)):
        done = run(mine, sys.executable, *command)
        assert (done.returncode, done.stdout) == (0, refusal(mine / "store.py", "store")), done.stderr


@pytest.mark.slow
def test_torchrun_trains_by_the_installed_command_beside_ones_own_modules(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    data = make_dataset(tmp_path / "dataset", (40, 30))
    settings = ("epochs=1", "warmup_epochs=0", "batch_size=32", "image_size=32", "workers=1", "device=cpu")
    done = run(
        mine, sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--no-python", install(tmp_path, "relabel-train"), "run", "--recipe", "demo", "--shards", *data.shards[:1],
        "--shards", *data.shards[1:], "--labels", data.labels, "--out", tmp_path / "run",
        *(word for setting in settings for word in ("--set", setting)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 epoch done")
