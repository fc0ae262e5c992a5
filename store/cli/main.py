"""The command `relabel-store` and its subcommands."""

import click

from store.cli.audit import audit
from store.cli.base import CONTEXT, Commands
from store.cli.browse import browse
from store.cli.maintain import gc, merge_stores, verify
from store.cli.show import ls, show


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="relabel")
def main() -> None:
    """View, audit and maintain a label store, as `relabel-annotate` writes it.

    LABELS is always the store: a path, or a URL such as s3://bucket/labels.zarr.

    Exit status: 0 success; 1 an error or damage, explained in a line; 2 wrong usage.
    """


for command in (show, ls, browse, audit, verify, merge_stores, gc):
    main.add_command(command)

if __name__ == "__main__":
    main()
