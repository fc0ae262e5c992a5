"""What error messages quote: values and other libraries' errors, as one short line whatever they hold."""

import reprlib

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
