"""What a report is called, and of which commit it is."""

import re
import subprocess

from benchmarks.command_lines import ROOT


def slug(text: str) -> str:
    """Fit for a file's name.

    >>> slug("Intel(R) Xeon(R), 16 cores")
    'intel-r-xeon-r-16cores'
    """
    text = re.sub(r"(\d) cores", r"\1cores", text)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def commit() -> str:
    """The commit, and whether files differ from it."""
    try:
        head, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, with changes that are not committed" if changes else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
