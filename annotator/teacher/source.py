"""The source files of a custom model, digested into its identity: edited code is another teacher."""

import hashlib
import inspect
import sys

from torch import nn

from store.errors import TeacherError


def source_digests(name: str, network: nn.Module) -> dict[str, str]:
    """Digests of the file that the model's function is in, and of that of its class if it is in the same package.

    Args:
        name: `package.module:function`, imported.
        network: what the function returned.

    Returns:
        Hex sha256 by module, such as `my_models`.

    Raises:
        TeacherError: the source of one of them cannot be read.
    """
    module = name.partition(":")[0]
    package = module.partition(".")[0]
    digests = {}
    for own in {module, type(network).__module__}:
        if own.partition(".")[0] == package:
            try:
                source = inspect.getsource(sys.modules[own])
            except (OSError, TypeError, KeyError) as error:
                raise TeacherError(
                    f"teacher {name!r}: the source of {own} cannot be read, by which the store identifies the teacher"
                ) from error
            digests[own] = hashlib.sha256(source.encode()).hexdigest()
    return digests
