"""The store imports without torch, shown in processes where torch cannot be imported."""

import subprocess
import sys

PROBE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "webdataset"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import pkgutil, importlib
"""
IMPORT_STORE = """
import store
for module in pkgutil.walk_packages(store.__path__, "store."):
    importlib.import_module(module.name)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROBE + code], capture_output=True, text=True, check=False)


def test_every_file_of_the_store_imports_without_torch() -> None:
    result = run(IMPORT_STORE)
    assert result.returncode == 0, result.stderr


def test_probe_fails_where_torch_is_imported() -> None:
    result = run("import annotator.teacher.topk")
    assert result.returncode == 1
    assert "torch is blocked" in result.stderr
