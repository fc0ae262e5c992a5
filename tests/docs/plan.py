"""What is done with each block: the substitutions applied, the listed commands taken out."""

import importlib
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import PurePath

import click

from tests.builders.paths import ROOT
from tests.docs.blocks import SHELL, Block, Command, split_commands
from tests.docs.rules import NOT_RUN, SUBSTITUTIONS, NotRun

# Commands that load torch take seconds: the quick test only parses them.
HEAVY = re.compile(r"relabel-(annotate|train)\b|^torchrun|^make|-m (benchmarks|pipelines|tests)\.(?!docs)")
OURS = {
    "relabel-annotate": "pipelines.annotate",
    "relabel-train": "pipelines.train",
    "relabel-store": "store.cli.main",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A block, ready to run."""

    block: Block
    text: str  # after the substitutions, with the same lines
    listed: tuple[tuple[Command, NotRun], ...]  # a shell block's commands that are not run

    def script(self, without: tuple[Command, ...] = ()) -> str:
        """A shell block's text with the lines of listed and the given commands blanked."""
        lines = self.text.splitlines()
        for command in (*(command for command, _ in self.listed), *without):
            lines[command.line : command.line + command.lines] = [""] * command.lines
        return "\n".join(lines)

    def commands(self) -> list[Command]:
        """Those that are run, as they are run."""
        return split_commands(self.script())


def plan(block: Block) -> Plan:
    text = block.text
    for pattern, replacement in SUBSTITUTIONS:
        text = re.sub(pattern, replacement, text)
    assert text.count("\n") == block.text.count("\n"), f"{block.place}: a substitution changes the number of lines"
    commands = split_commands(block.text) if block.language in SHELL else []
    listed = [(command, rule) for command in commands if (rule := find_rule(block.page, command.text))]
    return Plan(block=block, text=text, listed=tuple(listed))


def find_rule(page: str, text: str) -> NotRun | None:
    """The first rule that takes a command, or a block that is none, out."""
    return next((rule for rule in NOT_RUN if rule.page == page and _begins(text, rule.start)), None)


def _begins(text: str, start: str) -> bool:
    """Whether a text begins with these whole words."""
    return re.match(re.escape(start) + (r"(?!-?\w)" if start[-1].isalnum() else ""), text) is not None


def check_parses(command: str) -> None:
    """Our own parser understands this command; click.UsageError if not."""
    words = shlex.split(command)
    for i, word in enumerate(words):
        name = PurePath(word).name
        if name in OURS:
            module, rest = OURS[name], words[i + 1 :]
        elif word == "-m" and words[i + 1].startswith(("pipelines.", "benchmarks.")):
            module, rest = words[i + 1], words[i + 2 :]
        else:
            continue
        main = importlib.import_module(f"{module}.__main__" if _is_package(module) else module).main
        parent = None
        if isinstance(main, click.Group):
            found = main.get_command(click.Context(main), rest[0])
            assert found is not None, f"{name} has no command {rest[0]}"
            parent, main, rest = click.Context(main, **main.context_settings), found, rest[1:]
        if isinstance(main, click.Command):
            main.make_context(name, rest, parent)
        return
    raise AssertionError("none of our commands")


def is_program(text: str) -> bool:
    """Whether a block of Python is a whole program, which takes as long as a heavy command."""
    return '__name__ == "__main__"' in text


def check_extras(command: str) -> None:
    """The extras that a `pip install` names exist."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"(?:relabel|\.)\[(.*?)\]", command):
        assert set(names.split(",")) <= known.keys(), f"unknown extras in {names}"


def _is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()
