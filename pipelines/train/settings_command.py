"""The command `relabel-train settings`: a table of all training settings, made from the settings themselves."""

import json
from typing import Any

import click
from rich.table import Table

from pipelines.train.recipes import RECIPES
from store.cli.base import examples
from store.cli.options import json_option
from store.errors import SettingsError
from store.text import brief
from store.view.terminal import make_console
from trainer.settings import MAY_DIFFER, SETTINGS, TrainSettings, near_names, settings_to_json

PAGE = """\
# Training settings

<!-- Written by `relabel-train settings --markdown`; change trainer/settings.py instead. -->

`relabel-train settings` prints this table, `relabel-train settings RECIPE` the same with a recipe's values instead of
the defaults. `relabel-train run` takes a recipe and changes single settings of it with `--set name=value`, such as
`--set lr=0.05`, `--set crop_scale=0.25,1`, `--set flip=false` or `--set 'model_args={"drop_rate": 0.1}'`
([Train a student](howto/train.md)).

"""


@click.command(
    epilog=examples("relabel-train settings", "relabel-train settings resnet50_relabel --json"),
)
@click.argument("recipe", required=False)
@json_option
@click.option("--markdown", is_flag=True, help="Print the documentation page docs/settings.md.")
def settings(recipe: str | None, as_json: bool, markdown: bool) -> None:
    """Print all training settings and what they mean.

    A line for each: name, type, default, range, meaning. With RECIPE, its values instead of the defaults. Any of them
    can be given to `run` as --set NAME=VALUE.
    """
    if markdown and (as_json or recipe):
        raise click.UsageError("--markdown is the page of the defaults; leave RECIPE and --json out")
    if markdown:
        click.echo(settings_page(), nl=False)
    elif as_json:
        click.echo(json.dumps(list(_rows(recipe).values())))
    else:
        _print_table(recipe)


def settings_page() -> str:
    """The content of docs/settings.md."""
    rows = [("name", "type", "default", "range", "meaning"), ("---",) * 5]
    for name, row in _rows(None).items():
        default = "" if row["default"] is None else f"`{_written(row['default'])}`"
        rows.append((f"`{name}`", row["type"], default, row["range"], row["meaning"]))
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    free = [f"`{name}`" for name in SETTINGS if name in MAY_DIFFER]
    return (
        f"{PAGE}{table}\nOf these, a run may be resumed with other values of {', '.join(free[:-1])} and {free[-1]}.\n"
    )


def _rows(recipe: str | None) -> dict[str, dict[str, Any]]:
    """What is known of each setting, as JSON values: its `default`, or its `value` in a recipe."""
    values = None if recipe is None else settings_to_json(_recipe_settings(recipe))
    return {
        name: {
            "name": name,
            "type": setting.type,
            **({"default": setting.default} if values is None else {"value": values[name]}),
            "range": setting.range,
            "meaning": setting.meaning,
        }
        for name, setting in SETTINGS.items()
    }


def _recipe_settings(name: str) -> TrainSettings:
    if name not in RECIPES:
        raise SettingsError(f"no recipe is called {brief(name)}; {near_names(name, list(RECIPES))}")
    return RECIPES[name]()


def _print_table(recipe: str | None) -> None:
    column = "default" if recipe is None else "value"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "type", column, "range", "meaning"):
        table.add_column(name, overflow="fold")  # nothing is cut where the terminal is narrow
    for row in _rows(recipe).values():
        table.add_row(row["name"], row["type"], _written(row[column]), row["range"], row["meaning"])
    make_console().print(table)


def _written(value: object) -> str:
    """A value as it is given to --set; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool | dict):
        return json.dumps(value)
    if isinstance(value, tuple | list):
        return ",".join(map(_written, value))
    return str(value)
