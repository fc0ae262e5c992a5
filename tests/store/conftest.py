"""Debian's chromium for pytest-playwright; where there is none, the browser tests are skipped."""

import shutil
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium: apt-get install chromium")
    return {"executable_path": path, "args": ["--no-sandbox"]}


@pytest.fixture(scope="session")
def base_url() -> None:
    """No address of its own: the plugin's fixture of this name is defined in a way that pytest 9 warns of."""
