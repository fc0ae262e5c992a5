"""The README is short, and the messages of the troubleshooting page exist in the code."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.builders.paths import DOCS, ROOT

README_WORDS = 900
PACKAGES = ("annotator", "pipelines", "store", "trainer")
HOLE = "\0"  # stands for a value of a formatted string


def readme_words() -> int:
    return len((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_readme_is_short() -> None:
    assert readme_words() <= README_WORDS


def quoted_messages() -> list[str]:
    """The messages of the troubleshooting page: code in the first cell of a table's row."""
    rows = re.findall(r"^\| (`.*?`) \|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [message for cell in rows for message in re.findall(r"`([^`]+)`", cell)]


def texts_of(source: str) -> Iterator[str]:
    """All strings of a module but docstrings; values of formatted strings are holes."""
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
            yield node.value


def occurs(message: str, texts: list[str]) -> bool:
    """Whether one string holds the message's parts in this order.

    >>> occurs("a ... c", ["a b c"]), occurs("a ... c", ["c b a"]), occurs("... c", ["b c"])
    (True, False, True)
    """
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in message.split("...")), re.DOTALL)
    return any(pattern.search(text) for text in texts)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return [text for file in files for text in texts_of(file.read_text(encoding="utf-8"))]


def test_there_are_messages() -> None:
    assert len(quoted_messages()) >= 30


@pytest.mark.parametrize("message", quoted_messages())
def test_every_message_of_the_troubleshooting_page_is_in_the_code(message: str, texts: list[str]) -> None:
    assert occurs(message, texts)


def test_docstrings_and_reordered_parts_do_not_count() -> None:
    source = '"""no such key"""\nraise LookupError(f"{path}: no such {name}; " "look elsewhere")\n'
    found = list(texts_of(source))
    assert occurs("no such ...; look elsewhere", found)
    assert not occurs("no such key", found)
    assert not occurs("look ... no such", found)
