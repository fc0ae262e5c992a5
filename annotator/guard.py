"""A network's code may be anybody's: whatever it raises becomes one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from store.errors import RelabelError, TeacherError
from store.text import typed_line


@contextmanager
def one_line(what: str, hint: str = "") -> Iterator[None]:
    """Turns errors of a network's own code into a TeacherError: what, what it raised, and a hint.

    Also a call of `sys.exit`, which would end a run as if all were done. A signal that ends the run raises a subclass
    of SystemExit, and passes.
    """
    try:
        yield
    except (RelabelError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and type(error) is not SystemExit:
            raise
        raise TeacherError(f"{what}: {typed_line(error)}{hint}") from error
