"""Published maps as files: the bytes of a `.pt` to checked arrays, and back.

Source: the official repository's loader, which reads [2, K, A, B]: scores, then class ids.
Shape letters: K kept classes, A B cells in the order of the file, which is (y, x) or (x, y).
"""

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from annotator.teacher.topk import FLOAT16_MAX
from store.archives import ZIP_MAGIC, foreign_content
from store.errors import LabelMapError
from store.text import first_line

Axes = Literal["yx", "xy"]

MAX_IMAGE_BYTES = 1 << 30  # a sparse tar may claim any number
MAX_FILE_BYTES = 1 << 24  # 16 MiB; a map of 5 x 15 x 15 takes 9,300 to 10,600
EXACT_IN_FLOAT16 = 2048  # the largest class id up to which float16 tells all ids apart

ZIP_PARTS = re.compile(r"data\.pkl|byteorder|version|data/.*")  # that torch.load needs of an archive
LEGACY_PICKLES = 5  # of a file that is no archive: magic number, protocol, system, tensor, names of storages
GLOBALS = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch [A-Z]\w*Storage")
MEMO_READS = frozenset({"GET", "BINGET", "LONG_BINGET"})
MAX_STEPS = 256  # torch.save takes about 50 for one tensor
NOT_LOADED = "not loaded: its pickle is damaged, or holds more than a tensor"


@dataclass(frozen=True, slots=True, eq=False)
class PublishedMap:
    """A label map with its cells in the order of the file."""

    classes: NDArray[np.uint16]  # (K, A, B), k = 0 the highest score
    scores: NDArray[np.float16]  # (K, A, B) logits, descending along K

    @property
    def shape(self) -> tuple[int, int, int]:
        """K, A, B."""
        top_k, first, second = self.classes.shape
        return top_k, first, second

    def turned(self) -> "PublishedMap":
        """The same map with its two cell axes exchanged."""
        return PublishedMap(self.classes.swapaxes(1, 2), self.scores.swapaxes(1, 2))


def load_map(data: bytes, where: str, *, num_classes: int) -> PublishedMap:
    """Read one published map from the bytes of its file, never running code from it.

    Args:
        data: the whole file, at most `MAX_FILE_BYTES`.
        where: the file, for messages.
        num_classes: C; ids must be below it.

    Returns:
        The map, each cell's classes in descending order of score.

    Raises:
        LabelMapError: not exactly one plain tensor, another shape or type, or values outside their range.
    """
    tensor, stored_bytes = _load_tensor(data, where)
    _check_tensor(tensor, stored_bytes, where, num_classes)
    values = tensor.detach().resolve_neg().numpy()
    scores, ids = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    if not (np.abs(scores) <= FLOAT16_MAX).all():  # false for NaN too
        raise LabelMapError(f"{where}: scores that are NaN or beyond 65,504, which a store cannot hold")
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        whole = ids == np.floor(ids)
    if not ((ids >= 0) & (ids < num_classes) & whole).all():
        raise LabelMapError(f"{where}: class ids that are not integers from 0 to {num_classes - 1}; see --num-classes")
    return _sorted_by_score(scores.astype(np.float16), ids.astype(np.uint16), where)


def dump_map(published: PublishedMap) -> bytes:
    """A `.pt` as the official loader reads it: float32 [2, K, A, B], scores, then class ids."""
    both = np.empty((2, *published.shape), np.float32)  # in C order; the parts may have another
    both[0], both[1] = published.scores, published.classes
    file = io.BytesIO()
    torch.save(torch.from_numpy(both), file)
    return file.getvalue()


def _check_tensor(tensor: Tensor, stored_bytes: int, where: str, num_classes: int) -> None:
    shape, dense = tuple(tensor.shape), tensor.layout == torch.strided and tensor.device.type == "cpu"
    if tensor.dtype not in (torch.float64, torch.float32, torch.float16) or not dense:
        raise LabelMapError(
            f"{where}: a {tensor.layout} {tensor.dtype} tensor, expected float64, float32 or float16 on the CPU"
        )
    if len(shape) != 4 or shape[0] != 2 or 0 in shape:
        raise LabelMapError(f"{where}: a tensor of shape {list(shape)}, expected [2, K, H, W]: scores, then class ids")
    # A stride of 0 lets a kilobyte claim any number of elements; a storage may claim more than torch has read.
    claimed = max(tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size())
    if claimed > stored_bytes:
        raise LabelMapError(f"{where}: claims {tensor.numel():,} elements over {stored_bytes:,} stored bytes")
    if not _is_dense(tensor):
        raise LabelMapError(f"{where}: values that overlap or have gaps between them; save it with .contiguous()")
    if shape[1] > num_classes:
        raise LabelMapError(f"{where}: a top {shape[1]} of {num_classes} classes; see --num-classes")
    if tensor.dtype == torch.float16 and num_classes > EXACT_IN_FLOAT16 + 1:
        raise LabelMapError(f"{where}: float16 cannot tell the ids of {num_classes} classes apart; save it as float32")


