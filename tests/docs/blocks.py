"""The fenced blocks of the documentation, each with its place, and a shell block's commands."""

import re
import textwrap
from dataclasses import dataclass

from tests.builders.paths import ROOT

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
SHELL = ("", "sh", "bash")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """What stands between two fences."""

    page: str  # path below the project's root
    line: int  # of its first line, from 1
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command of a shell block, with its continuation lines."""

    line: int  # within the block, from 0
    lines: int
    text: str  # on one line, without comments


def pages() -> list[str]:
    """README and docs; only those that hold blocks."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [file.relative_to(ROOT).as_posix() for file in files]
    return [name for name in names if read_blocks(name)]


def read_blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("text")) + 1,
            language=match["language"].strip(),
            text=textwrap.dedent(match["text"]),
        )
        for match in FENCE.finditer(text)
    ]


def split_commands(text: str) -> list[Command]:
    r"""Each line that is not empty or a comment, together with the lines that continue it.

    >>> [(c.line, c.lines, c.text) for c in split_commands("# so\na \\\n  b  # c\n\nd")]
    [(1, 2, 'a b'), (4, 1, 'd')]
    """
    commands, lines, i = [], text.splitlines(), 0
    while i < len(lines):
        start = i
        while lines[i].endswith("\\") or _open_quote("\n".join(lines[start : i + 1])):
            i += 1
        i += 1
        joined = re.sub(r"\\\n\s*", " ", "\n".join(lines[start:i]))
        plain = re.sub(r"(^|\s+)#.*$", "", re.sub(r" {2,}", " ", joined)).strip()
        if plain:
            commands.append(Command(line=start, lines=i - start, text=plain))
    return commands


def _open_quote(text: str) -> bool:
    """Whether a quoted text goes on in the next line."""
    plain = re.sub(r"(^|\s)#.*", "", text)
    return plain.count("'") % 2 == 1 and plain.count('"') % 2 == 0
