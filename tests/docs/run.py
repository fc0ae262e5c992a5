"""Runs a page's blocks, one after the other, in a folder.

Known holes: of `a && b` a failing `a` passes, as `set -e` has it; of what a block sets, only lines that set one plain
variable reach the next one; lines around those that a page shows are not compared, and decimals are not; commands
within a sentence are not run.
"""

import configparser
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.builders.paths import ROOT
from tests.docs.blocks import SHELL, Command, read_blocks
from tests.docs.plan import HEAVY, Plan, check_extras, check_parses, find_rule, is_program, plan
from tests.docs.rules import UNTIL_DONE

LINE = "failed in line "
HEADER = f"set -euo pipefail; trap 'echo \"{LINE}$LINENO\"' ERR; "  # before the block's first line


class PageRun:
    """One page in one folder: the namespace of its Python, and what its last shell block printed."""

    def __init__(self, page: str, folder: Path, environment: dict[str, str], *, bucket: str, quick: bool) -> None:
        self.page, self.folder, self.bucket, self.quick = page, folder, bucket, quick
        self.environment = os.environ | environment | {
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }  # fmt: skip
        self.names: dict[str, Any] = {"__name__": "page"}
        self.output: str | None = None  # of the last block of commands, where all were run
        self.parsed = False  # whether some of them were only parsed
        self.variables = ""  # that blocks have set

    def run(self) -> None:
        for block in read_blocks(self.page):
            step = plan(block)
            try:
                self._run_block(step)
            except Exception as error:
                pytest.fail(f"{block.place}: {type(error).__name__}: {error}", pytrace=False)

    def _run_block(self, step: Plan) -> None:
        language = step.block.language
        if language in SHELL:
            self._run_shell(step)
        elif language == "python":
            self._run_python(step)
        elif language == "yaml":
            self._run_kubernetes(step)
        elif language == "ini":
            self._run_systemd(step)
        else:
            self._compare(step)

    def _run_shell(self, step: Plan) -> None:
        for command, rule in step.listed:
            text = split(step.text, command)
            self._check(text, rule.check)
        heavy = tuple(command for command in step.commands() if self.quick and self._is_heavy(command.text))
        for command in heavy:
            self._check(command.text, "planned" if command.text.startswith("make ") else "parsed")
        output = self._bash(step.script(heavy), step.block.line)
        self.variables += "".join(f"{line}; " for line in re.findall(r"^[A-Z]+=\S+$", step.text, re.MULTILINE))
        self.output, self.parsed = None if heavy else output, bool(heavy)

    def _is_heavy(self, command: str) -> bool:
        """Whether it loads torch, or needs a store that only such a command would have made."""
        stores = re.findall(r"(?<![\w/.])[\w/]+\.zarr", command)
        return bool(HEAVY.search(command)) or not all((self.folder / store).exists() for store in stores)

    def _bash(self, script: str, line: int) -> str:
        text = HEADER + self.variables + script.replace("BUCKET", self.bucket)
        done = subprocess.run(
            ["bash", "-c", text], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=900,
        )  # fmt: skip
        if done.returncode:
            found = re.findall(rf"^{LINE}(\d+)$", done.stdout, re.MULTILINE)
            where = f"line {line + int(found[0]) - 1} of the page" if found else "the block"
            raise AssertionError(f"{where} ends with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout

    def _check(self, command: str, how: str) -> None:
        if how == "parsed":
            try:
                check_parses(command)
            except click.ClickException as error:
                raise AssertionError(f"{command}: {error.format_message()}") from error
        elif how == "extras":
            check_extras(command)
        elif how == "planned":
            planned = self._bash(command.replace("make ", "make -n ", 1), 0).replace("\\\n", " ")
            for line in planned.splitlines():
                if re.search(r"/relabel-|-m (pipelines|benchmarks)\.", line):
                    self._check(line, "parsed")

    def _run_python(self, step: Plan) -> None:
        text, name = step.text, re.match(r"# (\w+\.py)\n", step.text)
        if name:
            (self.folder / name[1]).write_text(text)
            runpy.run_path(str(self.folder / name[1]))
        elif (is_program(text) and self.quick) or find_rule(step.block.page, step.block.text):
            compile(text, step.block.page, "exec")
        elif is_program(text):
            (self.folder / "program.py").write_text(text)
            self.output = self._bash("python program.py", step.block.line)
            assert not re.search(r"\b(nan|inf)\b", self.output), self.output
        else:
            padding = "\n" * (step.block.line - 1)  # so that a traceback names the page's lines
            exec(compile(padding + text, step.block.page, "exec"), self.names)

    def _run_kubernetes(self, step: Plan) -> None:
        """The first container's command, as the first pod of the job runs it."""
        job = yaml.safe_load(step.text)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        self._service([*container["command"], *container["args"]], {"JOB_COMPLETION_INDEX": "0"})

    def _run_systemd(self, step: Plan) -> None:
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(step.text)
        command = unit["Service"]["ExecStart"].replace("/opt/relabel/bin/", "")
        self._service([*shlex.split(UNTIL_DONE), *shlex.split(command)], {})  # systemd expands no patterns either

    def _service(self, command: list[str], environment: dict[str, str]) -> None:
        script = shlex.join(command)
        if self.quick:
            self._check(command[-1] if command[0] == "sh" else script, "parsed")
            return
        variables = "".join(f"export {name}={value}; " for name, value in environment.items())
        self._bash(variables + script, 1)

    def _compare(self, step: Plan) -> None:
        """A text is what the commands before it print; `...` stands for any lines, a decimal for any decimal."""
        text, rule = step.text, find_rule(step.block.page, step.block.text)
        if (rule and rule.check != "words") or self.parsed:
            return
        assert self.output is not None, "a text that follows no command; list it in tests/docs/rules.py"
        number = r"[\d.,]+" if rule else r"\d+\.\d+"
        pattern = r"\s*\n".join(
            "(.*)" if line == "..." else re.sub(r" +", r" +", _masked(line.strip(), number))
            for line in _one_epoch(text).splitlines()
        )
        printed = "\n".join(line.strip() for line in _one_epoch(self.output).splitlines())
        if not re.search(f"^{pattern}$", printed, re.DOTALL | re.MULTILINE):
            raise AssertionError(f"the page shows\n{text}\nbut the commands print\n{self.output}")


def split(text: str, command: Command) -> str:
    """A command of a block after its substitutions, on one line."""
    lines = text.splitlines()[command.line : command.line + command.lines]
    return " ".join(line.rstrip("\\").strip() for line in lines)


def _one_epoch(text: str) -> str:
    """A text in which "epochs" is singular; tests train for fewer, perhaps one."""
    return text.replace(" epochs", " epoch")


def _masked(line: str, number: str) -> str:
    """A regular expression for a line in which some numbers may be others."""
    parts = re.split(f"({number})", line)
    return "".join(number if i % 2 else re.escape(part).replace(r"\ ", " ") for i, part in enumerate(parts))
