"""The pickles in a `.pt`, checked before torch runs them: with `weights_only` they still may call `bytearray(1 << 40)`.

Without reading the memo nothing can be nested in itself, so few steps cannot grow to many.
"""

import io
import pickletools
import warnings
from typing import IO

from torch.serialization import MAGIC_NUMBER

from store.errors import LabelMapError

GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"} | {
    f"torch {kind}Storage"
    for kind in ("Float", "Half", "Double", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
STEPS = frozenset(
    """
    PROTO STOP GLOBAL REDUCE BINPERSID MARK BINPUT LONG_BINPUT NONE NEWTRUE NEWFALSE
    TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINSTRING
    """.split()  # noqa: SIM905
)
MAX_STEPS = 256  # torch.save takes about 50 for one tensor
MAX_NUMBER = 1 << 24  # sizes, strides and positions in a file of at most 16 MiB
LEGACY_PICKLES = 5  # magic number, protocol, system, tensor, names of storages; then come the values


def check_legacy(data: bytes, where: str) -> None:
    """Refuse a `.pt` that is no archive unless its pickles are those of tensors.

    Raises:
        LabelMapError: damaged, or more than one tensor needs.
    """
    stream = io.BytesIO(data)
    for _ in range(LEGACY_PICKLES):
        check_pickle(stream, where)


def check_pickle(stream: IO[bytes], where: str) -> None:
    """Read past one pickle, none of whose steps does more than putting a tensor together.

    Raises:
        LabelMapError: damaged, or more than one tensor needs.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd texts in steps that are refused a line later
            for count, (step, value, _) in enumerate(pickletools.genops(stream)):
                if count >= MAX_STEPS or not _is_plain(step.name, value):
                    raise LabelMapError(f"{where}: not loaded: its pickle is damaged, or holds more than a tensor")
    except LabelMapError:
        raise
    except ValueError as error:
        raise LabelMapError(f"{where}: not a tensor saved by torch: {str(error)[:200]!r}") from error


def _is_plain(step: str, value: object) -> bool:
    if step == "GLOBAL":
        return value in GLOBALS
    if isinstance(value, int) and not 0 <= value <= MAX_NUMBER and value != MAGIC_NUMBER:
        return False
    return step in STEPS
