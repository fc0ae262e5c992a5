"""Where a report was made: hardware, versions, commit."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.command_lines import ROOT

LIBRARIES = ("torch", "torchvision", "timm", "zarr", "numcodecs", "numpy", "simplejpeg", "ray")


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """Its name, as the kernel has it."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def memory_gib() -> float:
    """Of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def slug(text: str) -> str:
    """Fit for a file's name.

    >>> slug("Intel(R) Xeon(R), 16 cores")
    'intel-r-xeon-r-16cores'
    """
    text = re.sub(r"(\d) cores", r"\1cores", text)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def versions() -> str:
    """Of Python and the libraries that are measured or compared with."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in LIBRARIES)])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit, and whether files differ from it."""
    try:
        head, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, with changes that are not committed" if changes else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
