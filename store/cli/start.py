"""Entry points that import a command's modules; Ctrl-C during the imports ends them without a traceback."""

import sys
from importlib import import_module


def start(module: str) -> None:
    """Import a module and run its `main`."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        sys.exit("Aborted!")


def main() -> None:
    """Run `relabel-store`."""
    start("store.cli.main")
