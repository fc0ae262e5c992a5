"""The source files of a custom model, digested into its identity: edited code is another teacher."""

import hashlib
import sys
from pathlib import Path

from torch import nn


def source_digests(name: str, network: nn.Module) -> dict[str, str]:
    """Digests of the file that the model's function is in, and of that of its class if it is in the same package.

    Args:
        name: `package.module:function`, imported.
        network: what the function returned.

    Returns:
        Hex sha256 by file name, such as `my_models.py`; without modules that have no source file.
    """
    module = name.partition(":")[0]
    package = module.partition(".")[0]
    own = [module, type(network).__module__]
    files = [
        Path(file)
        for found in own
        if found.partition(".")[0] == package and (file := getattr(sys.modules.get(found), "__file__", None))
    ]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.suffix == ".py"}
