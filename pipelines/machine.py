"""On what figures were taken."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "torchvision", "timm", "zarr", "numcodecs", "numpy", "webdataset", "simplejpeg")


def describe_machine() -> str:
    """All of it in one line."""
    return f"{processor()}, {cores()} cores, {memory_gib():.0f} GiB; {versions()}"


def processor() -> str:
    """Its name, as the kernel has it."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def memory_gib() -> float:
    """Of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def versions() -> str:
    """Of Python and the libraries that figures hang on."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in LIBRARIES)])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
