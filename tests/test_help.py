"""Every command and option has help and an example to copy, and fits a terminal of 80 columns."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipelines.annotate import __main__ as annotate
from pipelines.demo import __main__ as demo
from pipelines.reproduce.__main__ import main as reproduce
from pipelines.train import __main__ as train
from store.cli import main as cli
from tests.builders.paths import DOCS, ROOT

PROGRAMS: dict[str, click.Command] = {
    "relabel-annotate": annotate.main,
    "relabel-train": train.main,
    "relabel-store": cli.main,
    "python -m pipelines.demo": demo.main,
    "python -m pipelines.reproduce": reproduce,
}
GROUPS = {program: main for program, main in PROGRAMS.items() if isinstance(main, click.Group)}
PLACES = {"FILE", "FOLDER", "FOLDER_OR_TAR", "IMAGES", "LABELS", "PATTERN", "STORE"}  # metavars of paths
COLUMNS = 80
WIDTH = COLUMNS - 2  # what click fills of such a terminal


def commands() -> Iterator[tuple[str, click.Command]]:
    yield from PROGRAMS.items()
    for program, group in GROUPS.items():
        for name in group.list_commands(click.Context(group)):
            yield f"{program} {name}", group.commands[name]


ALL = dict(commands())
LEAVES = {name: command for name, command in ALL.items() if not isinstance(command, click.Group)}


def help_of(name: str) -> str:
    program = next(program for program in PROGRAMS if name.startswith(program))
    arguments = [*name[len(program) :].split(), "--help"]
    done = CliRunner().invoke(PROGRAMS[program], arguments, prog_name=program, terminal_width=WIDTH)
    assert done.exit_code == 0, done.output
    return done.stdout


def example_lines(name: str) -> list[str]:
    """Lines of the help below its last heading."""
    found = re.search(r"^ *Examples?:\n(.*)", help_of(name), re.MULTILINE | re.DOTALL)
    assert found, f"{name} --help shows no example"
    return found[1].rstrip().split("\n")


@pytest.mark.parametrize("name", ALL)
def test_help_fits_80_columns(name: str) -> None:
    assert [line for line in help_of(name).splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_option_has_help(name: str) -> None:
    command = ALL[name]
    assert command.help
    bare = [option.opts for option in command.params if isinstance(option, click.Option) and not option.help]
    assert bare == []


@pytest.mark.parametrize("program", GROUPS)
def test_list_of_commands_cuts_no_sentence_short(program: str) -> None:
    assert not re.search(r"\.\.\.$", help_of(program).split("Commands:")[1], re.MULTILINE)


@pytest.mark.parametrize("name", LEAVES)
def test_values_have_names_of_their_own(name: str) -> None:
    """Not TEXT, INTEGER RANGE or PATH, which click writes for an option without a metavar."""
    assert not re.search(r"--\S+ (TEXT\b|INTEGER|FLOAT|PATH\b|FILENAME|DIRECTORY)", help_of(name))


@pytest.mark.parametrize("name", LEAVES)
def test_required_options_come_first(name: str) -> None:
    required = [option.required for option in LEAVES[name].params if isinstance(option, click.Option)]
    assert required == sorted(required, reverse=True)


@pytest.mark.parametrize("name", LEAVES)
def test_examples_are_commands_that_parse(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are kept as written, so that they can be copied."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "train").mkdir(parents=True)
    command, text = LEAVES[name], "\n".join(example_lines(name)).replace("\\\n", " ")
    assert "\\" not in text
    for line in text.splitlines():
        words = shlex.split(line)
        start = name.split()
        assert words[: len(start)] == start
        parent = click.Context(command, **command.context_settings)
        assert command.make_context(name, words[len(start) :], parent)


@pytest.mark.parametrize("name", LEAVES)
def test_every_path_may_begin_with_the_home_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if name.endswith(" pack"):  # whose folder has to exist
        (tmp_path / "x").mkdir()
    context = click.Context(LEAVES[name])
    paths = [p for p in LEAVES[name].params if p.make_metavar(context).strip("[].") in PLACES]
    assert paths or name == "relabel-train settings"
    for param in paths:
        one = (lambda value: (value,)) if param.multiple or param.nargs == -1 else str
        found = param.type_cast_value(context, one("~/x"))
        assert str(found[0] if isinstance(found, tuple) else found) == str(tmp_path / "x"), param.name
        with pytest.raises(click.BadParameter, match=r"no such user; write \./~nobody-here/x"):
            param.type_cast_value(context, one("~nobody-here/x"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_explain_their_exit_status(program: str) -> None:
    assert "Exit status: 0" in help_of(program)


@pytest.mark.parametrize("name", ALL)
def test_short_and_long_help_are_the_same(name: str) -> None:
    program = next(program for program in PROGRAMS if name.startswith(program))
    short = CliRunner().invoke(
        PROGRAMS[program], [*name[len(program) :].split(), "-h"], prog_name=program, terminal_width=WIDTH
    )
    assert short.stdout == help_of(name)


def test_every_command_is_on_a_page() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
    commands = {name for name in LEAVES if name.startswith("relabel-")}
    assert {name for name in commands if name not in pages} == set()
