"""Where the commands of this package begin."""

from store.cli.start import start


def annotate() -> None:
    """`relabel-annotate`."""
    start("pipelines.annotate.__main__")


def train() -> None:
    """`relabel-train`."""
    start("pipelines.train.__main__")
