import json
import re
import shlex

import pytest
from click.testing import CliRunner

from pipelines.train.__main__ import main
from pipelines.train.recipes import RECIPES
from pipelines.train.settings_command import _written, settings_page
from tests.builders.paths import DOCS
from trainer.settings import SETTINGS, settings_to_json, with_overrides


def output(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["settings", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_table_has_a_line_for_each_setting_with_its_default() -> None:
    lines = output().splitlines()
    assert lines[0].split() == ["name", "type", "default", "range", "meaning"]
    assert [line.split()[0] for line in lines[1:]] == list(SETTINGS)
    epochs = next(line for line in lines if line.startswith("epochs "))
    assert " ".join(epochs.split()) == "epochs int 300 1 to 1,000,000 passes over the training set"


def test_nothing_is_cut_on_a_narrow_terminal() -> None:
    text = CliRunner(env={"FORCE_COLOR": "1", "COLUMNS": "80"}).invoke(main, ["settings"]).stdout
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())) <= 80
    assert "\u2026" not in text


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_shows_its_own_values(recipe: str) -> None:
    rows = json.loads(output(recipe, "--json"))
    assert {row["name"]: row["value"] for row in rows} == settings_to_json(RECIPES[recipe]())
    assert output(recipe).splitlines()[0].split() == ["name", "type", "value", "range", "meaning"]


def test_json_tells_type_default_range_and_meaning() -> None:
    rows = {row["name"]: row for row in json.loads(output("--json"))}
    assert rows["lr"] == {
        "name": "lr",
        "type": "float",
        "default": 0.1,
        "range": "above 0, at most 1,000,000",
        "meaning": SETTINGS["lr"].meaning,
    }
    assert rows["model"]["default"] is None
    assert rows["sched"]["range"] == "one of cosine, tanh, poly, step, multistep, constant"
    assert all(row["meaning"] for row in rows.values())


@pytest.mark.parametrize("recipe", RECIPES)
def test_printed_values_can_be_given_to_set(recipe: str) -> None:
    settings = RECIPES[recipe]()
    texts = [f"{name}={_written(value)}" for name, value in settings_to_json(settings).items()]
    assert with_overrides(settings, texts) == settings


def test_an_unknown_recipe_is_one_line_with_near_matches() -> None:
    result = CliRunner().invoke(main, ["settings", "resnet50"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: no recipe is called 'resnet50'; "
        "did you mean resnet50_relabel, resnet101_relabel, resnet50_relabel_timm?\n"
    )
    assert "there are demo, resnet18_relabel" in CliRunner().invoke(main, ["settings", "x"]).stderr


@pytest.mark.parametrize("more", ["demo", "--json"])
def test_the_page_takes_no_recipe_and_no_json(more: str) -> None:
    assert CliRunner().invoke(main, shlex.split(f"settings --markdown {more}")).exit_code == 2


def test_the_committed_page_is_the_generated_one() -> None:
    """Run `relabel-train settings --markdown > docs/settings.md` after a change of trainer/settings.py."""
    assert output("--markdown") == settings_page()
    assert (DOCS / "settings.md").read_text() == settings_page()
