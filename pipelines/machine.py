"""A description of this machine and its libraries, for reports of measurements."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "torchvision", "timm", "zarr", "numcodecs", "numpy", "webdataset", "simplejpeg")


def describe_machine() -> str:
    """Processor, cores, memory and versions in one line."""
    return f"{processor()}, {cores()} cores, {memory_gib():.0f} GiB; {versions()}"


def processor() -> str:
    """The processor's name, as the kernel reports it."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_gib() -> float:
    """Memory of the whole machine, GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def versions() -> str:
    """Versions of Python and of the libraries that affect measurements."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in LIBRARIES)])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
