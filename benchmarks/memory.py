"""The most memory that a process held since its program began; `ru_maxrss` would count what its parent held as well.

It is the largest resident set: mapped libraries and shared pages count, as far as the process has touched them.
"""

import re
from pathlib import Path


def peak_mib(process: int | str = "self") -> float:
    """Of a process of this machine, by its number."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024
