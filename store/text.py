"""Text of messages: keys, names, values and errors of other libraries as short, printable lines."""

import reprlib

MAX_LENGTH = 300  # characters of an error or a value in a message
MAX_SHOWN = 4_000  # characters of a line or a cell of a table; texts in a store may have millions

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100
_repr.maxdict = _repr.maxlist = _repr.maxtuple = 12


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    r"""Replace every character that could control a terminal or break a line by its escape, and cut a very long text.

    >>> printable("a\x1b[31mb\nc"), printable("abc" * 9, limit=3)
    ('a\\x1b[31mb\\nc', 'abc... (27 characters)')
    """
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:limit])
    return shown if len(text) <= limit else f"{shown}... ({len(text):,} characters)"


def as_utf8(argument: str) -> str:
    r"""An argument of a command whose bytes this locale cannot decode, decoded as UTF-8; any other as it is.

    >>> as_utf8("gr\udcc3\udcbcn"), as_utf8("a\udcff"), as_utf8("b")
    ('gr\xfcn', 'a\udcff', 'b')
    """
    try:
        return argument.encode(errors="surrogateescape").decode()
    except UnicodeError:
        return argument


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "epoch"), counted(2_000, "shard")
    ('1 epoch', '2,000 shards')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def first_few(names: list[str], limit: int = 3) -> str:
    """Join the first names of a list for an error message and count the rest.

    >>> first_few(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def brief(value: object) -> str:
    """A value as Python writes it, printable, cut short where it is long or nested deeply.

    >>> brief({"a": [1.5, "b"]}), brief([[[[[[[[]]]]]]]])
    ("{'a': [1.5, 'b']}", '[[[[[[[...]]]]]]]')
    """
    return _cut(printable(_repr.repr(value)))


def first_line(error: BaseException) -> str:
    r"""The first line of an error's message, with the next where it ends in a colon; the error's type if it is empty.

    >>> first_line(ValueError("no\nlong dump")), first_line(ValueError("failed:\n\tno")), first_line(AssertionError())
    ('no', 'failed: no', 'AssertionError')
    """
    lines = _lines(error)
    return _cut(" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])


def last_line(error: BaseException) -> str:
    r"""The last line of an error's message, for errors whose message is the text of a traceback.

    >>> last_line(ValueError("Traceback:\n  at a\nno module b\n")), last_line(AssertionError())
    ('no module b', 'AssertionError')
    """
    return _cut(_lines(error)[-1])


def typed_line(error: BaseException) -> str:
    """The error's type and the first line of its message, for exceptions of user code.

    >>> typed_line(KeyError("a")), typed_line(AssertionError())
    ("KeyError: 'a'", 'AssertionError')
    """
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def _lines(error: BaseException) -> list[str]:
    """The lines of an error's message that are not empty, or else its type: never an empty list."""
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."
