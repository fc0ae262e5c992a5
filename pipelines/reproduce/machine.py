"""On what figures were taken."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "timm", "zarr", "numpy", "webdataset")


def machine() -> str:
    """Processor, cores, Python and the libraries, as one line."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {libraries}."


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