def _is_dense(tensor: Tensor) -> bool:
    """Whether the values fill a stretch of memory, each once, in any order of the axes."""
    filled = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != filled:
            return False
        filled *= size
    return True


def _sorted_by_score(scores: NDArray[np.float16], classes: NDArray[np.uint16], where: str) -> PublishedMap:
    """Sort each cell by score, highest first; equal scores stay in the file's order."""
    ids = np.sort(classes, axis=0)
    if (ids[1:] == ids[:-1]).any():
        raise LabelMapError(f"{where}: a class comes twice in one cell")
    if (scores[:-1] < scores[1:]).any():
        order = np.argsort(-scores, axis=0, kind="stable")
        scores, classes = np.take_along_axis(scores, order, 0), np.take_along_axis(classes, order, 0)
    return PublishedMap(classes, scores)


# torch.load(weights_only=True) runs no foreign code, but it unpacks compressed archives of any size, and its unpickler
# still calls `bytearray(1 << 40)`, hashes nested tuples until the stack overflows, and doubles a tuple at each step.
# The three checks below stop that before torch sees the file.


def _load_tensor(data: bytes, where: str) -> tuple[Tensor, int]:
    """The tensor of a file, and how many bytes the file has for it."""
    if problem := foreign_content(data):
        raise LabelMapError(f"{where}: {problem}")
    stored_bytes = len(data)
    if data.startswith(ZIP_MAGIC):
        data, stored_bytes = _checked_archive(data, where)
    else:
        stream = io.BytesIO(data)
        for _ in range(LEGACY_PICKLES):
            _check_pickle(stream, where)
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused just below
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise LabelMapError(f"{where}: {NOT_LOADED}") from error
    except Exception as error:  # hostile files make torch raise errors of any type, some with advice to run their code
        raise LabelMapError(f"{where}: not a tensor saved by torch ({type(error).__name__})") from error
    if type(content) is not Tensor:
        raise LabelMapError(f"{where}: holds a {type(content).__name__}, expected one tensor [2, K, H, W]")
    return content, stored_bytes


def _checked_archive(data: bytes, where: str) -> tuple[bytes, int]:
    """Copy the parts of an uncompressed zip archive that one tensor needs, its pickle checked.

    torch is given the copy, since its own zip reader may find other entries in the same bytes.

    Returns:
        The copy, and how many bytes it has for the tensor's values.
    """
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise LabelMapError(f"{where}: a compressed archive, which torch.save never writes; save it again")
            if (claimed := sum(entry.file_size for entry in entries)) > len(data):
                raise LabelMapError(f"{where}: claims {claimed:,} bytes in a file of {len(data):,}; it is damaged")
            found = {entry.filename.partition("/")[2]: entry for entry in entries}
            parts = {name: archive.read(entry) for name, entry in found.items() if ZIP_PARTS.fullmatch(name)}
        with zipfile.ZipFile(copy, "w") as checked:
            for name, part in parts.items():
                checked.writestr(f"map/{name}", part)
    except LabelMapError:
        raise
    except Exception as error:  # zipfile raises half a dozen types on hostile bytes
        raise LabelMapError(f"{where}: a damaged .pt archive: {first_line(error)}") from error
    stored = [len(part) for name, part in parts.items() if name.startswith("data/")]
    if len(stored) != 1:
        raise LabelMapError(f"{where}: {len(stored)} tensors, expected one [2, K, H, W]")
    _check_pickle(io.BytesIO(parts.get("data.pkl", b"")), where)
    return copy.getvalue(), stored[0]


def _check_pickle(stream: IO[bytes], where: str) -> None:
    """Read past one pickle and refuse what building one tensor does not need."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes in strings that are refused a line later
            for count, (step, value, _) in enumerate(pickletools.genops(stream)):
                is_foreign = "GLOBAL" in step.name and not GLOBALS.fullmatch(str(value))
                if count >= MAX_STEPS or step.name in MEMO_READS or is_foreign:
                    raise LabelMapError(f"{where}: {NOT_LOADED}")
    except LabelMapError:
        raise
    except ValueError as error:
        raise LabelMapError(f"{where}: not a tensor saved by torch: {first_line(error)}") from error
