"""Starts the installed commands, and finds user files that shadow this project's packages.

The names `annotator`, `store` and `trainer` are common. Python searches the current folder (`python -m`) and PYTHONPATH
first, so that a user's own `store.py` or `trainer/` there is imported instead of ours. This module therefore imports
nothing of these packages.
"""

import re
import sys
from importlib import import_module
from importlib.util import find_spec
from os.path import realpath
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the folder of annotator, pipelines, store and trainer
NEEDED = {"annotate": ("annotator", "store"), "store": ("store",)}  # by the commands that do not import all three


def running_command() -> str | None:
    """Name of the command that this process runs, without `relabel-`; None in a user's program."""
    program = Path((sys.argv or [""])[0]).name
    if program != "-m":  # which Python replaces by the module's file once the module's parent packages are imported
        script = re.fullmatch(r"relabel-(annotate|store|train)", program)
        return script[1] if script else None
    modules = (re.fullmatch(r"(?:-m)?pipelines\.(\w+)(?:\.\w+)*", word) for word in sys.orig_argv)
    return next((module[1] for module in modules if module), None)


def shadowed(command: str | None) -> str | None:
    """One line that names a file that Python would import instead of a package of ours; None if there is none."""
    for name in NEEDED.get(command or "", ("annotator", "store", "trainer")):
        spec = find_spec(name)
        if spec is None:
            continue
        found = next(iter(spec.submodule_search_locations or ()), spec.origin)
        if found and realpath(found) != str(ROOT / name):
            return (
                f"{found!r} shadows this project's package {name!r}: take its folder off PYTHONPATH; instead of "
                "python -m, run from another folder or use the installed commands (torchrun --no-python relabel-train "
                "...), which ignore the current folder"
            )
    return None


def annotate() -> None:
    """`relabel-annotate`."""
    start("pipelines.annotate.__main__")


def train() -> None:
    """`relabel-train`."""
    start("pipelines.train.__main__")


def store() -> None:
    """`relabel-store`."""
    start("store.cli.main")


def start(module: str) -> None:
    """Run a module's `main`; Ctrl-C during its imports ends the command without a traceback, as it does later."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        sys.exit("Aborted!")
