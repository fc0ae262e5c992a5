"""The first moment of a command: Ctrl-C while Python still imports its modules ends it as quietly as later."""

import sys
from importlib import import_module


def start(module: str) -> None:
    """Run a module's `main`."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        sys.exit("Aborted!")


def main() -> None:
    """`relabel-store`."""
    start("store.cli.main")
