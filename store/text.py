"""Keys, names and messages made fit to print: they come out of hostile files and of other libraries."""

import reprlib


def printable(text: str) -> str:
    r"""Replace every character that could steer a terminal or break a line by its escape.

    >>> printable("a\x1b[31mb\nc")
    'a\\x1b[31mb\\nc'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def counted(count: int, noun: str) -> str:
    """A number with what it counts.

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


def first_line(error: BaseException) -> str:
    r"""What an error of another library says first, in bounded length, or its type where it says nothing.

    >>> first_line(ValueError("no\nlong dump")), first_line(AssertionError())
    ('no', 'AssertionError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def typed_line(error: BaseException) -> str:
    """The same with the error's type before it, for what somebody else's code raised.

    >>> typed_line(KeyError("a"))
    "KeyError: 'a'"
    """
    return f"{type(error).__name__}: {first_line(error)}"


# What error messages quote: values and other libraries' errors, as one short line whatever they hold.


MAX_REASON = 200  # characters

_quote = reprlib.Repr()
_quote.maxstring = _quote.maxother = 100


def brief(value: object) -> str:
    """The value as Python writes it, cut short where it is long or nested deeply.

    >>> brief({"a": [1.5, "b"]}), brief([[[[[[[[]]]]]]]])
    ("{'a': [1.5, 'b']}", '[[[[[[[...]]]]]]]')
    """
    return _quote.repr(value)


def reason(error: BaseException) -> str:
    r"""What an error says, or its type's name where it says nothing.

    >>> reason(ValueError("two\nlines")), reason(AssertionError())
    ('two lines', 'AssertionError')
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else text[:MAX_REASON] + "..."
