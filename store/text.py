"""Keys, names and messages made safe to print: they come out of hostile files."""


def printable(text: str) -> str:
    r"""Replace every character that could steer a terminal or break a line by its escape.

    >>> printable("a\x1b[31mb\nc")
    'a\\x1b[31mb\\nc'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def first_few(names: list[str], limit: int = 3) -> str:
    """Join the first names of a list for an error message and count the rest.

    >>> first_few(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
